"""Prints a benchmark's table, and keeps it as JSON with machine, versions and date."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
from typing import Any

import jax

from vaejax.data.cache.building import available_cores
from vaejax.files.atomic import replacing
from vaejax.files.strict_json import dumps
from vaejax.records.tables import Row, markdown

PACKAGES = (
    "vaejax", "jax", "jaxlib", "libtpu", "flax", "optax", "tensorflow", "tensorflow-cpu", "torch",
    "pythae",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Returns machine, versions, date and command, without which a number means nothing."""
    return {
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def show(rows: list[Row]) -> None:
    """Prints the rows as a Markdown table on stdout."""
    print(markdown(rows), flush=True)


def keep(rows: list[Row], path: str | None) -> None:
    """Prints where the rows were measured; given a `path`, writes both to it as JSON."""
    where = environment()
    print(
        f"\n{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB; "
        f"{where['devices']} x {where['device']}; Python {where['python']}, "
        + ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        + f"; {where['date']}\n{where['command']}"
    )
    if path:
        file = pathlib.Path(path).expanduser()
        with replacing(file) as temporary:
            temporary.write_text(dumps({"environment": where, "rows": rows}, indent=2) + "\n")
        print(f"kept: {file}")


def _module() -> str:
    """The name of the benchmark that runs, as its command has it."""
    return f"benchmarks.{pathlib.Path(sys.argv[0]).stem}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The CPU's name; from /proc/cpuinfo, as Python's own answer is empty on Linux."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""Seconds from the command to the first step: `python -m benchmarks.startup --config=…`.

Starts `python -m vaejax.main` as a user does, with nothing cached and then with everything, and
takes the times from the lines it prints. The runs are deleted.
"""

import pathlib
import statistics
import tempfile
import time

from absl import flags

from benchmarks import report, timing
from benchmarks.runs import start_run
from vaejax import cli
from vaejax.errors import UserError

CONFIG = cli.define_config()
REPEATS = flags.DEFINE_integer("repeats", 3, "Starts with everything cached.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Each part ends at a printed line that begins so; "preparing" comes only with nothing cached.
PARTS = {
    "imports and settings": ("preparing ", "training from step"),
    "pictures": ("training from step",),
    "compilation and first step": ("first step done",),
}


def start(cache: pathlib.Path) -> dict[str, float]:
    """Measures one start; returns the seconds of each part, and of all as "seconds".

    Args:
      cache: the directory for caches and compiled programs, empty or from an earlier start.

    Raises:
      UserError: the run failed, with its last line, or ended before its first step.
    """
    with tempfile.TemporaryDirectory() as workdir:
        begin = time.perf_counter()
        seconds, waiting, since = {}, list(PARTS), begin
        places = {
            "XDG_CACHE_HOME": str(cache),
            "JAX_COMPILATION_CACHE_DIR": str(cache / "programs"),
        }
        with start_run(pathlib.Path(workdir, "run"), "data.cache_dir=", **places) as run:
            for line in run.lines():
                now = time.perf_counter()
                while waiting and line.startswith(PARTS[waiting[0]]):
                    seconds[waiting.pop(0)] = now - since
                    since = now
                if not waiting:
                    return {**seconds, "seconds": since - begin}
            run.check()
    raise UserError("the run ended before its first step")


def main() -> None:
    """Measures, prints the table and keeps it."""
    with tempfile.TemporaryDirectory() as cache:
        starts = [start(pathlib.Path(cache)) for _ in range(1 + REPEATS.value)]
    rows = []
    for name, times in {"nothing": starts[:1], "everything": starts[1:]}.items():
        row = {"cached": name, "starts": len(times)}
        row |= {part: statistics.median(one[part] for one in times) for part in times[0]}
        rows.append(row | {"spread %": 100 * timing.spread([one["seconds"] for one in times])})
    report.show(rows)
    report.keep(rows, OUT.value)


if __name__ == "__main__":
    cli.run(main, required=["config"])

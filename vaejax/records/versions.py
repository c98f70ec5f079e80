"""Versions of the software that computes a run: with others, results are not bit-identical."""

import functools
import sys
from importlib import metadata

from vaejax.records.progress import say
from vaejax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
ABSENT = "not installed"
# The advice where processes of one run have different versions.
REMEDY = "install the same on all machines: pip install -c launch/constraints.txt -e ."


def versions() -> dict[str, str]:
    """Returns the version by name: vaejax, Python (minor version), and each of `PACKAGES`."""
    own = {"vaejax": __version__, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    return own | {name: _installed(name) for name in PACKAGES}


def tell_of_other_versions(saved: dict[str, str]) -> None:
    """Prints, in one line, which versions have changed since a checkpoint was saved.

    Args:
      saved: `versions()` of the process that saved it; empty if it did not record them.
    """
    now = versions()
    changes = [
        f"{name} {version} -> {now.get(name, ABSENT)}"
        for name, version in saved.items()
        if version != now.get(name, ABSENT)
    ]
    if changes:
        say(
            f"the checkpoint was saved with other versions ({', '.join(changes)}): the run goes "
            "on, but no longer bit for bit as it would have with those"
        )


@functools.cache
def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ABSENT

"""What lies in a directory of checkpoints, seen without Orbax."""

import json
import shutil
from pathlib import Path

# The validation figure that decides which checkpoint is the best: lower is better.
METRIC = "elbo_bits_per_dim"
# Before the name of one that is about to be replaced.
REPLACED = "replaced."


def saved(directory: Path) -> list[Path]:
    """The folders of the checkpoints that are there wholly, if `directory` is."""
    return [path for path in directory.glob("[0-9]*") if path.name.isdigit()]


def settle_replaced(directory: Path) -> None:
    """Removes a checkpoint that another has replaced; takes it back where that was not finished."""
    for old in directory.glob(f"{REPLACED}*"):
        new = directory / old.name.removeprefix(REPLACED)
        if new.exists():
            shutil.rmtree(old)
        else:
            old.rename(new)


def unreadable_metrics(directory: Path) -> list[Path]:
    """Damaged files of validation figures, without which Orbax opens no checkpoint at all."""
    paths = [folder / "metrics" / "metrics" for folder in saved(directory)]
    return [path for path in paths if not _is_metrics(path)]


def _is_metrics(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes())[METRIC], float)
    except FileNotFoundError:
        return True  # not validated, or deleted meanwhile
    except (OSError, ValueError, KeyError, TypeError):
        return False

"""Reads and tidies a directory of checkpoints without Orbax."""

import json
import shutil
from pathlib import Path

# Prefix of the name of a checkpoint that is about to be replaced.
REPLACED = "replaced."
# Follows the name of a checkpoint that Orbax has begun to write.
UNFINISHED = ".orbax-checkpoint-tmp"


def saved(directory: Path) -> list[Path]:
    """Returns the folders of complete checkpoints; none if `directory` does not exist."""
    return [path for path in directory.glob("[0-9]*") if path.name.isdigit()]


def remove_unfinished(directory: Path) -> None:
    """Removes checkpoints that killed runs left incomplete; no process may be saving there."""
    for torn in directory.glob(f"*{UNFINISHED}*"):
        # A folder that cannot be removed takes up space, but is never read.
        shutil.rmtree(torn, ignore_errors=True)


def settle_replaced(directory: Path) -> None:
    """Removes checkpoints that were replaced; restores those whose replacement is not complete.

    Raises:
      OSError: a folder cannot be removed or renamed.
    """
    for old in directory.glob(f"{REPLACED}*"):
        new = directory / old.name.removeprefix(REPLACED)
        if new.exists():
            shutil.rmtree(old)
        else:
            old.rename(new)


def unreadable_metrics(directory: Path, best_by: str | None) -> list[Path]:
    """Returns the damaged files of validation metrics; with one, Orbax opens no checkpoint at all.

    Args:
      directory: directory of the checkpoints.
      best_by: the metric that each file must have; None if none is needed.
    """
    paths = [folder / "metrics" / "metrics" for folder in saved(directory)]
    return [path for path in paths if best_by and not _has_figure(path, best_by)]


def _has_figure(path: Path, name: str) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes())[name], float)
    except FileNotFoundError:
        return True  # not validated, or deleted meanwhile
    except (OSError, ValueError, KeyError, TypeError):
        return False

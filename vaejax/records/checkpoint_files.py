"""The files of a directory of checkpoints, read without Orbax."""

import json
import shutil
from pathlib import Path

# Before the name of one that is about to be replaced.
REPLACED = "replaced."
# After the name of one that Orbax has begun to write.
UNFINISHED = ".orbax-checkpoint-tmp"


def saved(directory: Path) -> list[Path]:
    """The folders of the checkpoints that are there wholly, if `directory` is."""
    return [path for path in directory.glob("[0-9]*") if path.name.isdigit()]


def remove_unfinished(directory: Path) -> None:
    """Removes what killed runs had begun to save, while nobody saves there."""
    for torn in directory.glob(f"*{UNFINISHED}*"):
        # What cannot be removed takes room and is never read.
        shutil.rmtree(torn, ignore_errors=True)


def settle_replaced(directory: Path) -> None:
    """Removes a checkpoint that another has replaced; takes it back where that was not finished."""
    for old in directory.glob(f"{REPLACED}*"):
        new = directory / old.name.removeprefix(REPLACED)
        if new.exists():
            shutil.rmtree(old)
        else:
            old.rename(new)


def unreadable_metrics(directory: Path, best_by: str | None) -> list[Path]:
    """Damaged files of validation figures, without which Orbax opens no checkpoint at all.

    Args:
      directory: directory of the checkpoints.
      best_by: the figure that each must have, if any.
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

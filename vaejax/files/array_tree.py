"""Trees of arrays with a JSON header in one .npz file, written atomically and without pickles."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from vaejax.errors import UserError, is_out_of_memory, short_reason
from vaejax.files.atomic import replacing

# The one entry of a file that is not an array of the tree.
_HEADER = "header"
_SEPARATOR = "/"


def save_tree(path: Path, tree: PyTree, header: dict[str, Any]) -> None:
    """Writes a nested dict of arrays, bit for bit, and a JSON object.

    The file is replaced atomically: if the process is killed, the previous one stays in place.

    Args:
      path: the file.
      tree: nested dicts whose keys have no slash.
      header: any JSON object.

    Raises:
      OSError: the file cannot be written.
    """
    flat: dict[str, Any] = traverse_util.flatten_dict(jax.device_get(tree), sep=_SEPARATOR)
    flat[_HEADER] = np.array(json.dumps(header))
    # `np.savez` gets an open file, because it would append .npz to a name without that suffix.
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **flat)
        file.flush()
        os.fsync(file.fileno())


def load_tree(path: Path, what: str, remedy: str) -> tuple[PyTree, dict[str, Any]]:
    """Reads the tree, on the first device, and the header that `save_tree` wrote.

    Args:
      path: the file.
      what: what the file holds, such as `fitted prior`, for messages.
      remedy: what to do where it is missing or damaged, for messages.

    Raises:
      UserError: the file does not exist, cannot be read, or is damaged.
    """
    try:
        # Opened here, because NumPy does not close a damaged file that it opened itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entries:
            flat = {name: entries[name] for name in entries.files}
        header = json.loads(str(flat.pop(_HEADER)))
        tree = traverse_util.unflatten_dict(jax.device_put(flat), sep=_SEPARATOR)
    except FileNotFoundError as error:
        raise UserError(f"there is no {what} at {path}; {remedy} first") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({short_reason(error)}); see that it may be read, or {remedy} "
            "again"
        ) from error
    # NumPy, its zip reader and JSON raise nearly any type.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise damaged(path, what, remedy) from error
    if not isinstance(header, dict):
        raise damaged(path, what, remedy)
    return tree, header


def damaged(path: Path, what: str, remedy: str) -> UserError:
    """Returns the error of a file that does not hold what it should."""
    return UserError(f"{path} is damaged or no {what}; {remedy} again")

"""Imports TensorFlow, where it is installed, on first use, and keeps it off accelerators."""

import contextlib
import functools
import importlib.util
import os
import threading
import types

from vaejax.errors import UserError
from vaejax.records.progress import say


@functools.cache
def tensorflow() -> types.ModuleType | None:
    """Imports `tensorflow` with little logging and no GPU or TPU, which are left to JAX.

    Returns:
      The module; None if it is not installed or, after a message on stderr, if its import fails.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow computes nothing here; this only suppresses the line that it logs about oneDNN.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf

        hide_devices = tf.config.set_visible_devices
    except Exception as error:  # a broken or half removed installation can raise anything
        say(
            f"TensorFlow is installed but its import fails ({type(error).__name__}): going on"
            " without it; `python -c 'import tensorflow'` says why"
        )
        return None
    for kind in ("GPU", "TPU"):
        # Once a process has used TensorFlow, its devices can no longer be hidden.
        with contextlib.suppress(RuntimeError):
            hide_devices([], kind)
    return tf


def import_tensorflow_meanwhile() -> None:
    """Starts to import TensorFlow in a background thread, while the training step compiles.

    Both take seconds. A call of `tensorflow` during the import waits for it. So does the end of
    the process: an interpreter that exits while TensorFlow is being imported crashes.
    """
    threading.Thread(target=tensorflow).start()


@functools.cache
def tensorflow_datasets() -> types.ModuleType:
    """Imports and returns the `tensorflow_datasets` module.

    Raises:
      UserError: it or TensorFlow is not installed, or the import of TensorFlow fails.
    """
    try:
        if tensorflow() is None:
            raise ImportError("TensorFlow is not installed or cannot be imported")
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            "config.data.source='tfds:...' needs TensorFlow and TensorFlow Datasets"
            f" ({error}): pip install 'vaejax[tfds]' with Python 3.13 or older"
        ) from error
    return tfds

"""Imports TensorFlow where it is installed, when first needed, and keeps it off accelerators."""

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
    """The `tensorflow` module, quiet, and without claim to a GPU or TPU, which are JAX's.

    None where it is not installed; and, with a line that says so, where its import fails.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow computes nothing here; this only saves the line it prints about it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf

        hide_devices = tf.config.set_visible_devices
    except Exception as error:  # a broken or half removed installation raises anything
        say(
            f"TensorFlow is installed but its import fails ({type(error).__name__}): going on"
            " without it; `python -c 'import tensorflow'` says why"
        )
        return None
    for kind in ("GPU", "TPU"):
        # A process that has used TensorFlow before cannot hide its devices any more.
        with contextlib.suppress(RuntimeError):
            hide_devices([], kind)
    return tf


def import_tensorflow_meanwhile() -> None:
    """Imports TensorFlow in the background: it takes seconds, and so does compiling a step.

    Whoever calls `tensorflow` before it is there waits for it. So does a process that ends
    meanwhile: an interpreter that goes while TensorFlow is coming crashes.
    """
    threading.Thread(target=tensorflow).start()


@functools.cache
def tensorflow_datasets() -> types.ModuleType:
    """The `tensorflow_datasets` module; `UserError` where it or TensorFlow is not installed."""
    try:
        if tensorflow() is None:
            raise ImportError("No module named 'tensorflow'")
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            "config.data.source='tfds:...' needs TensorFlow and TensorFlow Datasets"
            f" ({error}): pip install 'vaejax[tfds]' with Python 3.13 or older"
        ) from error
    return tfds

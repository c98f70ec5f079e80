"""TensorFlow, imported when the first data set is opened and kept off the accelerators."""

import contextlib
import functools
import os
import threading
import types

from vaejax.errors import UserError


@functools.cache
def tensorflow() -> types.ModuleType:
    """The `tensorflow` module, quiet, and without claim to a GPU or TPU, which are JAX's."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow computes nothing here; this only saves the line it prints about it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        # A process that has used TensorFlow before cannot hide its devices any more.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], kind)
    return tf


def import_tensorflow_meanwhile() -> None:
    """Imports TensorFlow in the background: it takes seconds, and so does compiling a step.

    Whoever calls `tensorflow` before it is there waits for it. So does a process that ends
    meanwhile: an interpreter that goes while TensorFlow is coming crashes.
    """
    threading.Thread(target=tensorflow).start()


@functools.cache
def tensorflow_datasets() -> types.ModuleType:
    """The `tensorflow_datasets` module; `UserError` where it is not installed."""
    tensorflow()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"config.data.source='tfds:...' needs TensorFlow Datasets ({error}):"
            " pip install 'vaejax[tfds]'"
        ) from error
    return tfds

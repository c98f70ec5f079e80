"""Loads arrays ahead of use with tf.data."""

from collections.abc import Callable, Generator, Mapping

import numpy as np
from jaxtyping import Shaped

from vaejax.data.lazy_tensorflow import tensorflow


def loaded_ahead(
    load: Callable[[int], tuple[Shaped[np.ndarray, "..."], ...]],
    types: Mapping[str, type[np.generic]],
    numbers: range,
    ahead: int,
) -> Generator[dict[str, Shaped[np.ndarray, "..."]], None, None]:
    """Does the same as `threads.loaded_ahead`, and gives the same bytes, with tf.data.

    Raises:
      ImportError: TensorFlow is not installed, or its import fails.
    """
    tf = tensorflow()
    if tf is None:
        raise ImportError("tf.data needs TensorFlow, which is not installed")
    failures: list[Exception] = []

    def loaded(number: np.int64) -> tuple[np.ndarray, ...]:
        try:
            return load(int(number))
        except Exception as error:
            failures.append(error)
            raise

    @tf.autograph.experimental.do_not_convert
    def by_name(number):
        arrays = tf.numpy_function(loaded, [number], list(types.values()), stateful=False)
        return dict(zip(types, arrays))

    options = tf.data.Options()
    options.autotune.enabled = False  # one stage: nothing to tune, and one thread fewer
    options.threading.private_threadpool_size = 1
    dataset = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step).map(by_name)
    dataset = dataset.prefetch(ahead).with_options(options)
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        # TensorFlow wraps what `load` raised, as text, in an error of its own: raise the original.
        raise (failures or [error])[0] from None

"""Batches for training and evaluation: contents, order, resuming, and shares of processes.

Each feed, tf.data and threads, must give the same bytes.
"""

import hashlib
import importlib.util
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.data.feed.order import batch_indices
from vaejax.data.feed.pipeline import eval_batches, feeds, train_batches

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
few = settings(max_examples=15)  # each example builds several pipelines


@pytest.fixture(params=[pytest.param("tf.data", marks=needs_tensorflow), "threads"], scope="module")
def feed(request):
    return feeds()[request.param]


def examples(count, height=4, width=3, channels=2):
    """Returns `count` pictures and a label, the arrays of a split."""
    values = np.arange(count * height * width * channels, dtype=np.uint32) % 251
    images = values.astype(np.uint8).reshape(count, height, width, channels)
    return {"image": images, "age": np.arange(count, dtype=np.float32) / 2}


def assert_batch(batch, wanted):
    """Asserts that a batch equals `wanted`, also in order and dtypes, and is read-only."""
    assert list(batch) == list(wanted)
    for name, array in batch.items():
        assert type(array) is np.ndarray and array.dtype == wanted[name].dtype
        assert array.flags.c_contiguous and not array.flags.writeable
        np.testing.assert_array_equal(array, wanted[name])


@few
@given(
    st.integers(0, 2**63), st.integers(1, 30), st.integers(1, 5), st.integers(1, 3),
    st.integers(0, 40), st.booleans(),
)  # fmt: skip
def test_each_process_gets_its_rows_of_the_order_from_any_step_on(
    feed, seed, size, local, processes, first, only_index
):
    arrays, batch_size = examples(size), local * processes
    for process in range(processes):
        batches = train_batches(
            arrays, seed=seed, batch_size=batch_size, first_step=first, process_index=process,
            process_count=processes, only_index=only_index, feed=feed,
        )  # fmt: skip
        for step, batch in enumerate(itertools.islice(batches, 20), first):
            row = step * batch_size + process * local
            index = batch_indices(seed, np.arange(row, row + local), size)
            rows = {} if only_index else {name: array[index] for name, array in arrays.items()}
            assert_batch(batch, {**rows, "index": index})


@few
@given(st.integers(0, 70), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_evaluation_gets_every_chosen_row_once_and_in_order(feed, size, local, processes, all_rows):
    arrays, batch_size = examples(size), local * processes
    rows = np.arange(size) if all_rows else np.arange(size)[::-2]
    for process in range(processes):
        batches = list(
            eval_batches(
                arrays, batch_size=batch_size, process_index=process, process_count=processes,
                chosen=None if all_rows else rows, feed=feed,
            )
        )  # fmt: skip
        assert len(batches) == -(-len(rows) // batch_size)
        for step, batch in enumerate(batches):
            positions = np.arange(local) + step * batch_size + process * local
            index = rows[np.minimum(positions, len(rows) - 1)]
            wanted = {name: array[index] for name, array in arrays.items()}
            assert_batch(batch, {**wanted, "index": index, "mask": positions < len(rows)})


def test_the_bytes_of_batches_never_change(feed):
    """The digest is a constant: batches depend neither on the feed nor on the platform."""
    digest = hashlib.sha256()
    images = examples(1000)["image"]
    train = train_batches({"image": images}, seed=5, batch_size=24, first_step=123, feed=feed)
    evaluation = eval_batches({"image": images[:50]}, batch_size=24, feed=feed)
    for batch in itertools.chain(itertools.islice(train, 60), evaluation):
        for name, array in batch.items():
            digest.update(name.encode() + array.tobytes())
    wanted = "7848708da7e544216cb7d5e73741e3cc42327bd8fe886e3042ce08788cc44e09"
    assert digest.hexdigest() == wanted


@needs_tensorflow
def test_tensorflow_is_the_default_feed_where_it_is_installed():
    assert list(feeds()) == ["tf.data", "threads"]


def test_wrong_shares_are_refused_at_once():
    arrays = examples(4)
    for make in (train_batches, eval_batches):
        extra = {"seed": 0} if make is train_batches else {}
        with pytest.raises(ValueError, match="batch of 5 cannot be shared by 2"):
            make(arrays, batch_size=5, process_count=2, **extra)
        with pytest.raises(ValueError, match="no process 2 among 2"):
            make(arrays, batch_size=4, process_count=2, process_index=2, **extra)
    with pytest.raises(ValueError, match="no examples"):
        train_batches(examples(0), seed=0, batch_size=4)

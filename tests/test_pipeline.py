"""Tests the batches for training and evaluation: contents, order, resuming, processes."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.data.feed.order import batch_indices
from vaejax.data.feed.pipeline import eval_batches, train_batches

SEEDS = st.integers(0, 2**63)
few = settings(max_examples=15)  # each example builds several pipelines


def order_of(seed, first, count, size):
    """Returns the rows at `count` positions of the training order, starting at `first`."""
    return batch_indices(seed, np.arange(first, first + count), size)


def examples(count, height=4, width=3, channels=1):
    values = np.arange(count, dtype=np.uint32) % 251
    images = np.broadcast_to(
        values.astype(np.uint8)[:, None, None, None], (count, height, width, channels)
    ).copy()
    return {"image": images, "age": np.arange(count, dtype=np.float32) / 2}


@given(SEEDS, st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.integers(0, 50))
@few
def test_the_order_alone_is_that_of_the_batches(seed, size, local, processes, first):
    where = {
        "seed": seed,
        "batch_size": local * processes,
        "first_step": first,
        "process_index": processes - 1,
        "process_count": processes,
    }
    batches = train_batches(examples(size), **where)
    order = train_batches(examples(size), only_index=True, **where)
    for batch, alone in itertools.islice(zip(batches, order), 3):
        assert list(batch["index"]) == list(alone["index"]) and alone.keys() == {"index"}


def test_batches_are_the_pictures_of_their_indices():
    arrays = examples(10)
    for step, batch in enumerate(itertools.islice(train_batches(arrays, seed=3, batch_size=4), 9)):
        assert list(batch) == ["image", "age", "index"]
        assert batch["image"].dtype == np.uint8
        assert batch["index"].dtype == np.int64
        np.testing.assert_array_equal(batch["index"], order_of(3, step * 4, 4, 10))
        for name, array in arrays.items():
            np.testing.assert_array_equal(batch[name], array[batch["index"]])


@few
@given(st.integers(0, 9), st.integers(1, 30), st.integers(1, 6), st.integers(0, 12))
def test_starting_at_any_step_is_going_on(seed, size, batch_size, step):
    arrays = examples(size)
    whole = train_batches(arrays, seed=seed, batch_size=batch_size)
    rest = train_batches(arrays, seed=seed, batch_size=batch_size, first_step=step)
    for want, got in itertools.islice(zip(itertools.islice(whole, step, None), rest), 4):
        np.testing.assert_array_equal(want["index"], got["index"])
        np.testing.assert_array_equal(want["image"], got["image"])


@few
@given(st.integers(1, 30), st.sampled_from([1, 2, 3, 4]), st.integers(1, 4))
def test_processes_cut_the_same_global_batch(size, process_count, local):
    arrays = examples(size)
    whole = train_batches(arrays, seed=1, batch_size=local * process_count)
    shares = [
        train_batches(
            arrays,
            seed=1,
            batch_size=local * process_count,
            process_index=index,
            process_count=process_count,
        )
        for index in range(process_count)
    ]
    for want, *parts in itertools.islice(zip(whole, *shares), 4):
        np.testing.assert_array_equal(
            want["index"], np.concatenate([part["index"] for part in parts])
        )
        np.testing.assert_array_equal(
            want["image"], np.concatenate([part["image"] for part in parts])
        )


@few
@given(st.integers(0, 40), st.sampled_from([1, 2, 3]), st.integers(1, 5))
def test_evaluation_sees_every_picture_once(size, process_count, local):
    arrays = examples(size)
    seen, numbers = [], set()
    for index in range(process_count):
        batches = list(
            eval_batches(
                arrays,
                batch_size=local * process_count,
                process_index=index,
                process_count=process_count,
            )
        )
        numbers.add(len(batches))
        for batch in batches:
            assert batch["image"].shape == (local, 4, 3, 1)
            assert batch["mask"].dtype == np.bool_
            for name, array in arrays.items():
                np.testing.assert_array_equal(batch[name], array[batch["index"]])
            seen += list(batch["index"][batch["mask"]])
    assert sorted(seen) == list(range(size))
    assert len(numbers) == 1


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


def test_importing_the_package_imports_no_tensorflow():
    code = (
        "import sys, vaejax.data, vaejax.data.feed.pipeline\n"
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

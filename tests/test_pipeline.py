"""The order of the pictures, and the batches made of it."""

import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.data.pipeline import batch_indices, eval_batches, train_batches

SEEDS = st.integers(0, 2**63)
few = settings(max_examples=15)  # each example builds several tf.data pipelines


def order_of(seed, first, count, size):
    """The pictures at `count` positions from `first` on."""
    return batch_indices(seed, np.arange(first, first + count), size)


def pictures(count, height=4, width=3, channels=1):
    values = np.arange(count, dtype=np.uint32) % 251
    return np.broadcast_to(
        values.astype(np.uint8)[:, None, None, None], (count, height, width, channels)
    ).copy()


@given(SEEDS, st.integers(1, 70), st.integers(0, 5))
def test_every_epoch_is_a_permutation(seed, size, epoch):
    order = order_of(seed, epoch * size, size, size)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(size))


@given(SEEDS, st.integers(1, 40), st.integers(1, 50), st.integers(0, 200))
def test_order_is_a_function_of_the_position(seed, size, batch, first):
    # A batch, even one that spans several epochs, is the run of its single positions.
    together = order_of(seed, first, batch, size)
    alone = [order_of(seed, first + row, 1, size)[0] for row in range(batch)]
    assert list(together) == alone


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
    batches = train_batches(pictures(size), **where)
    order = train_batches(pictures(size), only_index=True, **where)
    for batch, alone in itertools.islice(zip(batches, order), 3):
        assert list(batch["index"]) == list(alone["index"]) and alone.keys() == {"index"}


def test_epochs_and_seeds_differ_and_look_random():
    size = 1000
    orders = [order_of(seed, e * size, size, size) for seed in (0, 1) for e in range(10)]
    # index_shuffle with these small seeds as they are gives nearly the identity.
    orders.append(np.arange(size))
    correlation = np.corrcoef(orders)[np.triu_indices(len(orders), 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(size)
    neighbours = np.mean([(np.abs(np.diff(order)) == 1).mean() for order in orders[:-1]])
    assert neighbours < 0.004  # 2 / size by chance
    of_three = {tuple(order_of(7, e * 3, 3, 3)) for e in range(60)}
    assert len(of_three) == 6


def test_order_never_changes():
    """A run resumed with a newer release must see the pictures it would have seen."""
    assert list(order_of(0, 0, 8, 1000)) == [365, 488, 42, 397, 803, 897, 319, 226]
    later = [54387, 137814, 137159, 146638, 20010, 115982, 136412, 50537]
    assert list(order_of(1, 10**12, 8, 162_770)) == later


def test_batches_are_the_pictures_of_their_indices():
    images = pictures(10)
    for step, batch in enumerate(itertools.islice(train_batches(images, seed=3, batch_size=4), 9)):
        assert list(batch) == ["image", "index"]
        assert batch["image"].dtype == np.uint8
        assert batch["index"].dtype == np.int64
        np.testing.assert_array_equal(batch["index"], order_of(3, step * 4, 4, 10))
        np.testing.assert_array_equal(batch["image"], images[batch["index"]])


@few
@given(st.integers(0, 9), st.integers(1, 30), st.integers(1, 6), st.integers(0, 12))
def test_starting_at_any_step_is_going_on(seed, size, batch_size, step):
    images = pictures(size)
    whole = train_batches(images, seed=seed, batch_size=batch_size)
    rest = train_batches(images, seed=seed, batch_size=batch_size, first_step=step)
    for want, got in itertools.islice(zip(itertools.islice(whole, step, None), rest), 4):
        np.testing.assert_array_equal(want["index"], got["index"])
        np.testing.assert_array_equal(want["image"], got["image"])


@few
@given(st.integers(1, 30), st.sampled_from([1, 2, 3, 4]), st.integers(1, 4))
def test_processes_cut_the_same_global_batch(size, process_count, local):
    images = pictures(size)
    whole = train_batches(images, seed=1, batch_size=local * process_count)
    shares = [
        train_batches(
            images,
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
    images = pictures(size)
    seen, numbers = [], set()
    for index in range(process_count):
        batches = list(
            eval_batches(
                images,
                batch_size=local * process_count,
                process_index=index,
                process_count=process_count,
            )
        )
        numbers.add(len(batches))
        for batch in batches:
            assert batch["image"].shape == (local, 4, 3, 1)
            assert batch["mask"].dtype == np.bool_
            np.testing.assert_array_equal(batch["image"], images[batch["index"]])
            seen += list(batch["index"][batch["mask"]])
    assert sorted(seen) == list(range(size))
    assert len(numbers) == 1


def test_wrong_shares_are_refused_at_once():
    images = pictures(4)
    for make in (train_batches, eval_batches):
        extra = {"seed": 0} if make is train_batches else {}
        with pytest.raises(ValueError, match="batch of 5 cannot be shared by 2"):
            make(images, batch_size=5, process_count=2, **extra)
        with pytest.raises(ValueError, match="no process 2 among 2"):
            make(images, batch_size=4, process_count=2, process_index=2, **extra)
    with pytest.raises(ValueError, match="no pictures"):
        train_batches(images[:0], seed=0, batch_size=4)


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_dropped_iterators_leave_no_threads():
    images = pictures(100, 64, 64, 3)

    def threads_after(count):
        for seed in range(count):
            next(train_batches(images, seed=seed, batch_size=32))
        return len(os.listdir("/proc/self/task"))

    before = threads_after(3)
    assert threads_after(20) <= before


def test_a_process_ends_cleanly_with_iterators_open():
    code = (
        "import numpy as np; from vaejax.data.pipeline import train_batches\n"
        "images = np.zeros((500, 64, 64, 3), np.uint8)\n"
        "open_ = [train_batches(images, seed=s, batch_size=64) for s in range(3)]\n"
        "[next(batches) for batches in open_]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stderr == ""


def test_importing_the_package_imports_no_tensorflow():
    code = (
        "import sys, vaejax.data, vaejax.data.pipeline\n"
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

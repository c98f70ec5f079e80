"""Tests that tf.data and threads prefetch the same batches, and release their threads."""

import hashlib
import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from commands import command
from hypothesis import given, settings
from hypothesis import strategies as st
from states import assert_same, final_state
from stopping import stopped_at
from tiny import CONFIG_FILE, metrics, tiny

from vaejax.data.feed.order import batch_indices
from vaejax.data.feed.pipeline import eval_batches, feeds, train_batches

pytestmark = pytest.mark.slow

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
FEEDS = [pytest.param("tf.data", marks=needs_tensorflow), "threads"]
few = settings(max_examples=15)  # each example builds several pipelines


@pytest.fixture(params=FEEDS, scope="module")
def feed(request):
    return feeds()[request.param]


def pictures(count, height=4, width=3, channels=2):
    values = np.arange(count * height * width * channels, dtype=np.uint32) % 251
    return values.astype(np.uint8).reshape(count, height, width, channels)


def same(batch, want):
    """Asserts that a batch equals `want`, also in order and dtypes, and is read-only."""
    assert list(batch) == list(want)
    for name, array in batch.items():
        assert type(array) is np.ndarray and array.dtype == want[name].dtype
        assert array.flags.c_contiguous and not array.flags.writeable
        np.testing.assert_array_equal(array, want[name])
    return True


@few
@given(
    st.integers(0, 2**63), st.integers(1, 30), st.integers(1, 5), st.integers(1, 3),
    st.integers(0, 40), st.booleans(),
)  # fmt: skip
def test_training_gets_its_rows_from_any_step_on(
    feed, seed, size, local, processes, first, only_index
):
    images, batch = pictures(size), local * processes
    arrays = {"image": images}
    for process in range(processes):
        batches = train_batches(
            arrays, seed=seed, batch_size=batch, first_step=first, process_index=process,
            process_count=processes, only_index=only_index, feed=feed,
        )  # fmt: skip
        for step, got in enumerate(itertools.islice(batches, 20), first):
            row = step * batch + process * local
            index = batch_indices(seed, np.arange(row, row + local), size)
            image = {} if only_index else {"image": images[index]}
            assert same(got, {**image, "index": index})


@few
@given(st.integers(0, 70), st.integers(1, 3), st.integers(1, 4))
def test_evaluation_gets_its_rows(feed, size, local, processes):
    images, batch = pictures(size), local * processes
    arrays = {"image": images}
    for process in range(processes):
        batches = eval_batches(
            arrays, batch_size=batch, process_index=process, process_count=processes, feed=feed
        )
        step = -1
        for step, got in enumerate(batches):
            positions = np.arange(local) + step * batch + process * local
            index = np.minimum(positions, size - 1)
            want = {"image": images[index], "index": index, "mask": positions < size}
            assert same(got, want)
        assert step + 1 == -(-size // batch)


def test_bytes_never_change(feed):
    """The digest is a constant: batches depend neither on the feed nor on the platform."""
    digest = hashlib.sha256()
    train = train_batches(
        {"image": pictures(1000)}, seed=5, batch_size=24, first_step=123, feed=feed
    )
    evaluation = eval_batches({"image": pictures(50)}, batch_size=24, feed=feed)
    for batch in itertools.chain(itertools.islice(train, 60), evaluation):
        for name, array in batch.items():
            digest.update(name.encode() + array.tobytes())
    want = "7848708da7e544216cb7d5e73741e3cc42327bd8fe886e3042ce08788cc44e09"
    assert digest.hexdigest() == want


def numbers(feed, load, count=100, ahead=2):
    return feed(load, {"number": np.int64}, range(count), ahead)


def one(number):
    return (np.array([number]),)


def test_it_loads_no_more_than_it_may(feed):
    loaded = []

    def load(number):
        loaded.append(number)
        return one(number)

    coming = numbers(feed, load)
    time.sleep(0.1)
    assert loaded == []
    for taken in range(1, 6):
        assert next(coming)["number"] == [taken - 1]
        time.sleep(0.1)
        assert taken + 1 <= len(loaded) <= taken + 3
        assert loaded == list(range(len(loaded)))
    coming.close()
    so_far = len(loaded)
    time.sleep(0.1)
    assert len(loaded) == so_far and next(coming, None) is None


def test_what_the_reader_raises_arrives(feed):
    def load(number):
        if number == 3:
            raise OSError(5, "the disk is gone")
        return one(number)

    coming = numbers(feed, load)
    assert [next(coming)["number"].item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)
    assert next(coming, None) is None


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("vaejax-feed")]


@pytest.mark.parametrize("way", ["close", "drop", "end", "error", "unused"])
def test_the_thread_ends_with_its_iterator(way):
    assert readers() == []

    def load(number):
        if way == "error":
            raise OSError
        return one(number)

    coming = numbers(feeds()["threads"], load, 4)
    if way == "error":
        with pytest.raises(OSError):
            next(coming)
    elif way == "end":
        assert len(list(coming)) == 4
    elif way != "unused":
        next(coming)
        assert len(readers()) == 1
        if way == "close":
            coming.close()
            assert readers() == []
    del coming
    assert readers() == []


def test_the_reader_itself_may_drop_the_iterator():
    """Garbage collection may run in the reader's thread, which cannot wait for its own end."""
    held, taken = [], threading.Event()

    def load(number):
        if number == 1:
            taken.wait(10)
            held.clear()
        return one(number)

    held.append(numbers(feeds()["threads"], load))
    next(held[0])
    (reader,) = readers()
    taken.set()
    reader.join(10)
    assert not reader.is_alive() and held == []


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_dropped_iterators_leave_no_threads(feed):
    images = pictures(100, 64, 64, 3)

    def threads_after(count):
        for seed in range(count):
            next(train_batches({"image": images}, seed=seed, batch_size=32, feed=feed))
        time.sleep(0.2)  # /proc may list a thread for a moment after its end
        return len(os.listdir("/proc/self/task"))

    before = threads_after(3)
    assert threads_after(20) <= before


@pytest.mark.parametrize("name", FEEDS)
@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_process_ends_cleanly_with_iterators_open(name, end):
    code = (
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from vaejax.data.feed.pipeline import feeds, train_batches\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "images = np.zeros((500, 64, 64, 3), np.uint8)\n"
        "open_ = [\n"
        f"    train_batches({{'image': images}}, seed=s, batch_size=64, feed=feeds()[{name!r}])\n"
        "    for s in range(3)\n"
        "]\n"
        "[next(batches) for batches in open_]\n"
        f"{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stderr == ""


@needs_tensorflow
def test_tensorflow_feeds_first_where_it_is():
    assert list(feeds()) == ["tf.data", "threads"]


@pytest.fixture
def no_tensorflow(tmp_path, monkeypatch):
    """Makes the import of TensorFlow fail in new processes, until `undo` of what it yields."""
    broken = tmp_path / "broken" / "tensorflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('Failed to load the runtime')")
    with monkeypatch.context() as patch:
        path = os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])
        patch.setenv("PYTHONPATH", path)
        yield patch


@needs_tensorflow
def test_a_run_may_change_its_feed(tmp_path, no_tensorflow):
    """A run that starts with threads and resumes with tf.data equals one that uses only tf.data."""
    flags = [f"--config={CONFIG_FILE}", "--config.prior.fitted=()"]
    stopped = stopped_at("first step done", "main", *flags, f"--workdir={tmp_path / 'both'}")
    assert stopped.returncode == 75, stopped.stderr
    broken = "TensorFlow is installed but its import fails (ImportError): going on"
    assert stopped.stderr.count(broken) == 1
    no_tensorflow.undo()
    for run in ("both", "whole"):
        done = command("main", *flags, f"--workdir={tmp_path / run}")
        assert done.returncode == 0 and "import fails" not in done.stderr, done.stderr
    assert_same(final_state(tmp_path / "whole", tiny()), final_state(tmp_path / "both", tiny()))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "both")

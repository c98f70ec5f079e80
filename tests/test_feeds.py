"""The feeds, tf.data and threads: they load ahead, raise errors, and release their threads.

`test_pipeline.py` tests that both give the same batches.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from commands import command
from states import assert_same, final_state
from stops import stopped_at
from tiny import CONFIG_FILE, metrics, tiny

from vaejax.data.feed.pipeline import feeds, train_batches

pytestmark = pytest.mark.slow

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)


@pytest.fixture(params=[pytest.param("tf.data", marks=needs_tensorflow), "threads"], scope="module")
def feed(request):
    return feeds()[request.param]


def numbers(feed, load, count=100, ahead=2):
    return feed(load, {"number": np.int64}, range(count), ahead)


def as_array(number):
    return (np.array([number]),)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def test_a_feed_loads_a_few_numbers_ahead_and_none_after_it_is_closed(feed):
    loaded = []

    def load(number):
        loaded.append(number)
        return as_array(number)

    def load_as_many_by_another_feed():
        """Gives a feed that loads more than it may the time to do so."""
        assert len(list(numbers(feed, as_array))) == 100

    coming = numbers(feed, load)
    load_as_many_by_another_feed()
    assert loaded == []
    for taken in range(1, 6):
        assert next(coming)["number"] == [taken - 1]
        wait_until(lambda taken=taken: len(loaded) > taken)
    load_as_many_by_another_feed()
    assert loaded == list(range(len(loaded))) and len(loaded) <= taken + 3
    coming.close()
    at_close = len(loaded)
    load_as_many_by_another_feed()
    assert len(loaded) == at_close and next(coming, None) is None


def test_what_the_reader_raises_is_raised_in_its_place(feed):
    def load(number):
        if number == 3:
            raise OSError(5, "the disk is gone")
        return as_array(number)

    coming = numbers(feed, load)
    assert [next(coming)["number"].item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)
    assert next(coming, None) is None


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("vaejax-feed")]


@pytest.mark.parametrize("way", ["close", "drop", "end", "error", "unused"])
def test_the_reader_thread_ends_with_its_iterator(way):
    assert reader_threads() == []

    def load(number):
        if way == "error":
            raise OSError
        return as_array(number)

    coming = numbers(feeds()["threads"], load, 4)
    if way == "error":
        with pytest.raises(OSError):
            next(coming)
    elif way == "end":
        assert len(list(coming)) == 4
    elif way != "unused":
        next(coming)
        assert len(reader_threads()) == 1
        if way == "close":
            coming.close()
            assert reader_threads() == []
    del coming
    assert reader_threads() == []


def test_the_reader_thread_may_drop_the_iterator():
    """Garbage collection may run in the reader's thread, which cannot wait for its own end."""
    held, taken = [], threading.Event()

    def load(number):
        if number == 1:
            taken.wait(10)
            held.clear()
        return as_array(number)

    held.append(numbers(feeds()["threads"], load))
    next(held[0])
    (reader,) = reader_threads()
    taken.set()
    reader.join(10)
    assert not reader.is_alive() and held == []


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_dropped_iterators_leave_no_threads(feed):
    images = np.zeros((100, 64, 64, 3), np.uint8)

    def open_and_drop(count):
        for seed in range(count):
            next(train_batches({"image": images}, seed=seed, batch_size=32, feed=feed))

    def count_threads():
        return len(os.listdir("/proc/self/task"))

    open_and_drop(3)
    before = count_threads()
    open_and_drop(20)
    wait_until(lambda: count_threads() <= before)


STOPPED_WITH_OPEN_ITERATORS = """
import os, signal, sys
import numpy as np
from vaejax.data.feed.pipeline import feeds, train_batches

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
images = np.zeros((500, 64, 64, 3), np.uint8)
iterators = [
    train_batches({"image": images}, seed=seed, batch_size=64, feed=feed)
    for feed in feeds().values()
    for seed in range(3)
]
for batches in iterators:
    next(batches)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_with_open_iterators_of_all_feeds_ends_cleanly():
    line = [sys.executable, "-c", STOPPED_WITH_OPEN_ITERATORS]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


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
def test_a_run_may_change_its_feed(trained, tmp_path, no_tensorflow):
    """A run that starts with threads and resumes with tf.data equals one that uses only tf.data."""
    flags = [f"--config={CONFIG_FILE}", "--config.prior.fitted=()", f"--workdir={tmp_path / 'run'}"]
    stopped = stopped_at("first step done", "main", *flags)
    assert stopped.returncode == 75, stopped.stderr
    message = "TensorFlow is installed but its import fails (ImportError): going on"
    assert stopped.stderr.count(message) == 1
    no_tensorflow.undo()
    resumed = command("main", *flags)
    assert resumed.returncode == 0 and "import fails" not in resumed.stderr, resumed.stderr
    assert_same(final_state(trained, tiny()), final_state(tmp_path / "run", tiny()))
    assert metrics(trained) == metrics(tmp_path / "run")

"""A process that makes no progress is ended, and prints the stack of each of its threads."""

import subprocess
import sys
import time

import pytest
from tiny import CONFIG_FILE

from vaejax.runtime.watchdog import Watchdog

HANG = """
import sys, threading
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny import tiny
from vaejax.training import loop
from vaejax.training.feeding import Feed

def batches_that_never_come(self, first_step):
    threading.Event().wait()
    yield

Feed.batches = batches_that_never_come
loop.train(tiny(train={{"hang_timeout": 2.0}}), Path(sys.argv[1]))
"""


def test_a_run_that_hangs_ends_with_every_threads_stack(tmp_path):
    code = HANG.format(tests=str(CONFIG_FILE.parent))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 75, done.stderr
    assert "error: nothing has moved for 2 s (config.train.hang_timeout)" in done.stderr
    assert "batches_that_never_come" in done.stderr
    assert "Run the same command to go on" in done.stderr


def test_what_moves_is_left_alone():
    watchdog = Watchdog(0.2)
    with watchdog.watching():
        for _ in range(10):
            time.sleep(0.05)
            watchdog.report()


@pytest.mark.parametrize("watchdog", [Watchdog(0.0)])
def test_without_a_time_nobody_watches(watchdog):
    with watchdog.watching():
        time.sleep(0.05)


def test_it_waits_for_whoever_debugs():
    code = (
        "import sys, time; sys.settrace(lambda *_: None)\n"
        "from vaejax.runtime.watchdog import Watchdog\n"
        "with Watchdog(0.1).watching(): time.sleep(0.5)\n"
        "print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "still here\n", done.stderr

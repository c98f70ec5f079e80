"""Signals, kills and closed terminals lose nothing, and the same command resumes the run."""

import os
import random
import signal
import subprocess
import sys
from subprocess import TimeoutExpired

import pytest
from commands import command, start, without_tensorflow
from states import assert_same, final_state
from tiny import CONFIG_FILE, LEAST, ONCE, least, metrics, tiny

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}"
NOTHING_FITTED = "--config.prior.fitted=()"


def test_under_the_compiler_flags_of_users_a_run_resumes_exactly(tmp_path, monkeypatch):
    """Runs with the default compiler flags: other tests disable most optimisations, for speed."""
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in without_tensorflow().items():
        monkeypatch.setenv(name, value)
    changes = (*LEAST, "--config.train.steps=100", "--config.train.eval_every=100", NOTHING_FITTED)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert command("main", CONFIG, f"--workdir={whole}", *changes).returncode == 0
    process = start("main", CONFIG, f"--workdir={torn}", *changes)
    assert _wait_for(process, "first step done")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 75
    assert command("main", CONFIG, f"--workdir={torn}", *changes).returncode == 0
    config = least(train={"steps": 100, "eval_every": 100})
    assert_same(final_state(whole, config), final_state(torn, config))
    assert metrics(whole) == metrics(torn)


def test_an_interrupted_run_says_so_and_goes_on(trained, tmp_path):
    flags = (CONFIG, f"--workdir={tmp_path}")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = start("main", *flags)
        _wait_for(process, "training from step")
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 75, err
        assert "run the same command to go on" in err
    assert command("main", *flags).returncode == 0
    assert_same(final_state(trained, tiny()), final_state(tmp_path, tiny()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_training_ends_at_once(number, tmp_path):
    flags = [CONFIG, f"--workdir={tmp_path / 'run'}"]
    flags += ["--config.data.synthetic_counts=(200000, 24, 8)"]
    flags += [f"--config.data.cache_dir={tmp_path / 'cache'}"]
    process = start("main", *flags)
    assert _wait_for(process, "preparing")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run the same command to go on" in err and "Traceback" not in err


def test_an_interrupt_in_the_garbage_collector_is_not_lost():
    """Python drops exceptions from garbage collector callbacks, and JAX has such a callback."""
    script = """
import gc, os, signal, time
from vaejax.runtime.signals import interrupt_on_signal

def interrupt(phase, info):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGTERM)

interrupt_on_signal()
gc.callbacks.append(interrupt)
gc.collect()
time.sleep(100)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert ended.returncode == -signal.SIGINT
    assert b"Exception ignored" not in ended.stderr


def test_killed_at_random_it_ends_as_if_it_never_was(tmp_path):
    """Kills the run with SIGKILL at random moments after its first step; only time may be lost."""
    changes = (*LEAST, NOTHING_FITTED, "--config.train.steps=240", "--config.train.eval_every=120",
               "--config.train.save_every=20", "--config.train.log_every=10")  # fmt: skip
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert command("main", CONFIG, f"--workdir={whole}", *changes).returncode == 0
    rng, kills = random.Random(0), 0
    while kills < 3:
        process = start("main", CONFIG, f"--workdir={torn}", *changes)
        if _wait_for(process, "first step done"):
            try:
                process.communicate(timeout=rng.uniform(0.0, 2.0))
            except TimeoutExpired:
                kills += 1
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break  # the run has finished, so no later kill can interrupt it
    assert kills >= 2, "the run finished before it was killed twice"
    assert command("main", CONFIG, f"--workdir={torn}", *changes).returncode == 0
    config = least(train={"steps": 240, "eval_every": 120, "save_every": 20, "log_every": 10})
    assert_same(final_state(whole, config), final_state(torn, config))
    assert metrics(whole) == metrics(torn)


@pytest.mark.parametrize("streams", ["2>&1 | head -1", ">/dev/full 2>&1", "<&- >&- 2>&-"])
def test_a_run_that_nobody_reads_goes_on(streams, trained, tmp_path, monkeypatch):
    """Writes to a pipe whose reader has exited, to a full device, and to closed streams."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # `trained` used one device
    for name, value in without_tensorflow().items():
        monkeypatch.setenv(name, value)
    line = f"{sys.executable} -m vaejax.main {CONFIG} --workdir={tmp_path} {streams}"
    status = subprocess.run(["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]).returncode
    assert status == 0
    assert metrics(tmp_path) == metrics(trained)
    assert (tmp_path / "samples.png").is_file()


def test_under_nohup_a_closed_terminal_is_nothing(tmp_path):
    process = subprocess.Popen(
        [
            "nohup",
            sys.executable,
            "-m",
            "vaejax.main",
            CONFIG,
            *LEAST,
            *ONCE,
            NOTHING_FITTED,
            f"--workdir={tmp_path}",
        ],
        env={**os.environ, **without_tensorflow()},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert _wait_for(process, "training from step")
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def _wait_for(process, words: str) -> bool:
    """Reads stderr until a line has `words`; returns False if the process ends before."""
    return any(words in line for line in process.stderr)

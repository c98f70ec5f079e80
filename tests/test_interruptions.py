"""Signals and lost terminals as a run meets them; the same command resumes what was interrupted.

test_signals.py tests the handlers of signals, test_streams.py output that cannot be written, and
test_kills.py runs that are killed.
"""

import os
import re
import signal
import subprocess
import sys

import pytest
from commands import command, start, without_tensorflow
from states import assert_same, final_state
from tiny import CONFIG_FILE, metrics, tiny
from waiting import finish, read_until

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}"
TWO_STEPS = f"{CONFIG}:least"


def test_an_interrupted_run_exits_with_75_and_the_same_command_resumes_it(trained, tmp_path):
    flags = (CONFIG, f"--workdir={tmp_path}")
    process = start("main", *flags)
    read_until(process, "first step done")
    process.send_signal(signal.SIGHUP)
    errors = finish(process)
    assert process.returncode == 75, errors
    assert "SIGHUP: saving, then stopping; run the same command to go on" in errors
    resumed = command("main", *flags)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"training from step [1-9]\d* to 12 ", resumed.stderr)
    assert_same(final_state(trained, tiny()), final_state(tmp_path, tiny()))
    assert metrics(trained) == metrics(tmp_path)


def test_a_signal_before_training_ends_the_command_with_75(tmp_path):
    process = start(
        "main", TWO_STEPS, f"--workdir={tmp_path / 'run'}",
        "--config.data.synthetic_counts=(200000, 24, 8)",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    read_until(process, "preparing")
    process.send_signal(signal.SIGTERM)
    errors = finish(process)
    assert process.returncode == 75, errors
    assert errors.endswith("error: interrupted; run the same command to go on\n")
    assert "Traceback" not in errors


@pytest.mark.parametrize("redirection", ["2>&1 | head -1", "<&- >&- 2>&-"])
def test_a_run_whose_output_is_not_read_finishes(redirection, tmp_path, monkeypatch):
    """Writes to a pipe whose reader has exited, and to closed streams."""
    for name, value in without_tensorflow().items():
        monkeypatch.setenv(name, value)
    line = f"{sys.executable} -m vaejax.main {TWO_STEPS} --workdir={tmp_path} {redirection}"
    status = subprocess.run(["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]).returncode
    assert status == 0
    # Nothing but metrics is in the file: it has not taken the descriptor of a closed stream.
    lines = [(line["step"], line["split"]) for line in metrics(tmp_path)]
    assert lines == [(2, "train"), (2, "valid")]
    assert (tmp_path / "samples.png").is_file()


def test_under_nohup_sighup_does_not_stop_a_run(tmp_path):
    line = [sys.executable, "-m", "vaejax.main", TWO_STEPS, f"--workdir={tmp_path}"]
    environment = {**os.environ, **without_tensorflow()}
    process = subprocess.Popen(["nohup", *line], env=environment, stderr=subprocess.PIPE, text=True)
    read_until(process, "training from step")
    process.send_signal(signal.SIGHUP)
    errors = finish(process)
    assert process.returncode == 0, errors
    assert "new faces" in errors

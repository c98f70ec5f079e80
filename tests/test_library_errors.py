"""Exceptions that libraries raise reach the user as one line, whatever their type."""

import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from commands import free_port
from filelock import FileLock
from PIL import Image
from tensorboardX import SummaryWriter
from tiny import tiny

from vaejax.errors import DamagedCheckpoint, UserError, one_line
from vaejax.records import pictures
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.metric_log import Reporter
from vaejax.records.workdir import claim
from vaejax.runtime import mesh, processes, quiet
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings

ITEMS = {"model": {"layer": {"kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3)}}}
META = {"config": {}, "evaluation_due": False}
# Exceptions that Orbax, TensorStore, the file system and parsers may raise, and an unknown one.
ERRORS = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ValueError("RESOURCE_EXHAUSTED: Error writing local file: No space left on device"),
    ValueError("FAILED_PRECONDITION: Error opening\nmore lines\nof it"),
    KeyError("state"),
    TypeError(),
    RuntimeError("Event loop is closed"),
    NotImplementedError("no such handler"),
    json.JSONDecodeError("Expecting value", "", 0),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    TimeoutError(),
    AssertionError(),
    type("OfNobody", (Exception,), {})("something else"),
]
NO_MEMORY = [
    MemoryError(),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
]
EACH = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@pytest.fixture(autouse=True, scope="module")
def at_once():
    """Removes the wait after a failure: these failures leave no reads running in the background."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quiet, "_SETTLING_SECONDS", 0.0)
        yield


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def assert_one_line(error: UserError) -> None:
    message, status = one_line(error)
    assert "\n" not in message and status == 2


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(directory, best_by="elbo_bits_per_dim")
    checkpoints.save(3, ITEMS, META, {"elbo_bits_per_dim": 5.0})
    checkpoints.wait()
    yield checkpoints
    checkpoints.close()


@EACH
@pytest.mark.parametrize("entry", ["save", "wait_until_finished", "delete"])
def test_where_orbax_writes(opened, entry, error):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, entry, raising(error))
        with pytest.raises(UserError) as said:
            opened.delete(3) if entry == "delete" else opened.save(4, ITEMS, META, None)
        assert_one_line(said.value)
        assert str(opened.path(3).parent) in str(said.value)
        assert "run the same command to go on" in str(said.value)
        full = any(word in str(error) for word in ("No space", "quota"))
        assert ("make room" in str(said.value)) is full
    assert opened.steps() == [3]


@EACH
@pytest.mark.parametrize("where", ["state", "meta"])
def test_where_orbax_reads(opened, where, error):
    shardings = state_shardings(make_mesh(1, devices=jax.devices()[:1]), ITEMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", raising(error))
        with pytest.raises(UserError) as said:
            opened.meta(3) if where == "meta" else opened.restore(3, ITEMS, shardings)
        assert_one_line(said.value)
        # If only the storage is out of reach, the checkpoint must not be moved aside as damaged.
        away = getattr(error, "errno", None) in (errno.EIO, errno.EACCES)
        assert isinstance(said.value, DamagedCheckpoint) is not away
        assert str(opened.path(3)) in str(said.value)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_too_little_memory_to_read_a_checkpoint_is_no_damage(opened, error):
    shardings = state_shardings(make_mesh(1, devices=jax.devices()[:1]), ITEMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", raising(error))
        with pytest.raises(type(error)) as said:
            opened.restore(3, ITEMS, shardings)
    assert_one_line(said.value)
    assert "not enough memory" in one_line(said.value)[0]


@EACH
def test_where_orbax_opens(tmp_path, monkeypatch, error):
    monkeypatch.setattr(ocp, "CheckpointManager", raising(error))
    with pytest.raises(UserError) as said:
        Checkpoints(tmp_path / "checkpoints")
    assert_one_line(said.value)


@EACH
@pytest.mark.parametrize("entry", ["add_scalar", "add_image", "close"])
def test_where_tensorboard_fails_the_metrics_go_on(tmp_path, monkeypatch, capsys, entry, error):
    monkeypatch.setattr(SummaryWriter, entry, raising(error))
    reporter = Reporter(tmp_path, 0)
    for step in (1, 2):
        reporter.write(step, "train", {"loss": 1.0})
        reporter.picture(step, "samples", np.zeros((4, 4, 3), np.uint8))
    reporter.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("TensorBoard's file cannot be written any more")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@EACH
def test_where_tensorboard_opens(tmp_path, monkeypatch, capsys, error):
    monkeypatch.setattr("vaejax.records.metric_log.SummaryWriter", raising(error))
    reporter = Reporter(tmp_path, 0)
    reporter.write(1, "train", {"loss": 1.0})
    reporter.close()
    assert capsys.readouterr().err.startswith("TensorBoard's file cannot be written any more")


@EACH
def test_where_pillow_writes(tmp_path, monkeypatch, error):
    monkeypatch.setattr(Image.Image, "save", raising(error))
    with pytest.raises((UserError, OSError)) as said:
        pictures.save(tmp_path / "faces.png", np.zeros((4, 4, 3), np.uint8))
    message, status = one_line(said.value)
    assert "\n" not in message and "faces.png" in message and status in (1, 2)
    assert not list(tmp_path.iterdir())


@EACH
def test_where_jax_joins_processes(monkeypatch, error):
    monkeypatch.setattr(jax.distributed, "initialize", raising(error))
    monkeypatch.setenv("JAX_COORDINATOR_PORT", str(free_port()))
    with pytest.raises(UserError) as said:
        processes.start_detected(60.0)
    message, status = one_line(said.value)
    assert "\n" not in message and status in (2, 75)


@EACH
def test_where_jax_looks_for_devices(monkeypatch, error):
    monkeypatch.setattr(jax, "devices", raising(error))
    with pytest.raises(UserError) as said:
        mesh.check_devices()
    assert_one_line(said.value)
    assert "finds no device that can be used" in str(said.value)


@pytest.mark.parametrize(
    "error", [NotImplementedError("use SoftFileLock"), OSError(errno.ENOLCK, "No locks available")]
)
def test_where_the_file_system_knows_no_locks_a_run_goes_on_and_is_told(
    tmp_path, monkeypatch, capsys, error
):
    monkeypatch.setattr(FileLock, "acquire", raising(error))
    with claim(tmp_path / "run", tiny()):
        assert "does not support locks" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ENOSPC])
def test_where_the_lock_cannot_be_written(tmp_path, monkeypatch, number):
    monkeypatch.setattr(FileLock, "acquire", raising(OSError(number, "reason")))
    with pytest.raises(UserError, match="--workdir=") as said, claim(tmp_path / "run", tiny()):
        pass
    assert_one_line(said.value)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_too_little_memory_is_one_line(error):
    message, status = one_line(error)
    assert status == 2 and "config.train.batch_size" in message and "\n" not in message


@pytest.mark.parametrize("error", [OSError("no number and no file"), OSError(errno.EBUSY, "Busy")])
def test_storage_that_fails_is_one_line(error):
    assert one_line(error)[1] == 2


def test_a_fault_of_our_own_keeps_its_traceback():
    assert one_line(ZeroDivisionError("division by zero")) is None

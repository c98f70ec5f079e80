"""Exceptions that libraries raise reach the user as one line, whatever their type."""

import copy
import errno
import gc
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

from vaejax.errors import TRY_AGAIN, Absent, DamagedCheckpoint, UserError, one_line, short_reason
from vaejax.records import pictures
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.metric_log import Reporter
from vaejax.records.ranking import Ranking
from vaejax.records.workdir import claim
from vaejax.runtime import mesh, processes, quiet
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings

ITEMS = {"model": {"layer": {"kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3)}}}
META = {"config": {}, "evaluation_due": False}

FULL = OSError(errno.ENOSPC, "No space left on device")
QUOTA = OSError(errno.EDQUOT, "Disk quota exceeded")
NO_DISK = OSError(errno.EIO, "Input/output error")
DENIED = PermissionError(errno.EACCES, "Permission denied")
MISSING = FileNotFoundError(errno.ENOENT, "No such file or directory")
FULL_AS_TEXT = ValueError("RESOURCE_EXHAUSTED: Error writing local file: No space left on device")
MANY_LINES = ValueError("FAILED_PRECONDITION: Error opening\nmore lines\nof it")
# No code of the package names this type: only a handler of all exceptions catches it.
UNKNOWN = type("UnknownError", (Exception,), {})("something else")
# Exceptions that Orbax, TensorStore, the file system and parsers may raise, and the line for each.
REASONS = [
    (FULL, "no space is left on the disk, or a quota is used up"),
    (QUOTA, "no space is left on the disk, or a quota is used up"),
    (FULL_AS_TEXT, "no space is left on the disk, or a quota is used up"),
    (NO_DISK, "Input/output error"),
    (DENIED, "Permission denied"),
    (MISSING, "No such file or directory"),
    (FileExistsError(errno.EEXIST, "File exists"), "a file lies in its place"),
    (MANY_LINES, "ValueError: FAILED_PRECONDITION: Error opening"),
    (KeyError("state"), "KeyError: 'state'"),
    (TypeError(), "TypeError"),
    (RuntimeError("Failed. See full trace"), "RuntimeError: Failed"),
    (json.JSONDecodeError("Expecting value", "", 0),
     "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
     "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    (TimeoutError(), "TimeoutError"),
    (ValueError("x" * 200), f"ValueError: {'x' * 120}"),
    (UNKNOWN, "UnknownError: something else"),
]  # fmt: skip
NO_MEMORY = [
    MemoryError(),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
]


def each(*errors: Exception) -> pytest.MarkDecorator:
    """Parametrizes a test with exceptions: one for each branch of the code that handles them."""
    return pytest.mark.parametrize("error", errors, ids=lambda error: short_reason(error)[:30])


@pytest.fixture(autouse=True, scope="module")
def no_settling():
    """Removes the wait after a failure: these failures leave no reads running in the background.

    The garbage collection after each failure ignores all objects that exist by now.
    """
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quiet, "_SETTLING_SECONDS", 0.0)
        yield


def raising(error):
    def fail(*_, **__):
        raise copy.copy(error)

    return fail


def line_of(error: BaseException, status: int = 2) -> str:
    """Returns the message that a command prints for an error; asserts one line and the status."""
    message, found = one_line(error)
    assert message and "\n" not in message and found == status
    return message


@pytest.mark.parametrize(("error", "reason"), REASONS, ids=lambda value: type(value).__name__)
def test_the_reason_for_an_error_is_one_short_line(error, reason):
    assert short_reason(error) == reason


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(directory, best_by=Ranking("elbo_bits_per_dim"))
    checkpoints.save(3, ITEMS, META, {"elbo_bits_per_dim": 5.0})
    checkpoints.wait()
    yield checkpoints
    checkpoints.close()


def assert_not_stored(error: UserError, opened: Checkpoints, *, full: bool) -> None:
    """Asserts the line that a command prints, and that the earlier checkpoint is still there."""
    message = line_of(error)
    assert str(opened.path(3).parent) in message
    remedy = "make room" if full else "see that it can be written"
    assert f"; {remedy}, and run the same command to go on" in message
    assert opened.steps() == [3]


@each(FULL, FULL_AS_TEXT, NO_DISK, MANY_LINES, UNKNOWN)
def test_a_checkpoint_that_orbax_cannot_save_is_one_line(opened, monkeypatch, error):
    monkeypatch.setattr(ocp.CheckpointManager, "save", raising(error))
    with pytest.raises(UserError) as raised:
        opened.save(4, ITEMS, META, None)
    assert_not_stored(raised.value, opened, full=error in (FULL, FULL_AS_TEXT))


@each(QUOTA, UNKNOWN)
def test_an_earlier_checkpoint_that_orbax_could_not_finish_is_one_line(opened, monkeypatch, error):
    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", raising(error))
    with pytest.raises(UserError) as raised:
        opened.save(4, ITEMS, META, None)
    assert_not_stored(raised.value, opened, full=error is QUOTA)


@each(QUOTA, UNKNOWN)
def test_a_checkpoint_that_orbax_cannot_delete_is_one_line(opened, monkeypatch, error):
    monkeypatch.setattr(ocp.CheckpointManager, "delete", raising(error))
    with pytest.raises(UserError) as raised:
        opened.delete(3)
    assert_not_stored(raised.value, opened, full=error is QUOTA)


def assert_not_read(error: UserError, opened: Checkpoints, *, damaged: bool) -> None:
    """Asserts one line that names the checkpoint, and whether it counts as damaged.

    If only the storage is out of reach, it must not be moved aside as damaged.
    """
    assert str(opened.path(3)) in line_of(error)
    assert isinstance(error, DamagedCheckpoint) is damaged


@each(NO_DISK, UNKNOWN)
def test_metadata_that_orbax_cannot_read_are_one_line(opened, monkeypatch, error):
    monkeypatch.setattr(ocp.CheckpointManager, "restore", raising(error))
    with pytest.raises(UserError) as raised:
        opened.meta(3)
    assert_not_read(raised.value, opened, damaged=error is UNKNOWN)


def restore_failing(checkpoints: Checkpoints, patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Restores a state; Orbax reads the metadata, and raises `error` where it reads the arrays."""
    restore = ocp.CheckpointManager.restore

    def fail(self, step, args):
        if "meta" in args.keys():  # noqa: SIM118 (it is no mapping)
            return restore(self, step, args=args)
        raise copy.copy(error)

    patch.setattr(ocp.CheckpointManager, "restore", fail)
    checkpoints.restore(3, ITEMS, state_shardings(make_mesh(1, devices=jax.devices()[:1]), ITEMS))


@each(NO_DISK, DENIED, MISSING, MANY_LINES, TimeoutError(), UNKNOWN)
def test_a_state_that_orbax_cannot_read_is_one_line(opened, monkeypatch, error):
    with pytest.raises(UserError) as raised:
        restore_failing(opened, monkeypatch, error)
    assert_not_read(raised.value, opened, damaged=error not in (NO_DISK, DENIED))


@each(*NO_MEMORY)
def test_a_state_too_large_for_the_memory_is_not_called_damaged(opened, monkeypatch, error):
    with pytest.raises(type(error)) as raised:
        restore_failing(opened, monkeypatch, error)
    assert "not enough memory" in line_of(raised.value)


@each(FULL, UNKNOWN)
def test_a_directory_that_orbax_cannot_open_is_one_line(tmp_path, monkeypatch, error):
    monkeypatch.setattr(ocp, "CheckpointManager", raising(error))
    with pytest.raises(UserError, match=str(tmp_path / "checkpoints")) as raised:
        Checkpoints(tmp_path / "checkpoints")
    line_of(raised.value)


@pytest.mark.parametrize("method", ["__init__", "add_scalar", "add_image", "close"])
@each(FULL, UNKNOWN)
def test_where_tensorboard_fails_metrics_are_still_written(
    tmp_path, monkeypatch, capsys, method, error
):
    monkeypatch.setattr(SummaryWriter, method, raising(error))
    reporter = Reporter(tmp_path, 0)
    for step in (1, 2):
        reporter.write(step, "train", {"loss": 1.0})
        reporter.picture(step, "samples", np.zeros((4, 4, 3), np.uint8))
    reporter.close()
    (line,) = capsys.readouterr().err.splitlines()
    reason = short_reason(error)
    assert line.startswith(f"TensorBoard's file cannot be written any more ({reason})")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("error", "status", "remedy"),
    [
        (FULL, 2, "make room"),
        (NO_DISK, 1, "run the same command to go on"),
        (DENIED, 2, "Permission denied"),
        (UNKNOWN, 2, "UnknownError: something else); name a .png"),
    ],
)
def test_a_picture_that_pillow_cannot_write_is_one_line(
    tmp_path, monkeypatch, error, status, remedy
):
    monkeypatch.setattr(Image.Image, "save", raising(error))
    path = tmp_path / "faces.png"
    with pytest.raises(UserError if error is UNKNOWN else OSError) as raised:
        pictures.save(path, np.zeros((4, 4, 3), np.uint8))
    message = line_of(raised.value, status)
    assert message.startswith(str(path)) and remedy in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (MANY_LINES, UserError, 2),  # JAX's error where it finds no cluster
        (NO_DISK, Absent, TRY_AGAIN),
        (UNKNOWN, Absent, TRY_AGAIN),
    ],
)
def test_processes_that_jax_cannot_join_are_one_line(monkeypatch, error, kind, status):
    monkeypatch.setattr(jax.distributed, "initialize", raising(error))
    monkeypatch.setenv("JAX_COORDINATOR_PORT", str(free_port()))
    with pytest.raises(UserError) as raised:
        processes.start_detected(60.0)
    assert type(raised.value) is kind
    message = line_of(raised.value, status)
    assert short_reason(error) in message
    assert ("--coordinator=HOST:PORT" in message) is (kind is UserError)


@each(AssertionError(), UNKNOWN)
def test_devices_that_jax_cannot_find_are_one_line(monkeypatch, error):
    monkeypatch.setattr(jax, "devices", raising(error))
    with pytest.raises(UserError, match="finds no device that can be used") as raised:
        mesh.check_devices()
    assert short_reason(error) in line_of(raised.value)


@each(NotImplementedError("use SoftFileLock"), OSError(errno.ENOLCK, "No locks available"))
def test_a_file_system_without_locks_is_reported_and_the_run_continues(
    tmp_path, monkeypatch, capsys, error
):
    monkeypatch.setattr(FileLock, "acquire", raising(error))
    with claim(tmp_path / "run", tiny()):
        assert "does not support locks" in capsys.readouterr().err


def test_a_lock_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(FileLock, "acquire", raising(DENIED))
    match = r"--workdir=.* cannot be written \(Permission denied\)"
    with pytest.raises(UserError, match=match) as raised, claim(tmp_path / "run", tiny()):
        pass
    line_of(raised.value)


@each(*NO_MEMORY)
def test_too_little_memory_is_one_line(error):
    assert "config.train.batch_size" in line_of(error)


@each(OSError("no number and no file"), OSError(errno.EBUSY, "Busy"))
def test_storage_that_fails_is_one_line(error):
    assert short_reason(error) in line_of(error)


def test_an_unexpected_error_keeps_its_traceback():
    assert one_line(ZeroDivisionError("division by zero")) is None

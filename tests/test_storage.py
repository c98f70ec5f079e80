"""Strict JSON, digests of arrays, atomic writes, and checks that a path can be written."""

import json
import math
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from vaejax.errors import UserError
from vaejax.files.atomic import check_writable, replacing
from vaejax.files.strict_json import dumps
from vaejax.records.digests import device_digest, digest, host_digest
from vaejax.records.metric_log import MetricsFile, Reporter

NUMBERS = st.floats() | st.integers() | st.none() | st.booleans() | st.text()
VALUES = st.recursive(
    NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(value=VALUES)
def test_any_value_is_written_as_strict_json(value):
    read = json.loads(dumps(value), parse_constant=refuse)
    assert read == replaced(value)


def replaced(value):
    """Returns what must be read back from `dumps(value)`, computed independently."""
    match value:
        case dict():
            return {key: replaced(item) for key, item in value.items()}
        case list():
            return [replaced(item) for item in value]
        case float() if math.isnan(value) or math.isinf(value):
            return None
    return value


def test_metrics_that_are_not_finite_are_written_as_json_without_a_warning(tmp_path, capfd):
    reporter = Reporter(tmp_path, 0)
    reporter.write(1, "train", {"loss": math.inf, "kl": math.nan, "groups": [1.0, -math.inf]})
    reporter.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "step": 1, "split": "train", "loss": None, "kl": None, "groups": [1.0, None],
    }  # fmt: skip
    assert capfd.readouterr() == ("", "")
    MetricsFile(tmp_path / "metrics.jsonl", 1, evaluation_due=True).close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1


TYPES = ("bool", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32",
         "bfloat16", "float16", "float32", "float8_e4m3fn", "complex64")  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_a_digest_changes_with_each_number_of_any_type(name):
    numbers = (np.arange(6) % 2 if name == "bool" else np.arange(6)).reshape(2, 3)
    array = numbers.astype(jnp.dtype(name))
    unchanged = digest([array])
    assert unchanged == digest([array.copy()])
    for place in np.ndindex(2, 3):
        changed = array.copy()
        changed[place] = array[1, 1] if array[place] != array[1, 1] else array[1, 0]
        assert digest([changed]) != unchanged
    assert digest([np.roll(array, 1)]) != unchanged


# One type for each way in which bits become 32-bit words.
WIDTHS = ("bool", "int4", "uint4", "float8_e4m3fn", "bfloat16", "float32", "complex64")
# The last is larger than what the host hashes at a time.
SHAPES = ((), (0, 2), (7,), (70, 1024))


@pytest.mark.parametrize(
    ("name", "shape"),
    [*((name, (3, 4, 5)) for name in WIDTHS), *(("float32", shape) for shape in SHAPES)],
)
def test_host_and_device_compute_the_same_digest(name, shape):
    """The arrays lie on one device, or are sharded over two."""
    numbers, dtype = np.random.default_rng(1).integers(0, 256, shape, np.uint8), jnp.dtype(name)
    if jnp.issubdtype(dtype, jnp.inexact):
        numbers = numbers / 7 * (1 - 2j if name == "complex64" else 1)
    array = jnp.asarray(numbers.astype(dtype))
    split = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec(None, "x"))
    for leaf in [array, jax.device_put(array, split)] if len(shape) > 1 else [array]:
        assert host_digest(leaf) == int(device_digest(leaf))
        assert digest([leaf]) == host_digest(leaf)


def test_a_digest_accepts_keys_and_empty_arrays():
    assert digest([jax.random.key(0)]) != digest([jax.random.key(1)])
    assert digest([jnp.zeros((0, 3))]) == 0


def test_digests_are_those_of_the_first_version():
    """If digests changed, every existing checkpoint would count as damaged."""
    # Exact in float32; the rounding of `jnp.linspace` differs between releases of JAX.
    numbers = np.arange(-30, 30, dtype=np.float32).reshape(5, 12) / 32
    state = {"a": jnp.asarray(numbers), "b": jnp.int32(3)}
    assert digest(state) == GOLDEN


GOLDEN = 1772935964


def test_the_next_write_removes_what_a_killed_writer_left(tmp_path):
    path = tmp_path / "file.txt"
    code = (
        "import os, pathlib, sys; from vaejax.files.atomic import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert [file.name.startswith(".file.txt.") for file in tmp_path.iterdir()] == [True]
    with replacing(path) as temporary:
        temporary.write_text("complete")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "complete"


def test_a_failed_write_names_the_path_and_keeps_the_old_content(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError) as error, replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device", str(temporary))
    assert error.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "old"


@contextmanager
def ordinary_user():
    """Gives up the rights of root, who may write anywhere, within the block."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_without_permission_is_named():
    # Not in `tmp_path`, whose parents only its owner may enter.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o555)
        denied = pytest.raises(UserError, match=r"--out=.*written \(Permission denied\)")
        with ordinary_user(), denied:
            check_writable(Path(directory, "file.png"), "--out")


@pytest.mark.parametrize("blocked", ["file/below.png", "folder"])
def test_a_path_that_cannot_be_a_file_is_named(tmp_path, blocked):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"--out=.* cannot be written \(.+\); name another"):
        check_writable(tmp_path / blocked, "--out")


def test_a_check_whether_a_path_can_be_written_leaves_no_file(tmp_path):
    check_writable(tmp_path / "new" / "file.png", "--out")
    assert list((tmp_path / "new").iterdir()) == []

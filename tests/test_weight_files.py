"""Reads files of weights as torch, safetensors and NumPy wrote them; refuses all others."""

import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaejax.errors import UserError
from vaejax.features.weight_files import mismatch, read_weights, sha256

ARRAYS = {
    "layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "layer.bias": np.array(2.5, np.float32),
    "count": np.array([3, 2**40], np.int64),
}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=["stream", "zip"])
def save(request, torch):
    """Returns a function that saves in the format before or since torch 1.6."""

    def save_as(value, path):
        torch.save(value, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return save_as


def _error(path) -> str:
    with pytest.raises(UserError) as raised:
        read_weights(path)
    message = str(raised.value)
    assert message.startswith("weights") and str(path) in message and "\n" not in message
    return message


def _assert_equal(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_all_tensors_of_torch(torch, save, tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {
        "contiguous": base,
        "part of the same storage": base[1:, 2:, 3],
        "transposed": base.permute(2, 0, 1),
        "every second": base[:, ::2, 1::2],
        "expanded": torch.tensor([1.5, 2.5]).expand(3, 2),
        "scalar": torch.tensor(3.25),
        "empty": torch.zeros(0, 7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for name in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"):
        tensors[name] = torch.tensor([0, 1, 100]).to(getattr(torch, name))
    expected = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    _assert_equal(read_weights(save(tensors, tmp_path / "weights.pth")), expected)


def test_state_dict_of_a_network(torch, save, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, (1, 7)), torch.nn.BatchNorm2d(4))
    state = network.state_dict()
    assert isinstance(state, OrderedDict) and vars(state)  # The versions of its modules.
    expected = {name: tensor.numpy() for name, tensor in state.items()}
    assert expected["1.num_batches_tracked"].shape == ()
    _assert_equal(read_weights(save(state, tmp_path / "any name.bin")), expected)


def test_npz(tmp_path):
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "weights.npz", **ARRAYS)
        _assert_equal(read_weights(str(tmp_path / "weights.npz")), ARRAYS)


def test_safetensors(tmp_path, monkeypatch):
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "weights.safetensors"
    numpy.save_file(ARRAYS, path)
    arrays = read_weights(path)
    _assert_equal({name: arrays[name] for name in ARRAYS}, ARRAYS)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert "pip install safetensors" in _error(path)


def test_sha256(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"content")
    assert sha256(path) == hashlib.sha256(b"content").hexdigest()
    with pytest.raises(UserError, match=r"gone\.npz cannot be read: No such file"):
        sha256(tmp_path / "gone.npz")


class Command:
    """Asks whoever unpickles it to create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


SYSTEM = f"'{os.system.__module__}.system'"


def test_no_command_of_a_pickle_is_run(tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"weight": Command(trace)}, protocol=2))
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"])
    assert trace.exists(), "an ordinary unpickler runs it"
    trace.unlink()
    assert SYSTEM in _error(path)
    assert not trace.exists()


def test_no_command_in_a_file_of_torch_is_run(torch, save, tmp_path):
    trace = tmp_path / "trace"
    path = save({"weight": torch.zeros(2), "evil": Command(trace)}, tmp_path / "evil.pth")
    assert SYSTEM in _error(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch", "_DTYPES"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch.nn.modules.linear", "Linear"),
        ("a\nb", "c"),
    ],
)
def test_other_names_are_refused(module, name, tmp_path):
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x04" + words + b"\x93.")
    assert repr(f"{module}.{name}") in _error(path)


def test_other_content_of_a_file_of_torch_is_refused(torch, save, tmp_path):
    path = tmp_path / "weights.pth"
    assert "it holds one list" in _error(save([torch.zeros(1)], path))
    assert "'epoch' is a int" in _error(save({"w": torch.zeros(1), "epoch": 3}, path))
    assert "1 is a tensor and not a named" in _error(save({1: torch.zeros(1)}, path))
    assert "Linear" in _error(save(torch.nn.Linear(1, 1), path))
    assert "'torch.BFloat16Storage'" in _error(save({"w": torch.zeros(1).bfloat16()}, path))
    assert "no arrays" in _error(save({}, path))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_is_refused(torch, tmp_path):
    path = tmp_path / "weights.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    assert "it is TorchScript" in _error(path)


class Forged:
    """A tensor that is saved with another offset, shape or stride."""

    def __init__(self, tensor, offset, shape, strides):
        self.tensor, self.numbers = tensor, (offset, shape, strides)

    def __reduce__(self):
        rebuild, (storage, _, _, _, *rest) = self.tensor.__reduce_ex__(2)
        return rebuild, (storage, *self.numbers, *rest)


@pytest.mark.parametrize(
    "numbers",
    [
        (0, (2, 3), (2, 1)),
        (1, (2, 2), (2, 1)),
        (0, (5,), (1,)),
        (0, (2**62, 2**62), (0, 1)),
        (3, (2,), (-1,)),
        (-1, (2,), (1,)),
        (0, (2, 2), (1,)),
        (0, ("2",), (1,)),
        (0.5, (2,), (1,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(torch, save, tmp_path, numbers):
    path = save({"w": Forged(torch.arange(4.0), *numbers)}, tmp_path / "weights.pth")
    assert "'w'" in _error(path)


def test_a_forged_tensor_inside_its_storage_is_read(torch, save, tmp_path):
    path = save({"w": Forged(torch.arange(4.0), 1, (2, 2), (1, 1))}, tmp_path / "weights.pth")
    np.testing.assert_array_equal(read_weights(path)["w"], [[1, 2], [2, 3]])


def test_a_pickle_cannot_ask_for_much_memory(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    assert "its pickle is damaged" in _error(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1", b"\x80", b"PK"],
)
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    _error(path)


def test_a_foreign_zip_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "none of torch" in _error(path)


def test_objects_in_npz_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, weight=np.array([Command(tmp_path / "trace")]))
    assert "allow_pickle=False" in _error(path)
    assert not (tmp_path / "trace").exists()


def test_paths_that_are_no_files(tmp_path):
    assert "No such file" in _error(tmp_path / "weights.pth")
    assert "directory" in _error(tmp_path)
    assert "is an address" in _error("gs://bucket/weights.pth")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Returns the bytes of a small file in each format that can be written here."""
    directory = tmp_path_factory.mktemp("contents")
    np.savez(directory / "npz", **ARRAYS)
    try:
        from safetensors.numpy import save_file

        save_file(ARRAYS, directory / "safetensors")
    except ImportError:
        pass
    try:
        import torch

        tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
        torch.save(tensors, directory / "zip")
        torch.save(tensors, directory / "stream", _use_new_zipfile_serialization=False)
    except ImportError:
        pass
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def test_truncated_files_are_refused(contents, tmp_path):
    path = tmp_path / "weights"
    for content in contents:
        path.write_bytes(content)
        read_weights(path)
        for length in range(0, len(content), max(1, len(content) // 150)):
            path.write_bytes(content[:length])
            _error(path)


@given(data=st.data())
def test_damaged_files_give_one_line(contents, tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(contents)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        assert all(isinstance(array, np.ndarray) for array in read_weights(path).values())
    except UserError as error:
        assert "\n" not in str(error)


def test_mismatch():
    shapes = {"a": (2, 3), "b": (4,)}
    arrays = {"a": np.zeros((2, 3), np.float16), "b": np.zeros(4)}
    counter = {"bn.num_batches_tracked": np.array(1)}
    assert mismatch(arrays | counter, shapes) == ""
    assert mismatch({"a": arrays["a"]}, shapes) == "'b' is missing"
    assert mismatch(arrays | {"c": np.zeros(1)}, shapes) == "'c' does not belong there"
    assert "(3, 2) instead of float32 (2, 3)" in mismatch(arrays | {"a": np.zeros((3, 2))}, shapes)
    assert "'b' is int32 (4,)" in mismatch(arrays | {"b": np.zeros(4, np.int32)}, shapes)
    assert mismatch({}, shapes) == "'a' is missing, and 1 more differences"

"""Small graphs against onnxruntime, what is refused, and files of installed packages."""

import hashlib
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaejax.errors import UserError
from vaejax.features.onnx_graph import read_graph
from vaejax.features.packages import package_file

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
helper = onnx.helper


def write(path, nodes, weights, shape, outputs):
    """Writes a graph whose input is `x`, and returns its path."""

    def value(name, shape):
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", shape)],
        [value(name, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def compare(path, x, outputs):
    """Checks that JAX and onnxruntime give the same values of `outputs`."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    expected = ort.InferenceSession(str(path), options).run(outputs, {"x": x})
    params, apply = read_graph(path, outputs)
    found = jax.jit(apply)(params, x)
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


CONVOLUTIONS = {
    "plain": ((4, 6, 3, 3), {"pads": [1, 1, 1, 1], "strides": [1, 1]}),
    "no attributes": ((4, 6, 3, 3), {}),
    "uneven padding and stride": ((4, 6, 5, 3), {"pads": [0, 2, 1, 0], "strides": [2, 3]}),
    "groups": ((4, 3, 3, 3), {"group": 2}),
    "dilated": ((4, 6, 3, 2), {"dilations": [2, 3]}),
    "depthwise": ((6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "depthwise, all attributes": (
        (6, 1, 3, 2),
        {"group": 6, "pads": [1, 0, 2, 3], "strides": [2, 3], "dilations": [2, 1]},
    ),
    "two outputs for each channel": ((12, 1, 3, 3), {"group": 6}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_equal_onnxruntime(tmp_path, name):
    shape, attributes = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=shape).astype(np.float32)}
    weights["b"] = rng.normal(size=shape[0]).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)]
    path = write(tmp_path / "conv.onnx", nodes, weights, [2, 6, 11, 10], ["y"])
    compare(path, rng.normal(size=(2, 6, 11, 10)).astype(np.float32), ["y"])


def test_the_other_operators_equal_onnxruntime_up_to_each_output(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "MaxPool", ["t"], ["m"], kernel_shape=[3, 2], strides=[2, 1], pads=[0, 0, 1, 1]
        ),
        helper.make_node("Resize", ["m", "roi", "scales"], ["r"], mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        helper.make_node("Relu", ["r"], ["positive"]),
        helper.make_node("Sigmoid", ["r"], ["s"]),
        helper.make_node("Add", ["s", "positive"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["y"]),
        helper.make_node("Softmax", ["y"], ["unused"], axis=1),
    ]  # fmt: skip
    weights = {
        "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 2, 3], np.float32),
        "shape": np.array([0, -1, 6], np.int64),
    }
    outputs = ["t", "m", "r", "positive", "s", "sum", "y"]
    path = write(tmp_path / "all.onnx", nodes, weights, [2, 7, 8, 3], [*outputs, "unused"])
    x = np.random.default_rng(1).normal(size=(2, 7, 8, 3)).astype(np.float32)
    compare(path, x, outputs)
    params, _ = read_graph(path, ["y"])
    assert not params, "shapes and scales are no weights"


def test_only_the_weights_that_are_needed_are_kept(tmp_path):
    weights = {name: np.ones((3, 3, 1, 1), np.float32) for name in ("first", "second")}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("Conv", ["a", "second"], ["b"]),
    ]
    path = write(tmp_path / "two.onnx", nodes, weights, [1, 3, 4, 4], ["a", "b"])
    assert set(read_graph(path, ["a"])[0]) == {"first"}
    assert set(read_graph(path, ["b"])[0]) == {"first", "second"}
    with pytest.raises(ValueError, match="no value named c"):
        read_graph(path, ["c"])


REFUSED = {
    "operator Softmax is not supported": ("Softmax", {"axis": 1}),
    "Conv with auto_pad='SAME_UPPER' is not supported": ("Conv", {"auto_pad": "SAME_UPPER"}),
    "MaxPool with ceil_mode=1 is not supported": ("MaxPool", {"ceil_mode": 1}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported_is_named(tmp_path, message):
    operator, attributes = REFUSED[message]
    if operator == "MaxPool":
        attributes = {**attributes, "kernel_shape": [2, 2]}
    operands = ["x", "w"] if operator == "Conv" else ["x"]
    nodes = [helper.make_node(operator, operands, ["y"], **attributes)]
    weights = {"w": np.ones((3, 3, 1, 1), np.float32)}
    path = write(tmp_path / "refused.onnx", nodes, weights, [1, 3, 4, 4], ["y"])
    with pytest.raises(UserError, match=message):
        read_graph(path, ["y"])


@pytest.mark.parametrize("scale", [1.5, 0.5])
def test_a_scale_that_is_no_whole_number_is_refused(tmp_path, scale):
    nodes = [
        helper.make_node("Resize", ["x", "roi", "scales"], ["y"], mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    ]  # fmt: skip
    weights = {
        "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, scale, scale], np.float32),
    }
    path = write(tmp_path / "scale.onnx", nodes, weights, [1, 3, 4, 4], ["y"])
    params, apply = read_graph(path, ["y"])
    with pytest.raises(UserError, match="whole scales"):
        apply(params, jnp.zeros((1, 3, 4, 4)))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"\xff\xff\xff no ONNX")
    with pytest.raises(UserError, match=r"damaged\.onnx is not an ONNX file"):
        read_graph(path, ["y"])


def test_a_file_of_a_package_is_found_without_importing_it():
    found = package_file("pytest", "_pytest/pytester.py", "pip install pytest")
    assert found.path.is_file()
    assert found.version == metadata.version("pytest")
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    again = package_file("pytest", "_pytest/pytester.py", "", sha256=found.sha256)
    assert again == found


def test_what_a_package_lacks_is_named_with_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'no-such-package' is not installed; run `pip install x`"):
        package_file("no-such-package", "weights.onnx", "pip install x")
    with pytest.raises(UserError, match=r"has no file 'weights\.onnx'; run `pip install x`"):
        package_file("pytest", "weights.onnx", "pip install x")
    with pytest.raises(UserError, match="not 000000000000…; run `pip install x`"):
        package_file("pytest", "_pytest/pytester.py", "pip install x", sha256="0" * 64)
    with pytest.raises(ValueError, match=r"files that end with '\.py'"):
        package_file("pytest", ".py", "pip install x")
    info = tmp_path / "gone-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (info / "RECORD").write_text("gone/weights.onnx,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"weights\.onnx cannot be read"):
        package_file("gone", "weights.onnx", "pip install gone")

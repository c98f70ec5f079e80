"""Compares FID's Inception with pytorch-fid, torch-fidelity and clean-fid, on random weights.

All of them must compute the same features from the same file. The published weights cannot be
downloaded by tests; random ones of the same names and shapes show any difference of the networks.
"""

import hashlib

import jax
import numpy as np
import pytest
from cpu_torchvision import skip_without_torchvision

from vaejax.errors import UserError
from vaejax.features import inception
from vaejax.features.inception import load_inception, weight_shapes

TOLERANCE = 1e-4


def _random_weights():
    """Weights by which the features of noise are of order 1: He's scale, mild statistics."""
    rng = np.random.default_rng(0)

    def drawn(name, shape):
        x = rng.standard_normal(shape, np.float32)
        if name.endswith(".conv.weight"):
            return x * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        if name.endswith(".running_var"):
            return np.exp(x / 5)
        return x / 10 + np.float32(name.endswith(".bn.weight"))

    return {name: drawn(name, shape) for name, shape in weight_shapes().items()}


@pytest.fixture(scope="module")
def weights():
    return _random_weights()


@pytest.fixture(scope="module")
def npz(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.npz"
    np.savez(path, **weights)
    return path


def _noise(shape):
    """Noise under a smooth pattern, because plain noise has the same features everywhere."""
    rng = np.random.default_rng(0)
    smooth = 128 + 90 * np.sin(np.arange(np.prod(shape)).reshape(shape) / 301)
    return np.clip(smooth + rng.normal(0, 40, shape), 0, 255).astype(np.uint8)


def _features(extractor, pictures):
    return np.asarray(jax.jit(extractor.apply)(extractor.params, pictures))


def test_there_are_472_arrays_of_91_mebibytes():
    shapes = weight_shapes()
    assert len(shapes) == 472
    assert sum(map(np.prod, shapes.values())) == 23_885_392
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)


def test_extractor(npz, weights, monkeypatch):
    extractor = load_inception(npz, "clean")
    assert extractor.name == "Inception with other weights (no FID), protocol clean"
    assert dict(extractor.protocol) == {
        "weights": "other",
        "sha256": hashlib.sha256(npz.read_bytes()).hexdigest(),
        "resize": "bicubic of Pillow with antialiasing, not rounded, to 299x299",
        "scaling": "(x - 128) / 128",
        "layer": "pool3, 2048 features",
    }
    # In place of the published file, whose SHA-256 its name tells.
    monkeypatch.setattr(inception, "PUBLISHED", extractor.protocol["sha256"][:8])
    published = load_inception(npz, "pytorch")
    assert published.name == "FID's Inception, protocol pytorch"
    assert published.protocol["weights"] == "published"
    assert published.protocol["scaling"] == "(x - 127.5) / 127.5"
    assert published.digest() != extractor.digest()
    for channels in (1, 3):
        pictures = jax.ShapeDtypeStruct((5, 61, 83, channels), np.uint8)
        features = jax.eval_shape(published.apply, published.params, pictures)
        assert (features.shape, features.dtype) == ((5, 2048), np.float32)


def test_the_published_hash_is_the_one_in_the_name_of_the_published_file():
    assert inception.PUBLISHED == "6726825d"


def _without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


VARIANCE = "Mixed_7c.branch_pool.bn.running_var"
MISTAKES = {
    "missing": (lambda w: _without(w, VARIANCE), f"'{VARIANCE}' is missing;"),
    "unexpected": (lambda w: w | {"AuxLogits.fc.bias": w["fc.bias"]}, "'AuxLogits.fc.bias' does"),
    "classes": (lambda w: w | {"fc.bias": w["fc.bias"][:1000]}, r"instead of float32 \(1008,\)"),
    "nan": (lambda w: w | {VARIANCE: w[VARIANCE] * np.nan}, "not finite"),
    "negative": (lambda w: w | {VARIANCE: -w[VARIANCE]}, "not finite"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_other_arrays_are_refused(mistake, weights, monkeypatch):
    change, reason = MISTAKES[mistake]
    monkeypatch.setattr(inception, "read_weights", lambda path: change(weights))
    with pytest.raises(UserError, match=reason) as raised:
        load_inception("some.pth")
    assert str(raised.value).startswith("weights some.pth are not those of FID's Inception: ")
    assert "\n" not in str(raised.value) and "6726825d.pth" in str(raised.value)


def test_unknown_protocol():
    with pytest.raises(UserError, match=r"protocol 'torch' .* name tf, pytorch, clean"):
        load_inception("some.pth", "torch")


@pytest.fixture(scope="module")
def torch():
    skip_without_torchvision()
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def pth(torch, weights, tmp_path_factory):
    """Returns a file in the format of the published one, that of torch before version 1.6."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def pytorch_fid(torch, pth):
    """Returns pytorch-fid's network with these weights in place of those that it downloads."""
    module = pytest.importorskip("pytorch_fid.inception")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: torch.load(pth))
        return module.InceptionV3().eval()


def _channels_first(torch, pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@pytest.mark.slow
def test_features_of_pytorch_fid(torch, pytorch_fid, pth):
    pictures = _noise((1, 61, 83, 3))
    with torch.no_grad():
        expected = pytorch_fid(_channels_first(torch, pictures) / 255)[0][:, :, 0, 0].numpy()
    assert 0.3 < expected.std() < 3
    features = _features(load_inception(pth, "pytorch"), pictures)
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(61, 83), (310, 299)])
def test_features_of_torch_fidelity(torch, pth, size):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3(
        "random", ["2048"], feature_extractor_weights_path=str(pth)
    )
    pictures = _noise((2, *size, 3))
    expected = network(_channels_first(torch, pictures))[0].numpy()
    extractor = load_inception(pth, "tf")
    np.testing.assert_allclose(_features(extractor, pictures), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_features_of_clean_fid(torch, pytorch_fid, pth, monkeypatch):
    resizing = pytest.importorskip("cleanfid.resize")
    pictures = _noise((2, 87, 350, 3))
    resized = np.stack([resizing.build_resizer("clean")(picture) for picture in pictures])
    # clean-fid gives pictures of 299x299 to the same network as (x - 128) / 128.
    monkeypatch.setattr(pytorch_fid, "resize_input", False)
    monkeypatch.setattr(pytorch_fid, "normalize_input", False)
    with torch.no_grad():
        scaled = (_channels_first(torch, resized) - 128) / 128
        expected = pytorch_fid(scaled)[0][:, :, 0, 0].numpy()
    extractor = load_inception(pth, "clean")
    np.testing.assert_allclose(_features(extractor, pictures), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_grey_pictures_are_repeated_to_three_channels(npz):
    grey = _noise((1, 64, 50, 1))
    extractor = load_inception(npz)
    features = _features(extractor, grey)
    np.testing.assert_allclose(
        features, _features(extractor, grey.repeat(3, axis=-1)), atol=TOLERANCE, rtol=0
    )

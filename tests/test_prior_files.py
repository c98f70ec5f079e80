"""Priors are fitted by name, saved to files and loaded; damaged files are reported."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codes import correlated

from vaejax.errors import UserError
from vaejax.priors import FlowMatching, Gaussian, Mixture, fit_prior, load_prior, save_prior
from vaejax.priors.diagonal_gaussian import DiagonalGaussian
from vaejax.priors.labels import Label
from vaejax.priors.velocity_mlp import VelocityMLP
from vaejax.priors.velocity_transformer import VelocityTransformer

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def small_prior(name):
    """Returns a prior of three dimensions, or of maps 1 x 1 x 3, with random parameters."""
    random = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    gaussian = Gaussian(array(3), array(3, 3))
    if name == "gaussian":
        return gaussian
    if name == "mixture":
        return Mixture(array(2), array(2, 3), array(2, 3, 3))
    network, labels = VelocityMLP(width=8, blocks=2), ()
    if name == "flow_matching_of_maps":
        gaussian = DiagonalGaussian(array(3), array(3))
        network = VelocityTransformer((1, 1, 3), patch=1, width=8, blocks=2, head_size=4)
    inputs = [array(1, 3), array(1)]
    if name == "flow_matching_with_labels":
        labels = (Label("Smiling", 0.0, 1.0, 0.5, 0.5), Label("ü", -0.1, 0.7, 1 / 3, 0.1))
        inputs.append(array(1, 2, 2))
    like = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    params = jax.tree.map(lambda leaf: array(*leaf.shape), like)
    return FlowMatching(gaussian, params, network, labels)


@pytest.mark.parametrize(
    "name",
    ["gaussian", "mixture", "flow_matching", "flow_matching_of_maps", "flow_matching_with_labels"],
)
def test_a_file_keeps_every_bit(name, tmp_path):
    prior = small_prior(name)
    path = tmp_path / "priors" / f"{name}.npz"
    meta = {"step": 12, "codes": 60, "note": "ü"}
    save_prior(path, prior, {"step": 11})
    save_prior(path, prior, meta)
    loaded, loaded_meta = load_prior(path)
    assert loaded_meta == meta
    assert jax.tree.structure(loaded) == jax.tree.structure(prior)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(prior)):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_flow_that_was_saved_before_there_were_transformers_gives_what_it_gave():
    """The file, samples and densities are of the version before; rounding may differ."""
    prior, meta = load_prior(FIXTURES / "flow_prior_vector.npz")
    assert meta == {"step": 3} and prior.network == VelocityMLP(8, 2)
    samples = jax.jit(prior.sample, static_argnums=1)(jax.random.key(3), 2, 0.9)
    expected = [[-1.5000637, -2.8551116, 1.0526009], [2.0357740, -2.4434536, 1.8857507]]
    np.testing.assert_allclose(samples, expected, rtol=1e-4, atol=1e-4)
    codes = jnp.asarray([[0.1, 0.2, -0.3], [1.0, -2.0, 1.0]])
    np.testing.assert_allclose(jax.jit(prior.log_prob)(codes), [-49.880875, -2.9145632], rtol=1e-4)


def test_a_flow_with_labels_samples_the_same_from_its_file(tmp_path):
    prior = small_prior("flow_matching_with_labels")
    # What was given is no part of the prior.
    save_prior(tmp_path / "prior.npz", prior.given({"Smiling": 1}, guidance=2.0), {})
    loaded, _ = load_prior(tmp_path / "prior.npz")
    assert loaded.labels == prior.labels and loaded.condition is None
    sample = jax.jit(FlowMatching.sample, static_argnums=2)
    draws = [sample(one.given({"Smiling": 0, "ü": 0.5}, guidance=1.5), jax.random.key(0), 5)
             for one in (prior, loaded)]  # fmt: skip
    np.testing.assert_array_equal(*draws)


def test_a_flow_that_was_trained_in_bfloat16_is_saved_for_float32(tmp_path):
    prior = small_prior("flow_matching_of_maps")
    in_training = dataclasses.replace(prior.network, dtype="bfloat16")
    save_prior(tmp_path / "prior.npz", prior.replace(network=in_training), {})
    assert load_prior(tmp_path / "prior.npz")[0].network == prior.network


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "prior.npz"
    save_prior(path, small_prior("gaussian"), {"step": 1})
    with pytest.raises(TypeError):
        save_prior(path, small_prior("gaussian"), {"step": object()})
    assert load_prior(path)[1] == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no fitted prior at"):
        load_prior(tmp_path / "prior.npz")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_damaged(share, tmp_path):
    path = tmp_path / "prior.npz"
    save_prior(path, small_prior("mixture"), {"step": 1})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="damaged") as raised:
        load_prior(path)
    assert "\n" not in str(raised.value)


def test_no_changed_bit_gives_another_prior(tmp_path):
    """Bits of the zip's directory too, such as the one that says that a member is encrypted."""
    path = tmp_path / "prior.npz"
    prior = small_prior("gaussian")
    save_prior(path, prior, {"step": 1})
    content = path.read_bytes()
    first = content.index(np.asarray(prior.cholesky).tobytes())
    refused = set()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            found, meta = load_prior(path)
        except UserError:
            refused.add(at)
            continue
        np.testing.assert_array_equal(found.mean, prior.mean)
        np.testing.assert_array_equal(found.cholesky, prior.cholesky)
        assert meta == {"step": 1}
    assert refused >= set(range(first, first + prior.cholesky.nbytes))


@pytest.mark.parametrize(
    "arrays",
    [
        {"mean": np.zeros(3)},
        {"header": np.array("{}")},
        {"header": np.array('{"kind": "gaussian", "meta": {}}'), "mean": np.zeros(3, np.float32)},
        {"header": np.array('{"kind": "vamp", "meta": {}}')},
        {"header": np.array("[]")},
        {"header": np.array([{}], dtype=object)},
    ],
)
def test_a_file_of_something_else_is_no_fitted_prior(arrays, tmp_path):
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match="no fitted prior"):
        load_prior(tmp_path / "other.npz")


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="fits gaussian or mixture"):
        fit_prior("vamp", correlated(10, 2), jax.random.key(0))


def test_the_fit_of_a_mixture_reports_its_progress():
    lines = []
    random = np.random.default_rng(0)
    # Sixteen clusters: EM takes more than ten steps.
    codes = random.normal(size=(2000, 2)) + 5 * random.integers(0, 4, (2000, 2))
    codes = codes.astype(np.float32)
    assert isinstance(fit_prior("gaussian", codes, jax.random.key(0), lines.append), Gaussian)
    assert lines == []
    assert isinstance(fit_prior("mixture", codes, jax.random.key(0), lines.append), Mixture)
    pattern = r"prior mixture: step (\d+) of 100, nats per code -?\d+\.\d{4}"
    steps = [int(re.fullmatch(pattern, line)[1]) for line in lines]
    assert steps == list(range(10, 10 * len(steps) + 1, 10)) != []

"""Priors are fitted by name, saved to files and loaded; damaged files are reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codes import correlated
from flows import train_flow

from vaejax.errors import UserError
from vaejax.priors import (
    Gaussian,
    Mixture,
    fit_gaussian,
    fit_mixture,
    fit_prior,
    load_prior,
    save_prior,
)


def _small_prior(name):
    codes = jnp.asarray(correlated(60, 3))
    key = jax.random.key(0)
    if name == "gaussian":
        return fit_gaussian([codes])
    if name == "mixture":
        return fit_mixture(codes, key, components=2, steps=3)
    return train_flow(codes, 2, batch_size=8, width=8, blocks=2)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "flow_matching"])
def test_file_keeps_every_bit(name, tmp_path):
    prior = _small_prior(name)
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
    np.testing.assert_array_equal(
        loaded.sample(jax.random.key(0), 3), prior.sample(jax.random.key(0), 3)
    )


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "prior.npz"
    save_prior(path, _small_prior("gaussian"), {"step": 1})
    with pytest.raises(TypeError):
        save_prior(path, _small_prior("gaussian"), {"step": object()})
    assert load_prior(path)[1] == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no fitted prior at"):
        load_prior(tmp_path / "prior.npz")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(share, tmp_path):
    path = tmp_path / "prior.npz"
    save_prior(path, _small_prior("mixture"), {"step": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="damaged") as raised:
        load_prior(path)
    assert "\n" not in str(raised.value)


def test_altered_byte(tmp_path):
    path = tmp_path / "prior.npz"
    prior = _small_prior("gaussian")
    save_prior(path, prior, {"step": 1})
    whole = bytearray(path.read_bytes())
    whole[whole.index(np.asarray(prior.cholesky).tobytes()) + 5] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match="damaged"):
        load_prior(path)


def test_no_changed_bit_gives_another_prior(tmp_path):
    """Bits of the zip's directory too, such as the one that says that a member is encrypted."""
    path = tmp_path / "prior.npz"
    prior = _small_prior("gaussian")
    save_prior(path, prior, {"step": 1})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found, meta = load_prior(path)
        except UserError:
            continue
        np.testing.assert_array_equal(found.mean, prior.mean)
        np.testing.assert_array_equal(found.cholesky, prior.cholesky)
        assert meta == {"step": 1}


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
def test_file_of_something_else(arrays, tmp_path):
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match="no fitted prior"):
        load_prior(tmp_path / "other.npz")


def test_unknown_name():
    with pytest.raises(UserError, match="fits gaussian or mixture"):
        fit_prior("vamp", correlated(10, 2), jax.random.key(0))


def test_fit_by_name_says_how_far_it_is():
    lines = []
    codes = correlated(200, 2)
    assert isinstance(fit_prior("gaussian", codes, jax.random.key(0), lines.append), Gaussian)
    assert lines == []
    assert isinstance(fit_prior("mixture", codes, jax.random.key(0), lines.append), Mixture)
    assert all(line.startswith("prior mixture: step ") for line in lines)

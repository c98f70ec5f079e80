"""Streams of pictures through extractors: batches, devices, the cache on disk, and bad numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaejax.data.cache.rows import RowCache
from vaejax.errors import UserError
from vaejax.evaluation import observing
from vaejax.evaluation.observing import Observer, first_rows
from vaejax.evaluation.picture_sets import PictureSet, rows_of
from vaejax.features import Extractor
from vaejax.runtime.mesh import make_mesh

PICTURES = np.random.default_rng(0).integers(0, 256, (23, 6, 5, 3), np.uint8)
MEANS = PICTURES.mean(axis=(1, 2)).astype(np.float32)


def mean_colours(name="mean colours", version=1) -> Extractor:
    return Extractor(
        name,
        {"version": version},
        {"scale": jnp.float32(1)},
        lambda params, x: params["scale"] * jnp.mean(x.astype(jnp.float32), axis=(1, 2)),
    )


def observer(*extractors, devices=1, batch_size=4, cache=None) -> Observer:
    mesh = make_mesh(devices, devices=jax.devices()[:devices])
    return Observer(extractors or [mean_colours()], mesh, batch_size, cache)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("batch_size", [4, 23, 40])
@pytest.mark.parametrize("given", [1, 7, 23])
def test_rows_do_not_depend_on_batches_or_devices(devices, batch_size, given):
    observe = observer(devices=devices, batch_size=batch_size)
    advanced = []
    (rows,) = observe(
        rows_of(PICTURES, batch_size=given), ["mean colours"], advanced.append
    ).values()
    np.testing.assert_allclose(rows.kept, MEANS, rtol=1e-6)
    assert rows.pictures == 23 and sum(advanced) == 23
    np.testing.assert_allclose(rows.moments.mean(), MEANS.mean(axis=0), rtol=1e-6)
    expected = np.cov(MEANS.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(rows.moments.covariance(), expected, rtol=1e-4)


def test_a_set_on_devices_is_padded_by_its_maker():
    """A generator pads its last batch, and `count` says how many pictures there are."""
    padded = np.concatenate([PICTURES, PICTURES[:1]])
    observe = observer(batch_size=4)
    batches = [jnp.asarray(padded[start : start + 4]) for start in range(0, 24, 4)]
    (rows,) = observe(PictureSet(23, lambda: iter(batches)), ["mean colours"]).values()
    np.testing.assert_allclose(rows.kept, MEANS, rtol=1e-6)


def test_only_the_first_rows_are_kept_but_all_count(monkeypatch):
    monkeypatch.setattr(observing, "KEPT", 10)
    (rows,) = observer()(rows_of(PICTURES), ["mean colours"]).values()
    np.testing.assert_allclose(rows.kept, MEANS[:10], rtol=1e-6)
    assert rows.pictures == 23
    np.testing.assert_allclose(rows.moments.mean(), MEANS.mean(axis=0), rtol=1e-6)
    assert first_rows(rows, 23) is rows
    np.testing.assert_allclose(
        first_rows(rows, 4).moments.mean(), MEANS[:4].mean(axis=0), rtol=1e-6
    )


def test_rows_of_real_pictures_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(observing, "_CHUNK", 5)
    cache = RowCache(tmp_path)
    real = rows_of(PICTURES, identity="the faces")
    first = observer(cache=cache)(real, ["mean colours"])["mean colours"]
    unread = PictureSet(23, lambda: pytest.fail("read again"), "the faces")
    advanced = []
    again = observer(cache=cache)(unread, ["mean colours"], advanced.append)["mean colours"]
    np.testing.assert_array_equal(first.kept, again.kept)
    np.testing.assert_array_equal(first.moments.covariance(), again.moments.covariance())
    assert sum(advanced) == 23
    # Other pictures and other protocols have rows of their own.
    observer(cache=cache)(rows_of(PICTURES, identity="others"), ["mean colours"])
    observer(mean_colours(version=2), cache=cache)(real, ["mean colours"])
    assert len(list(tmp_path.glob("features/*.npy"))) == 3


@pytest.mark.parametrize("damage", [b"", b"no array"])
def test_damaged_rows_are_computed_again(tmp_path, damage):
    cache, real = RowCache(tmp_path), rows_of(PICTURES, identity="the faces")
    before = observer(cache=cache)(real, ["mean colours"])["mean colours"]
    (file,) = tmp_path.glob("features/*.npy")
    file.write_bytes(damage)
    after = observer(cache=cache)(real, ["mean colours"])["mean colours"]
    np.testing.assert_array_equal(before.kept, after.kept)


def test_where_rows_cannot_be_kept_they_are_computed(tmp_path, capsys):
    (tmp_path / "features").write_text("a file in place of the directory")
    real = rows_of(PICTURES, identity="the faces")
    (rows,) = observer(cache=RowCache(tmp_path))(real, ["mean colours"]).values()
    np.testing.assert_allclose(rows.kept, MEANS, rtol=1e-6)
    assert "features of real pictures are not kept" in capsys.readouterr().err


def test_numbers_that_are_not_finite_name_the_extractor():
    broken = Extractor("broken network", {}, {}, lambda _, x: jnp.full((len(x), 2), jnp.nan))
    with pytest.raises(UserError, match="broken network gives numbers that are not finite"):
        observer(broken)(rows_of(PICTURES), ["broken network"])

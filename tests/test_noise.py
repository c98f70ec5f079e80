"""Interpolation of noise keeps what is typical of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from vaejax.models.noise import great_circle

RNG = np.random.default_rng(0)


def noise(*shape: int) -> jnp.ndarray:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(64,), (4, 3, 5)])
def test_an_arc_keeps_the_variance_of_noise_and_meets_its_ends(shape):
    first, second = noise(200, *shape), noise(200, *shape)
    for share, expected in ((0.0, first), (1.0, second)):
        found = great_circle(first, second, jnp.full(200, share))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    middle = great_circle(first, second, jnp.full(200, 0.5))
    assert middle.shape == first.shape
    assert float(jnp.var(middle)) == pytest.approx(1.0, abs=0.03)


def test_there_may_be_nothing_between():
    """A gallery of one face has no other face to interpolate to."""
    assert great_circle(noise(0, 3, 2), noise(0, 3, 2), jnp.zeros(0)).shape == (0, 3, 2)


def test_equal_norms_are_kept_at_equal_angles():
    first, second = jnp.asarray([[3.0, 0.0]]), jnp.asarray([[0.0, 3.0]])
    for share in (0.25, 0.5, 0.8):
        angle = share * np.pi / 2
        found = great_circle(first, second, jnp.asarray([share], jnp.float32))
        np.testing.assert_allclose(found, [[3 * np.cos(angle), 3 * np.sin(angle)]], atol=1e-5)


@pytest.mark.parametrize("other", [1.0, 2.0, -1.0])
def test_without_an_arc_of_its_own_it_is_a_line(other):
    first = noise(5, 7)
    found = great_circle(first, other * first, jnp.full(5, 0.25))
    np.testing.assert_allclose(found, (0.75 + 0.25 * other) * first, atol=1e-3)

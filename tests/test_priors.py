"""Priors that are trained with the model: densities, inverses, gradients and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy

from vaejax.config import CouplingFlowConfig, HierarchicalConfig, StandardNormalConfig
from vaejax.priors import CouplingFlow, StandardNormal, build_prior

# A flow without couplings, and one whose halves have different sizes.
FLOWS = {size: CouplingFlow(size, layers=5, width=16) for size in (1, 7)}
COUNT = 20
METHODS = ("log_prob", "to_noise", "from_noise")


@functools.partial(jax.jit, static_argnums=0)
def _applied(flow, params, z):
    """Returns the results of `METHODS` for `z`; one program computes all of them."""
    return [flow.apply(params, z, method=method) for method in METHODS]


def _random_params(flow, spread=0.3):
    """Draws random parameters, far enough from zero for every layer to have an effect."""
    # NumPy draws them without compiling a program.
    rng = np.random.default_rng(0)
    z = jax.ShapeDtypeStruct((1, flow.latent_size), jnp.float32)

    def draw(shape):
        return jnp.asarray(np.float32(spread) * rng.standard_normal(shape.shape, np.float32))

    return jax.tree.map(draw, jax.eval_shape(flow.init, jax.random.key(0), z))


def _codes(size):
    return jnp.asarray(np.random.default_rng(3).standard_normal((COUNT, size), np.float32))


def _standard_normal_log_prob(z):
    return scipy.stats.norm.logpdf(z).sum(axis=1)


def test_standard_normal_density():
    prior = StandardNormal(5)
    z = _codes(5)
    assert jax.eval_shape(prior.init, jax.random.key(0), z) == {}
    log_prob, noise, code = _applied(prior, {}, z)
    np.testing.assert_allclose(log_prob, _standard_normal_log_prob(z), rtol=1e-5)
    np.testing.assert_array_equal(noise, z)
    np.testing.assert_array_equal(code, z)


@pytest.mark.parametrize("size", FLOWS)
def test_flow_starts_as_the_standard_normal(size):
    flow, z = FLOWS[size], _codes(size)
    log_prob, noise, _ = _applied(flow, jax.jit(flow.init)(jax.random.key(1), z), z)
    np.testing.assert_allclose(log_prob, _standard_normal_log_prob(z), rtol=1e-6)
    # The noise is a permutation of the code.
    np.testing.assert_array_equal(np.sort(noise, axis=1), np.sort(z, axis=1))


@pytest.mark.parametrize("size", FLOWS)
def test_flow_log_density_is_that_of_its_own_jacobian(size):
    flow, z = FLOWS[size], _codes(size)
    params = _random_params(flow)

    def to_noise(z):
        return flow.apply(params, z[None], method="to_noise")[0]

    _, log_det = np.linalg.slogdet(jax.jit(jax.vmap(jax.jacrev(to_noise)))(z))
    log_prob, noise, _ = _applied(flow, params, z)
    expected = _standard_normal_log_prob(noise) + log_det
    np.testing.assert_allclose(log_prob, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("size", FLOWS)
def test_flow_inverts_exactly(size):
    flow, noise = FLOWS[size], _codes(size)
    params = _random_params(flow, spread=0.15)
    *_, z = _applied(flow, params, noise)
    assert np.abs(z - noise).max() > 0.05
    _, noise_again, _ = _applied(flow, params, z)
    np.testing.assert_allclose(noise_again, noise, atol=1e-4)


def test_flow_computes_bfloat16_codes_in_float32():
    flow, z = FLOWS[7], jnp.asarray(_codes(7), jnp.bfloat16)
    params = _random_params(flow)
    for found, expected in zip(
        _applied(flow, params, z), _applied(flow, params, z.astype(jnp.float32))
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)


def test_every_parameter_and_code_of_a_flow_gets_a_gradient():
    flow = FLOWS[7]
    gradient = jax.jit(jax.grad(lambda params, z: jnp.mean(flow.apply(params, z)), argnums=(0, 1)))
    gradients = jax.device_get(gradient(_random_params(flow), _codes(7)))
    for leaf in jax.tree.leaves(gradients):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_flow_learns_a_bent_density():
    # z2 = z1² + noise: given z1, z2 is Gaussian, which one affine coupling can model.
    first, noise = np.random.default_rng(0).standard_normal((2, 500), np.float32)
    z = jnp.asarray(np.stack([first, first**2 + np.float32(0.3) * noise], axis=1))
    flow = CouplingFlow(2, layers=2, width=16)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))
    params = jax.jit(flow.init)(jax.random.key(1), z)

    @jax.jit
    def train(params, state):
        def step(carry, _):
            params, state = carry
            loss, gradient = jax.value_and_grad(lambda p: -jnp.mean(flow.apply(p, z)))(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, state), length=300)[1]

    losses = np.asarray(train(params, optimizer.init(params)))
    entropy = 2 * 0.5 * np.log(2 * np.pi * np.e) + np.log(0.3)
    assert losses[-1] < entropy + 0.15


def test_build_prior():
    assert build_prior(StandardNormalConfig(), 7) == StandardNormal(7)
    assert build_prior(CouplingFlowConfig(layers=2, width=16), 7) == CouplingFlow(7, 2, 16)
    with pytest.raises(ValueError, match="hierarchical"):
        build_prior(HierarchicalConfig(), 7)

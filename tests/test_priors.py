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


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(flow, method, params, *arguments):
    """Applies a method of a flow, compiled: one operation at a time would take seconds."""
    return flow.apply(params, *arguments, method=method)


def _perturbed(flow, spread=0.3, seed=0):
    """Draws random parameters, far enough from zero for every layer to have an effect."""
    # NumPy draws them without compiling a program.
    rng = np.random.default_rng(seed)
    z = jax.ShapeDtypeStruct((1, flow.latent_size), jnp.float32)

    def draw(shape):
        noise = rng.standard_normal(shape.shape, np.float32)
        return jnp.asarray(noise * np.float32(spread))

    return jax.tree.map(draw, jax.eval_shape(flow.init, jax.random.key(0), z))


def test_standard_normal_density():
    prior = StandardNormal(5)
    z = 2.0 * jax.random.normal(jax.random.key(0), (1000, 5))
    assert prior.init(jax.random.key(0), z) == {}
    expected = scipy.stats.norm.logpdf(np.asarray(z)).sum(axis=1)
    np.testing.assert_allclose(prior.apply({}, z, method="log_prob"), expected, rtol=1e-5)
    np.testing.assert_array_equal(prior.apply({}, z, method="to_noise"), z)
    np.testing.assert_array_equal(prior.apply({}, z, method="from_noise"), z)


@pytest.mark.parametrize("latent_size", [1, 2, 7])
def test_flow_starts_as_the_standard_normal(latent_size):
    flow = CouplingFlow(latent_size, layers=3, width=8)
    z = jax.random.normal(jax.random.key(0), (20, latent_size))
    params = jax.jit(flow.init)(jax.random.key(1), z)
    expected = StandardNormal(latent_size).apply({}, z)
    np.testing.assert_allclose(_apply(flow, "log_prob", params, z), expected, rtol=1e-6)
    # The noise is a permutation of the code.
    noise = _apply(flow, "to_noise", params, z)
    np.testing.assert_array_equal(np.sort(noise, axis=1), np.sort(z, axis=1))


@pytest.mark.parametrize("layers", [3, 4])
def test_flow_density_integrates_to_one(layers):
    flow = CouplingFlow(2, layers=layers, width=16)
    params = _perturbed(flow)
    # The grid spans the range of 100,000 samples, extended by a quarter on each side.
    noise = jax.random.normal(jax.random.key(0), (100_000, 2))
    draws = _apply(flow, "from_noise", params, noise)
    low, high = draws.min(axis=0), draws.max(axis=0)
    margin = (high - low) / 4
    axes = [np.linspace(a - m, b + m, 600) for a, b, m in zip(low, high, margin)]
    grid = jnp.asarray(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2), jnp.float32)
    log_prob = _apply(flow, "log_prob", params, grid)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(np.asarray(log_prob, np.float64)).sum() * cell == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("latent_size", "layers"), [(1, 2), (2, 1), (5, 3)])
def test_flow_log_density_is_that_of_its_own_jacobian(latent_size, layers):
    flow = CouplingFlow(latent_size, layers=layers, width=16)
    params = _perturbed(flow)
    z = jax.random.normal(jax.random.key(3), (6, latent_size))

    def to_noise(z):
        return flow.apply(params, z[None], method="to_noise")[0]

    _, log_det = np.linalg.slogdet(jax.jit(jax.vmap(jax.jacrev(to_noise)))(z))
    noise = _apply(flow, "to_noise", params, z)
    expected = StandardNormal(latent_size).apply({}, noise) + log_det
    actual = _apply(flow, "log_prob", params, z)
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("latent_size", [1, 7, 32])
def test_flow_inverts_exactly(latent_size):
    flow = CouplingFlow(latent_size, layers=5, width=32)
    params = _perturbed(flow, spread=0.15)
    noise = jax.random.normal(jax.random.key(3), (50, latent_size))
    z = _apply(flow, "from_noise", params, noise)
    assert np.abs(z - noise).max() > 0.05
    np.testing.assert_allclose(_apply(flow, "to_noise", params, z), noise, atol=1e-4)


def test_flow_runs_in_float32_on_bfloat16_codes():
    flow = CouplingFlow(4, layers=2, width=8)
    z = jnp.ones((3, 4), jnp.bfloat16)
    params = _perturbed(flow)
    for method in ("log_prob", "to_noise", "from_noise"):
        assert _apply(flow, method, params, z).dtype == jnp.float32


def test_flow_step_moves_nothing_between_host_and_device():
    flow = CouplingFlow(6, layers=4, width=8)
    params = _perturbed(flow)
    z = jax.random.normal(jax.random.key(3), (16, 6))
    step = jax.jit(jax.grad(lambda params, z: jnp.mean(flow.apply(params, z)), argnums=(0, 1)))
    with jax.transfer_guard("disallow"):
        gradients = step(params, z)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))
    assert all(np.any(x != 0) for x in jax.tree.leaves(gradients))


def test_flow_learns_a_bent_density():
    # z2 = z1² + noise: given z1, z2 is Gaussian, which one affine coupling can model.
    first, noise = jax.random.normal(jax.random.key(0), (2, 2000))
    z = jnp.stack([first, first**2 + 0.3 * noise], axis=1)
    flow = CouplingFlow(2, layers=4, width=32)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))
    params = jax.jit(flow.init)(jax.random.key(1), z)

    @jax.jit
    def train(params, state):
        def step(carry, _):
            params, state = carry
            gradient = jax.grad(lambda p: -jnp.mean(flow.apply(p, z)))(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=400)[0]

    params, _ = train(params, optimizer.init(params))
    entropy = 2 * 0.5 * np.log(2 * np.pi * np.e) + np.log(0.3)
    assert float(jnp.mean(_apply(flow, "log_prob", params, z))) > -entropy - 0.15


def test_build_prior():
    assert build_prior(StandardNormalConfig(), 7) == StandardNormal(7)
    assert build_prior(CouplingFlowConfig(layers=2, width=16), 7) == CouplingFlow(7, 2, 16)
    with pytest.raises(ValueError, match="hierarchical"):
        build_prior(HierarchicalConfig(), 7)

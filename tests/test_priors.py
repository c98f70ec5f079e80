"""The priors trained with the model: their densities, inverses, gradients and draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaejax.priors import CouplingFlow, StandardNormal, build_prior


def _perturbed(flow, spread=0.15, seed=0):
    """Parameters far enough from the identity for every layer to matter."""
    params = flow.init(jax.random.key(seed), jnp.zeros((1, flow.latent_size)))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [x + spread * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys)]
    return structure.unflatten(moved)


def test_standard_normal_density_and_draws():
    prior = StandardNormal(5)
    z = prior.apply({}, jax.random.key(0), 1000, 2.0, method="sample")
    assert prior.init(jax.random.key(0), z) == {}
    expected = scipy.stats.norm.logpdf(np.asarray(z)).sum(axis=1)
    np.testing.assert_allclose(prior.apply({}, z, method="log_prob"), expected, rtol=1e-5)
    assert np.std(z) == pytest.approx(2.0, rel=0.05)
    assert np.all(np.asarray(prior.apply({}, jax.random.key(0), 3, 0.0, method="sample")) == 0)
    np.testing.assert_array_equal(prior.apply({}, z, method="to_noise"), z)
    np.testing.assert_array_equal(prior.apply({}, z, method="from_noise"), z)


@pytest.mark.parametrize("latent_size", [1, 2, 7])
def test_flow_starts_as_the_standard_normal(latent_size):
    flow = CouplingFlow(latent_size, layers=3, width=8)
    z = jax.random.normal(jax.random.key(0), (20, latent_size))
    params = flow.init(jax.random.key(1), z)
    expected = StandardNormal(latent_size).apply({}, z)
    np.testing.assert_allclose(flow.apply(params, z), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        flow.apply(params, z, method="to_noise").std(), z.std()
    )  # A permutation of z.


@pytest.mark.parametrize("layers", [3, 4])
def test_flow_density_integrates_to_one(layers):
    flow = CouplingFlow(2, layers=layers, width=16)
    params = _perturbed(flow)
    # A grid over all that a hundred thousand draws reach, and half as much again.
    draws = flow.apply(params, jax.random.key(0), 100_000, method="sample")
    low, high = draws.min(axis=0), draws.max(axis=0)
    margin = (high - low) / 4
    axes = [np.linspace(a - m, b + m, 600) for a, b, m in zip(low, high, margin)]
    grid = jnp.asarray(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2), jnp.float32)
    log_prob = jax.jit(lambda z: flow.apply(params, z, method="log_prob"))(grid)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(np.asarray(log_prob, np.float64)).sum() * cell == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("latent_size", "layers"), [(1, 2), (2, 1), (5, 4), (8, 3)])
def test_flow_log_density_is_that_of_its_own_jacobian(latent_size, layers):
    flow = CouplingFlow(latent_size, layers=layers, width=16)
    params = _perturbed(flow)
    z = jax.random.normal(jax.random.key(3), (6, latent_size))

    def to_noise(z):
        return flow.apply(params, z[None], method="to_noise")[0]

    _, log_det = jnp.linalg.slogdet(jax.vmap(jax.jacrev(to_noise))(z))
    noise = jax.vmap(to_noise)(z)
    expected = StandardNormal(latent_size).apply({}, noise) + log_det
    np.testing.assert_allclose(flow.apply(params, z), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("latent_size", [1, 2, 7, 32])
def test_flow_inverts_exactly(latent_size):
    flow = CouplingFlow(latent_size, layers=8, width=32)
    params = _perturbed(flow, spread=0.05)
    noise = jax.random.normal(jax.random.key(3), (50, latent_size))
    z = flow.apply(params, noise, method="from_noise")
    assert np.abs(z - noise).max() > 0.05
    np.testing.assert_allclose(flow.apply(params, z, method="to_noise"), noise, atol=1e-4)


def test_flow_draws_are_images_of_scaled_noise():
    flow = CouplingFlow(4, layers=2, width=8)
    params = _perturbed(flow)
    key = jax.random.key(7)
    z = flow.apply(params, key, 6, temperature=0.5, method="sample")
    noise = 0.5 * jax.random.normal(key, (6, 4))
    np.testing.assert_allclose(flow.apply(params, noise, method="from_noise"), z, atol=1e-6)
    frozen = np.asarray(flow.apply(params, key, 6, temperature=0.0, method="sample"))
    centre = flow.apply(params, jnp.zeros((1, 4)), method="from_noise")
    np.testing.assert_allclose(frozen, np.broadcast_to(centre, (6, 4)), atol=1e-6)


def test_flow_runs_in_float32_on_bfloat16_codes():
    flow = CouplingFlow(4, layers=2, width=8)
    z = jnp.ones((3, 4), jnp.bfloat16)
    params = _perturbed(flow)
    assert flow.apply(params, z).dtype == jnp.float32
    assert flow.apply(params, z, method="to_noise").dtype == jnp.float32


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
    import optax

    # z2 = z1² + noise: the conditional a single coupling can state exactly.
    first, noise = jax.random.normal(jax.random.key(0), (2, 2000))
    z = jnp.stack([first, first**2 + 0.3 * noise], axis=1)
    flow = CouplingFlow(2, layers=4, width=32)
    optimizer = optax.sgd(0.05, momentum=0.9)
    params = flow.init(jax.random.key(1), z)

    @jax.jit
    def train(params, state):
        def step(carry, _):
            params, state = carry
            gradient = jax.grad(lambda p: -jnp.mean(flow.apply(p, z)))(params)
            clip = 1.0 / jnp.maximum(1.0, optax.global_norm(gradient))
            gradient = jax.tree.map(lambda g: clip * g, gradient)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=400)[0]

    params, _ = train(params, optimizer.init(params))
    entropy = 2 * 0.5 * np.log(2 * np.pi * np.e) + np.log(0.3)
    assert float(jnp.mean(flow.apply(params, z))) > -entropy - 0.15


def test_build_prior():
    assert build_prior("standard_normal", 7, 2, 16) == StandardNormal(7)
    assert build_prior("coupling_flow", 7, 2, 16) == CouplingFlow(7, 2, 16)
    with pytest.raises(ValueError, match="coupling_flow"):
        build_prior("vamp", 7, 2, 16)

"""Tests the terms of the ELBO and related bounds against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax import objectives
from vaejax.priors.standard_normal import standard_normal_log_prob

small = st.floats(-2.0, 2.0, width=32)
# Compiled, because each operation on its own would be a program.
standard_kl, gaussian_log_prob, gaussian_entropy = map(
    jax.jit, (objectives.standard_kl, objectives.gaussian_log_prob, objectives.gaussian_entropy)
)


@settings(max_examples=30)
@given(mean=small, log_std=st.floats(-2.0, 1.0, width=32))
def test_standard_kl_matches_numerical_integration(mean, log_std):
    q = scipy.stats.norm(mean, np.exp(log_std))
    p = scipy.stats.norm(0.0, 1.0)
    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - 40, mean + 40, points=[mean]
    )
    kl = standard_kl(np.full((1, 1), mean, np.float32), np.full((1, 1), log_std, np.float32))
    np.testing.assert_allclose(kl.item(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(mean=small, log_std=st.floats(-2.0, 1.0, width=32), z=small)
def test_log_density_and_entropy_match_scipy(mean, log_std, z):
    q = scipy.stats.norm(mean, np.exp(log_std))
    arrays = [np.full((1, 1), value, np.float32) for value in (z, mean, log_std)]
    log_prob, entropy = gaussian_log_prob(*arrays).item(), gaussian_entropy(arrays[2]).item()
    np.testing.assert_allclose(log_prob, q.logpdf(z), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(entropy, q.entropy(), rtol=1e-5, atol=1e-5)


def test_bounds_are_ordered_on_a_model_with_known_evidence():
    """The model is x = W z + s e with z, e ~ N(0, I), so that x ~ N(0, W W' + s^2 I)."""
    rng = np.random.default_rng(0)
    dimensions, latent, noise_std, batch, draws = 5, 3, 0.5, 16, 4096
    weights = rng.normal(size=(dimensions, latent))
    covariance = weights @ weights.T + noise_std**2 * np.eye(dimensions)
    x = rng.multivariate_normal(np.zeros(dimensions), covariance, size=batch)
    exact = scipy.stats.multivariate_normal(np.zeros(dimensions), covariance).logpdf(x)
    # An approximate posterior near the true one; it differs, so that the bounds are not tight.
    true_covariance = np.linalg.inv(np.eye(latent) + weights.T @ weights / noise_std**2)
    mean = x @ weights @ true_covariance.T / noise_std**2 + 0.1
    log_std = np.tile(np.log(1.2 * np.sqrt(np.diag(true_covariance))), (batch, 1))
    mean, log_std, x = (jnp.asarray(a, jnp.float32) for a in (mean, log_std, x))

    def log_weight(noise):
        z = objectives.reparameterize(mean, log_std, noise)
        centre = z @ jnp.asarray(weights.T, jnp.float32)
        log_x = objectives.gaussian_log_prob(x, centre, jnp.full_like(x, np.log(noise_std)))
        log_z = objectives.gaussian_log_prob(z, jnp.zeros_like(z), jnp.zeros_like(z))
        return log_x + log_z - objectives.gaussian_log_prob(z, mean, log_std)

    @jax.jit
    def weights_and_bounds(noise):
        log_weights = jax.vmap(log_weight)(noise)
        bound = jax.vmap(objectives.importance_bound)
        parts = [log_weights.reshape(-1, k, batch) for k in (1, 4, 16, 256)]
        return log_weights, [jnp.mean(bound(part)) for part in parts]

    noise = rng.normal(size=(draws, batch, latent)).astype(np.float32)
    log_weights, bounds = weights_and_bounds(noise)
    bounds = [float(bound) for bound in bounds]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1] - 0.1, "the bounds are too close to test their order"
    assert bounds[-1] <= exact.mean() + 0.01
    np.testing.assert_allclose(bounds[-1], exact.mean(), atol=0.02)
    np.testing.assert_allclose(bounds[0], np.mean(np.asarray(log_weights)), rtol=1e-5)


def test_reparameterised_gradient_matches_finite_differences():
    """Differentiates the mean of f(z) over fixed noise; the differences are computed in float64."""
    noise = np.random.default_rng(1).normal(size=(256, 3)).astype(np.float32)
    centre = np.array([0.3, -0.7, 1.1], np.float32)

    def value(mean, log_std):
        z = mean + np.exp(log_std) * noise
        return np.mean(np.sum(np.tanh(z - centre) * z, axis=-1))

    mean, log_std = np.float32([[0.1, 0.2, -0.3]]), np.float32([[-0.5, 0.1, 0.4]])

    def estimate(mean, log_std):
        mean, log_std = (jnp.broadcast_to(a, noise.shape) for a in (mean, log_std))
        z = objectives.reparameterize(mean, log_std, jnp.asarray(noise))
        return jnp.mean(jnp.sum(jnp.tanh(z - centre[None]) * z, axis=-1))

    gradients = jax.jit(jax.grad(estimate, argnums=(0, 1)))(mean, log_std)
    step = 1e-5
    for which, gradient in enumerate(gradients):
        for i in range(3):
            arguments = [mean.astype(np.float64), log_std.astype(np.float64)]
            shift = np.zeros((1, 3))
            shift[0, i] = step
            up, down = list(arguments), list(arguments)
            up[which], down[which] = arguments[which] + shift, arguments[which] - shift
            difference = (value(*up) - value(*down)) / (2 * step)
            np.testing.assert_allclose(gradient[0, i], difference, rtol=1e-3, atol=1e-4)


def test_free_bits_give_no_gradient_to_a_smaller_kl():
    def total(kl):
        raised = objectives.free_bits(kl, jnp.asarray([0.5, 0.5]))
        return jnp.sum(raised), raised

    slopes, raised = jax.jit(jax.grad(total, has_aux=True))(np.float32([0.2, 3.0]))
    np.testing.assert_allclose(raised, [0.5, 3.0])
    np.testing.assert_allclose(slopes, [0.0, 1.0])


def test_balance_weighs_most_the_factor_of_the_largest_kl_per_dimension():
    def total(kl, warmup):
        weights = objectives.balance(kl, jnp.asarray([1.0, 32.0]), warmup)
        return jnp.sum(weights), weights

    for warmup, expected in ((0.0, [1.6, 0.4]), (0.5, [1.3, 0.7]), (1.0, [1.0, 1.0])):
        inputs = np.float32([1.0, 8.0]), np.float32(warmup)
        slopes, weights = jax.jit(jax.grad(total, has_aux=True))(*inputs)
        np.testing.assert_allclose(weights, expected, rtol=1e-4)
        np.testing.assert_array_equal(slopes, [0.0, 0.0])


@jax.jit
def densities_and_moments(z, mean, log_std):
    densities = (
        objectives.gaussian_log_prob(z, mean, log_std),
        objectives.gaussian_entropy(log_std),
        standard_normal_log_prob(z),
    )
    mask = jnp.array([1.0, 0.0, 1.0, 1.0, 1.0])
    return densities, objectives.latent_moments(mean, log_std, mask)


def test_latents_of_any_rank_are_treated_as_flat():
    latents = np.random.default_rng(0).normal(size=(3, 5, 2, 3, 4)).astype(np.float32)
    densities, moments = densities_and_moments(*latents)
    flat_densities, flat_moments = densities_and_moments(*latents.reshape(3, 5, -1))
    np.testing.assert_allclose(densities, flat_densities, rtol=1e-5)
    usage, flat_usage = map(objectives.latent_usage, (moments, flat_moments))
    assert usage.information.shape == (2, 3, 4) and usage.active == flat_usage.active
    np.testing.assert_allclose(usage.information.ravel(), flat_usage.information, rtol=1e-5)


def test_bits_per_dim():
    # A uniform distribution over 256 levels costs 8 bits per value.
    nats = -12 * np.log(256.0)
    np.testing.assert_allclose(objectives.bits_per_dim(np.float64(nats), 12), 8.0)


def test_latent_usage_counts_the_latents_that_carry_information():
    rng = np.random.default_rng(0)
    count = 4000
    mean = np.stack([rng.normal(size=count), np.full(count, 0.3)], 1).astype(np.float32)
    log_std = np.tile(np.log(np.float32([[0.1, 1.0]])), (count, 1))
    half = count // 2
    moments_of = jax.jit(objectives.latent_moments)
    parts = [
        moments_of(mean[part], log_std[part], np.ones(half, np.float32))
        for part in (slice(0, half), slice(half, count))
    ]
    usage = objectives.latent_usage(jax.tree.map(lambda *both: np.add(*both), *parts))
    assert usage.active == 1
    # Means from N(0, 1) and a posterior std of 0.1: 0.5 * log(1.01 / 0.01) nats.
    np.testing.assert_allclose(usage.information, [0.5 * np.log(101.0), 0.0], atol=0.03)

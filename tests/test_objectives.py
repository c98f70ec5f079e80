"""Tests the terms of the ELBO and related bounds against closed forms and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax import objectives
from vaejax.priors.standard_normal import standard_normal_log_prob

small = st.floats(-2.0, 2.0, width=32)


@settings(max_examples=30)
@given(mean=small, log_std=st.floats(-2.0, 1.0, width=32))
def test_standard_kl_matches_numerical_integration(mean, log_std):
    q = scipy.stats.norm(mean, np.exp(log_std))
    p = scipy.stats.norm(0.0, 1.0)
    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - 40, mean + 40, points=[mean]
    )
    kl = objectives.standard_kl(jnp.full((1, 1), mean), jnp.full((1, 1), log_std))
    np.testing.assert_allclose(kl.item(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(mean=small, log_std=st.floats(-2.0, 1.0, width=32), z=small)
def test_log_density_and_entropy_match_scipy(mean, log_std, z):
    q = scipy.stats.norm(mean, np.exp(log_std))
    arrays = [jnp.full((1, 1), value) for value in (z, mean, log_std)]
    np.testing.assert_allclose(
        objectives.gaussian_log_prob(*arrays).item(), q.logpdf(z), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        objectives.gaussian_entropy(arrays[2]).item(), q.entropy(), rtol=1e-5, atol=1e-5
    )


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

    noise = jax.random.normal(jax.random.key(0), (draws, batch, latent))
    weights_of = jax.vmap(log_weight)(noise)
    bounds = [
        float(jnp.mean(jax.vmap(objectives.importance_bound)(weights_of.reshape(-1, k, batch))))
        for k in (1, 4, 16, 256)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1] - 0.1, "the bounds are too close to test their order"
    assert bounds[-1] <= exact.mean() + 0.01
    np.testing.assert_allclose(bounds[-1], exact.mean(), atol=0.02)
    np.testing.assert_allclose(bounds[0], float(jnp.mean(weights_of)), rtol=1e-5)


def test_reparameterised_gradient_matches_finite_differences():
    """Differentiates the mean of f(z) over fixed noise; the differences are computed in float64."""
    noise = np.random.default_rng(1).normal(size=(256, 3)).astype(np.float32)
    centre = np.array([0.3, -0.7, 1.1], np.float32)

    def value(mean, log_std, numpy):
        z = mean + numpy.exp(log_std) * noise
        return numpy.mean(numpy.sum(numpy.tanh(z - centre) * z, axis=-1))

    mean, log_std = np.float32([[0.1, 0.2, -0.3]]), np.float32([[-0.5, 0.1, 0.4]])
    broadcast = [jnp.broadcast_to(jnp.asarray(a), noise.shape) for a in (centre[None],)]

    def estimate(mean, log_std):
        mean, log_std = (jnp.broadcast_to(a, noise.shape) for a in (mean, log_std))
        z = objectives.reparameterize(mean, log_std, jnp.asarray(noise))
        return jnp.mean(jnp.sum(jnp.tanh(z - broadcast[0]) * z, axis=-1))

    gradients = jax.grad(estimate, argnums=(0, 1))(jnp.asarray(mean), jnp.asarray(log_std))
    step = 1e-5
    for which, gradient in enumerate(gradients):
        for i in range(3):
            arguments = [mean.astype(np.float64), log_std.astype(np.float64)]
            shift = np.zeros((1, 3))
            shift[0, i] = step
            up, down = list(arguments), list(arguments)
            up[which], down[which] = arguments[which] + shift, arguments[which] - shift
            difference = (value(*up, np) - value(*down, np)) / (2 * step)
            np.testing.assert_allclose(gradient[0, i], difference, rtol=1e-3, atol=1e-4)


def test_free_bits_do_not_press_what_is_below():
    kl, free = jnp.asarray([0.2, 3.0]), jnp.asarray([0.5, 0.5])
    np.testing.assert_allclose(objectives.free_bits(kl, free), [0.5, 3.0])
    slopes = jax.grad(lambda kl: jnp.sum(objectives.free_bits(kl, free)))(kl)
    np.testing.assert_allclose(slopes, [0.0, 1.0])


def test_balance_presses_most_what_tells_most_for_its_size():
    kl, sizes = jnp.asarray([1.0, 8.0]), jnp.asarray([1.0, 32.0])
    weights = objectives.balance(kl, sizes, jnp.float32(0.0))
    np.testing.assert_allclose(weights, [1.6, 0.4], rtol=1e-4)
    np.testing.assert_allclose(objectives.balance(kl, sizes, jnp.float32(1.0)), [1.0, 1.0])
    slope = jax.grad(lambda kl: jnp.sum(objectives.balance(kl, sizes, jnp.float32(0.5))))(kl)
    np.testing.assert_array_equal(slope, [0.0, 0.0])


def test_latents_of_any_rank_count_as_their_values_in_a_row():
    mean, log_std, z = (
        jax.random.normal(jax.random.key(number), (5, 2, 3, 4)) for number in range(3)
    )
    flat = [jnp.reshape(leaf, (5, -1)) for leaf in (z, mean, log_std)]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    close(objectives.gaussian_log_prob(z, mean, log_std), objectives.gaussian_log_prob(*flat))
    close(objectives.gaussian_entropy(log_std), objectives.gaussian_entropy(flat[2]))
    close(standard_normal_log_prob(z), standard_normal_log_prob(flat[0]))
    mask = jnp.array([1.0, 0.0, 1.0, 1.0, 1.0])
    usage = objectives.latent_usage(objectives.latent_moments(mean, log_std, mask))
    in_a_row = objectives.latent_usage(objectives.latent_moments(*flat[1:], mask))
    assert usage.information.shape == (2, 3, 4) and usage.active == in_a_row.active
    close(usage.information.ravel(), in_a_row.information)


def test_bits_per_dim():
    # A uniform distribution over 256 levels costs 8 bits per value.
    nats = -12 * np.log(256.0)
    np.testing.assert_allclose(objectives.bits_per_dim(np.float64(nats), 12), 8.0)


def test_latent_usage_counts_what_carries_information():
    rng = np.random.default_rng(0)
    count = 4000
    mean = np.stack([rng.normal(size=count), np.full(count, 0.3)], 1).astype(np.float32)
    log_std = np.tile(np.log(np.float32([[0.1, 1.0]])), (count, 1))
    half = count // 2
    parts = [
        objectives.latent_moments(
            jnp.asarray(mean[part]), jnp.asarray(log_std[part]), jnp.ones(half, jnp.float32)
        )
        for part in (slice(0, half), slice(half, count))
    ]
    usage = objectives.latent_usage(jax.tree.map(jnp.add, *parts))
    assert usage.active == 1
    # Means from N(0, 1) and a posterior std of 0.1: 0.5 * log(1.01 / 0.01) nats.
    np.testing.assert_allclose(usage.information, [0.5 * np.log(101.0), 0.0], atol=0.03)

"""Checks the likelihood and the prior of docs/extending.md, in a copy of the package that has them.

Run as `python -m extended` with the copy on PYTHONPATH, as `test_extending.py` does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.config import Config
from vaejax.config.settings import changed
from vaejax.likelihoods import Pixels, build_likelihood
from vaejax.priors import build_prior


def check_likelihood() -> None:
    """Checks that the probabilities of all levels sum to one and that gradients are finite."""
    likelihood = build_likelihood(changed(Config(), {"likelihood.name": "laplace"}))
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(256, 1, 1, 1)
    for scale in (5e-3, 0.05, 1.0):
        for location in (-1.2, -1.0, 0.1, 0.98):
            shape = (256, 1, 1, 1)
            pixels = Pixels(jnp.full(shape, location), jnp.full(shape, np.log(scale)))
            log_prob = likelihood.log_prob(levels, pixels)
            np.testing.assert_allclose(float(jnp.sum(jnp.exp(log_prob))), 1.0, rtol=1e-4)
            gradient = jax.grad(lambda p: jnp.sum(likelihood.log_prob(levels, p)))(pixels)
            assert all(np.all(np.isfinite(part)) for part in gradient)


def check_prior() -> None:
    """Checks that `to_noise` inverts `from_noise`, and that `log_prob` is the Gaussian density."""
    prior = build_prior(changed(Config(), {"prior.name": "diagonal_normal"}).prior, 3)
    params = {"mean": jnp.array([1.0, -2.0, 0.5]), "log_std": jnp.array([0.3, -0.7, 0.0])}
    noise = jax.random.normal(jax.random.key(0), (5, 3))
    z = prior.apply({"params": params}, noise, method="from_noise")
    np.testing.assert_allclose(
        prior.apply({"params": params}, z, method="to_noise"), noise, atol=1e-5
    )
    std = jnp.exp(params["log_std"])
    expected = jax.scipy.stats.norm.logpdf(z, params["mean"][None], std[None]).sum(axis=-1)
    log_prob = prior.apply({"params": params}, z, method="log_prob")
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


if __name__ == "__main__":
    check_likelihood()
    check_prior()

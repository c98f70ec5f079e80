"""Shared helpers for tests of the mixture of logistics: parameters and decoder outputs."""

import jax.numpy as jnp
import numpy as np

from vaejax.likelihoods import MixturePixels


def pixels_of(parameters: np.ndarray) -> MixturePixels:
    """Returns the decoder output for mixture parameters [batch, height, width, parameter].

    Its linear map is the identity without a bias, so its features are the parameters themselves.
    """
    count = parameters.shape[-1]
    return MixturePixels(jnp.asarray(parameters), jnp.eye(count), jnp.zeros(count))


def some_parameters(seed: int, channels: int, components: int, log_scale: float) -> np.ndarray:
    """Returns random mixture parameters of one pixel, [1, 1, 1, parameter].

    Locations may lie outside the range of values, [-1, 1]. Log-scales vary around `log_scale`.
    """
    rng = np.random.default_rng(seed)
    pairs = channels * (channels - 1) // 2
    rows = [
        rng.normal(scale=2.0, size=(1, components)),
        rng.uniform(-1.5, 1.5, (channels, components)),
        rng.normal(log_scale, 0.5, (channels, components)),
        rng.normal(size=(pairs, components)),
    ]
    return np.concatenate(rows).astype(np.float32).reshape(1, 1, 1, -1)

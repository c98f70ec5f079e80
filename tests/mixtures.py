"""What tests of mixtures share: their parameters."""

import jax.numpy as jnp
import numpy as np

from vaejax.likelihoods import MixturePixels


def pixels_of(parameters: np.ndarray) -> MixturePixels:
    """Pixels whose parameters are given [batch, height, width, parameter]."""
    count = parameters.shape[-1]
    return MixturePixels(jnp.asarray(parameters), jnp.eye(count), jnp.zeros(count))


def some_parameters(seed: int, channels: int, components: int, log_scale: float) -> np.ndarray:
    """Of one pixel: locations beyond the range of values, scales about the given one."""
    rng = np.random.default_rng(seed)
    pairs = channels * (channels - 1) // 2
    rows = [
        rng.normal(scale=2.0, size=(1, components)),
        rng.uniform(-1.5, 1.5, (channels, components)),
        rng.normal(log_scale, 0.5, (channels, components)),
        rng.normal(size=(pairs, components)),
    ]
    return np.concatenate(rows).astype(np.float32).reshape(1, 1, 1, -1)

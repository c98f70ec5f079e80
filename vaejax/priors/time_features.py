"""Features of the time of a flow, from which its network is conditioned."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

# k half periods in [0, 1] for k = 1, 2, ...: half the shortest period takes 2.5 of the solver's
# steps, which can therefore resolve it.
_FREQUENCIES = 8


def time_features(time: Float[Array, "batch"]) -> Float[Array, "batch feature"]:
    """Returns sines and cosines of times in [0, 1]."""
    angles = time[:, None] * (math.pi * jnp.arange(1.0, _FREQUENCIES + 1.0))[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

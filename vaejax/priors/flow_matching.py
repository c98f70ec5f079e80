"""A continuous normalising flow over codes, trained by flow matching.

Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow matching for generative modeling" (ICLR 2023).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from vaejax.priors.gaussian import Gaussian
from vaejax.priors.standard_normal import standard_normal_log_prob

# Steps of the fourth-order Runge-Kutta solver between noise and code, with four evaluations each.
# On 128-dimensional codes of faces, twice as many steps move a sample by 0.0003 standard
# deviations.
ODE_STEPS = 20
# Frequencies of the sine and cosine features of time: k half periods in [0, 1] for k = 1, 2, ...
_FREQUENCIES = 8


class Velocity(nn.Module):
    """The velocity dx/dt of a whitened code at a time.

    Paths are straight, x_t = (1 - t) noise + t code. If the codes were standard normal, the
    velocity would be (2 t - 1) / ((1 - t)² + t²) x_t. A residual network learns the difference,
    so that before training the flow is exactly the Gaussian that whitened the codes.

    Attributes:
      width: hidden units.
      blocks: number of residual blocks of two dense layers.
    """

    width: int
    blocks: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch latent"], time: Float[Array, "batch"]
    ) -> Float[Array, "batch latent"]:
        """Returns velocities in whitened units per unit of time; time is in [0, 1]."""
        # Frequencies that the solver can resolve: half the shortest period takes 2.5 of its steps.
        angles = time[:, None] * (math.pi * jnp.arange(1.0, _FREQUENCIES + 1.0))[None]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        # The variance of x_t under standard normal codes; it never falls below a half.
        variance = ((1.0 - time) ** 2 + time**2)[:, None]
        gaussian = (2.0 * time - 1.0)[:, None] / variance * x
        zero = nn.initializers.zeros_init()
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        hidden = nn.Dense(self.width)(x / jnp.sqrt(variance))
        for _ in range(self.blocks):
            # No layer norm: with it, codes of faces were learned more slowly and at a higher cost.
            scale, shift = jnp.split(nn.Dense(2 * self.width, kernel_init=zero)(waves), 2, axis=-1)
            residual = nn.Dense(self.width)(nn.silu(hidden * (1.0 + scale) + shift))
            hidden = hidden + nn.Dense(self.width, kernel_init=small)(nn.silu(residual))
        return gaussian + nn.Dense(x.shape[-1], kernel_init=zero)(nn.silu(hidden))


@flax.struct.dataclass
class FlowMatching:
    """The distribution of codes that result from integrating the learned velocity from noise.

    Attributes:
      gaussian: the Gaussian that whitens the codes.
      params: parameters of the `Velocity` network.
      width: `Velocity.width`.
      blocks: `Velocity.blocks`.
    """

    gaussian: Gaussian
    params: Any
    width: int = flax.struct.field(pytree_node=False)
    blocks: int = flax.struct.field(pytree_node=False)

    def log_prob(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Returns the log-density in nats, by the instantaneous change of variables.

        Chen, Rubanova, Bettencourt and Duvenaud, "Neural ordinary differential equations"
        (2018), eq. 8, with the exact trace of the Jacobian. This is slow: each code costs as much
        as sampling one code per latent dimension. The density is exact up to the solver's error.
        """

        def field(state, time):
            x, _ = state

            def velocity(x):
                return self._velocity(x[None], time)[0]

            def trace(x):
                return jnp.trace(jax.jacfwd(velocity)(x))

            return self._velocity(x, time), jax.vmap(trace)(x)

        white = self.gaussian.to_noise(z)
        # From code to noise: state and trace are integrated backwards in time.
        noise, change = _integrate(field, (white, jnp.zeros_like(white[:, 0])), 1.0, 0.0)
        return standard_normal_log_prob(noise) + change - self.gaussian.log_det()

    def sample(
        self, key: PRNGKeyArray, count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Draws `count` samples, with base noise from N(0, temperature² I).

        The solver takes `ODE_STEPS` Runge-Kutta steps. At temperature 0 all samples are the code of
        zero noise, which is in general neither the mode nor the mean.
        """
        noise = jax.random.normal(key, (count, len(self.gaussian.mean)), jnp.float32)
        return self.gaussian.from_noise(_integrate(self._velocity, temperature * noise, 0.0, 1.0))

    def _velocity(
        self, x: Float[Array, "batch latent"], time: Float[Array, ""]
    ) -> Float[Array, "batch latent"]:
        times = jnp.broadcast_to(time, x.shape[:1])
        network = Velocity(self.width, self.blocks)
        # Linen declares that `apply` may return a pair, which it does only for `mutable` variables.
        velocity: Any = network.apply({"params": self.params}, x, times)
        return velocity


def flow_matching_errors(
    network: Velocity,
    params: Any,
    white: Float[Array, "batch latent"],
    noise: Float[Array, "batch latent"],
    times: Float[Array, "batch"],
) -> Float[Array, "batch"]:
    """Computes the flow matching loss of each code (Lipman et al., eq. 23 with σ_min = 0).

    Args:
      network: the velocity network.
      params: parameters of the network.
      white: whitened codes.
      noise: standard normal noise.
      times: a time for each code, uniform in [0, 1].

    Returns:
      The squared error of the velocity, averaged over latent dimensions.
    """
    along = times[:, None]
    x = (1.0 - along) * noise + along * white
    velocity: Any = network.apply({"params": params}, x, times)
    return jnp.mean((velocity - (white - noise)) ** 2, axis=-1)


def _integrate(field: Callable[[Any, Float[Array, ""]], Any], state: Any, start: float, end: float):
    """Solves d state / d time = field(state, time) by the classical Runge-Kutta method."""
    step = (end - start) / ODE_STEPS

    def ahead(state, slope, length):
        return jax.tree.map(lambda x, dx: x + length * dx, state, slope)

    def advance(state, index):
        time = start + step * index
        k1 = field(state, time)
        k2 = field(ahead(state, k1, step / 2), time + step / 2)
        k3 = field(ahead(state, k2, step / 2), time + step / 2)
        k4 = field(ahead(state, k3, step), time + step)
        slope = jax.tree.map(lambda a, b, c, d: (a + 2.0 * b + 2.0 * c + d) / 6.0, k1, k2, k3, k4)
        return ahead(state, slope, step), None

    return lax.scan(advance, state, jnp.arange(ODE_STEPS, dtype=jnp.float32))[0]

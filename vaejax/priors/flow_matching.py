"""A continuous normalising flow over codes, trained by flow matching.

Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow matching for generative modeling" (ICLR 2023).
Paths are straight, x_t = (1 - t) noise + t code, for codes that a Gaussian has normalised.

The flow may be conditioned on labels. Each label is a pair of its scaled value and 1, or (0, 0) if
it is not known. A small network embeds all pairs, and acts on the velocity together with the time;
if no label is known, the flow is the unconditional prior. Samples can be guided further towards
their labels: Ho and Salimans, "Classifier-free diffusion guidance" (2022).
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from vaejax.config import FlowConfig
from vaejax.errors import UserError
from vaejax.priors.diagonal_gaussian import DiagonalGaussian
from vaejax.priors.gaussian import Gaussian
from vaejax.priors.label_embedding import Condition
from vaejax.priors.labels import Given, Label, condition_of
from vaejax.priors.ode import solve
from vaejax.priors.standard_normal import base_noise, standard_normal_log_prob
from vaejax.priors.velocity_mlp import VelocityMLP
from vaejax.priors.velocity_transformer import VelocityTransformer

# Steps of the fourth-order Runge-Kutta solver between noise and code, with four evaluations each.
# On 128-dimensional codes of faces, twice as many steps move a sample by 0.0003 standard
# deviations.
ODE_STEPS = 20
# Random vectors from which `estimate_log_prob` estimates each trace, unless others are named.
PROBES = 4
# The largest guidance: far below it, samples are no longer plausible.
MOST_GUIDANCE = 100.0

Network = VelocityMLP | VelocityTransformer


def build_network(
    settings: FlowConfig, latent_shape: tuple[int, ...], dtype: str = "float32"
) -> Network:
    """Builds the network of the velocity, without parameters: a transformer for maps.

    Args:
      settings: settings of the flow, `config.flow`.
      latent_shape: (dimensions,), or (rows, columns, channels).
      dtype: dtype of the activations.
    """
    settings = settings.of(latent_shape)
    if len(latent_shape) == 1:
        return VelocityMLP(settings.width, settings.blocks, dtype)
    rows, columns, channels = latent_shape
    return VelocityTransformer(
        (rows, columns, channels),
        patch=settings.patch,
        width=settings.width,
        blocks=settings.blocks,
        head_size=settings.head_size,
        dtype=dtype,
        remat=settings.remat,
    )


@flax.struct.dataclass
class FlowMatching:
    """The distribution of codes that result from integrating the learned velocity from noise.

    Attributes:
      gaussian: the Gaussian that normalises the codes.
      params: parameters of the network.
      network: the network of `velocity`.
      labels: the labels that the network has learned.
      condition: what is known of the labels, as `given` has set it; None for nothing.
      guidance: the weight of the condition; None for 1, the conditional distribution.
    """

    gaussian: Gaussian | DiagonalGaussian
    params: Any
    network: Network = flax.struct.field(pytree_node=False)
    labels: tuple[Label, ...] = flax.struct.field(pytree_node=False, default=())
    condition: Float[Array, "label 2"] | None = None
    guidance: Float[Array, ""] | None = None

    def given(self, labels: Given, guidance: float = 1.0) -> "FlowMatching":
        """Returns the prior given some of its labels, p(z | labels), or a guided one.

        The velocity of the guided prior is v(none) + guidance · (v(labels) - v(none)), Ho and
        Salimans (2022), eq. 6 with guidance = 1 + w. It costs twice as much as the conditional one.

        Args:
          labels: values of some labels by name; the others are not known.
          guidance: from 0, the unconditional prior, over 1, the conditional one, to
            `MOST_GUIDANCE`. Above 1, samples show the labels more clearly and vary less.

        Raises:
          UserError: the prior has not learned such a label, or a value is out of its range.
        """
        if not 0 <= guidance <= MOST_GUIDANCE:
            raise UserError(f"guidance={guidance} must be a number from 0 to {MOST_GUIDANCE:g}")
        condition = jnp.asarray(condition_of(self.labels, labels))
        weight = None if guidance == 1 else jnp.float32(guidance)
        return dataclasses.replace(self, condition=condition, guidance=weight)

    def log_prob(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Returns the log-density in nats, by the instantaneous change of variables.

        It is that of the unconditional prior, unless `given` has set labels.

        Chen, Rubanova, Bettencourt and Duvenaud, "Neural ordinary differential equations"
        (2018), eq. 8, with the exact trace of the Jacobian. This is slow: each code costs as much
        as sampling one code per latent dimension. The density is exact up to the solver's error.
        """
        size = z.shape[1]
        # e_iᵀ J e_i, summed over the unit vectors e_i: the trace.
        units = jnp.broadcast_to(jnp.eye(size)[:, None], (size, *z.shape))
        return self._log_prob(z, units, jnp.ones(()))

    def estimate_log_prob(
        self, z: Float[Array, "batch latent"], keys: Key[Array, "batch"], probes: int = PROBES
    ) -> Float[Array, "batch"]:
        """Estimates the log-density in nats without bias, for `probes` times the cost of sampling.

        The trace is Hutchinson's estimate, the mean of eᵀ J e over random vectors e of signs, the
        same along the path of a code (Grathwohl et al., "FFJORD", ICLR 2019, eq. 8). The
        exponential of the estimate is not an unbiased estimate of the density.

        Args:
          z: the codes.
          keys: one key for each code.
          probes: number of random vectors for each code.
        """
        signs = jax.vmap(lambda key: jax.random.rademacher(key, (probes, z.shape[1]), jnp.float32))
        return self._log_prob(z, signs(keys).swapaxes(0, 1), jnp.float32(1 / probes))

    def _log_prob(
        self,
        z: Float[Array, "batch latent"],
        tangents: Float[Array, "tangent batch latent"],
        weight: Float[Array, ""],
    ) -> Float[Array, "batch"]:
        """Returns the log-density with weight · Σ eᵀ J e over tangents e for the trace of J."""

        def field(state: PyTree, time: Float[Array, ""]) -> PyTree:
            slope, along = jax.linearize(lambda x: self._velocity(x, time), state[0])
            traces = jax.vmap(lambda tangent: jnp.sum(tangent * along(tangent), axis=-1))(tangents)
            return slope, weight * jnp.sum(traces, axis=0)

        normalised = self.gaussian.to_noise(z)
        # From code to noise: state and trace are integrated backwards in time.
        start = normalised, jnp.zeros_like(normalised[:, 0])
        noise, change = solve(field, start, 1.0, 0.0, ODE_STEPS)
        return standard_normal_log_prob(noise) + change - self.gaussian.log_det()

    def noise(
        self, key: PRNGKeyArray, count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Draws the base noise of `count` samples, from N(0, temperature² I)."""
        return base_noise(key, count, len(self.gaussian.mean), temperature)

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps base noise to codes, by `ODE_STEPS` Runge-Kutta steps."""
        return self.gaussian.from_noise(solve(self._velocity, noise, 0.0, 1.0, ODE_STEPS))

    def sample(
        self, key: PRNGKeyArray, count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Draws `count` samples, with base noise from N(0, temperature² I), all at once.

        At temperature 0 all samples are the code of zero noise, which is in general neither the
        mode nor the mean.
        """
        return self.from_noise(self.noise(key, count, temperature))

    def _velocity(
        self, x: Float[Array, "batch latent"], time: Float[Array, ""]
    ) -> Float[Array, "batch latent"]:
        times = jnp.broadcast_to(time, x.shape[:1])
        of = functools.partial(velocity, self.network, self.params)
        if not self.labels:
            return of(x, times)
        nothing = jnp.zeros((len(x), len(self.labels), 2))
        if self.condition is None:
            return of(x, times, nothing)
        known = jnp.broadcast_to(self.condition, nothing.shape)
        if self.guidance is None:
            return of(x, times, known)
        # Both in one batch.
        both = of(jnp.tile(x, (2, 1)), jnp.tile(times, 2), jnp.concatenate([nothing, known]))
        unconditional, conditional = jnp.split(both, 2)
        return unconditional + self.guidance * (conditional - unconditional)


def velocity(
    network: Network,
    params: PyTree,
    x: Float[Array, "batch latent"],
    times: Float[Array, "batch"],
    condition: Condition | None = None,
) -> Float[Array, "batch latent"]:
    """Computes the velocity dx/dt of normalised codes, in normalised units per unit of time.

    If the codes were standard normal, it would be (2 t - 1) / ((1 - t)² + t²) x_t. The network
    learns the difference, so that before training the flow is exactly the Gaussian that
    normalises the codes.

    Args:
      network: the network.
      params: parameters of the network.
      x: points on the paths.
      times: a time for each, in [0, 1].
      condition: what is known of the labels of each; None for a network without labels.
    """
    # The variance of x_t under standard normal codes; it never falls below a half.
    variance = ((1.0 - times) ** 2 + times**2)[:, None]
    gaussian = (2.0 * times - 1.0)[:, None] / variance * x
    # Linen declares that `apply` may return a pair, which it does only for `mutable` variables.
    learned: Any = network.apply({"params": params}, x / jnp.sqrt(variance), times, condition)
    return gaussian + learned


def flow_matching_errors(
    network: Network,
    params: PyTree,
    normalised: Float[Array, "batch latent"],
    noise: Float[Array, "batch latent"],
    times: Float[Array, "batch"],
    condition: Condition | None = None,
) -> Float[Array, "batch"]:
    """Computes the flow matching loss of each code (Lipman et al., eq. 23 with σ_min = 0).

    Args:
      network: the network of the velocity.
      params: parameters of the network.
      normalised: normalised codes.
      noise: standard normal noise.
      times: a time for each code, in [0, 1].
      condition: what is known of the labels of each code; None for a network without labels.

    Returns:
      The squared error of the velocity, averaged over latent dimensions.
    """
    along = times[:, None]
    x = (1.0 - along) * noise + along * normalised
    found = velocity(network, params, x, times, condition)
    return jnp.mean((found - (normalised - noise)) ** 2, axis=-1)

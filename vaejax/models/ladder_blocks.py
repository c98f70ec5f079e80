"""The blocks of a ladder: of its encoder, and of its decoder with a group of latents each."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from vaejax.models.blocks import Conv1x1, Conv3x3, Maps, OtherMaps, activation
from vaejax.models.noise import Keys, fold_in, normal

# Purposes folded into a picture's key, beside its groups' numbers.
_ENCODER_DROPOUT, _DECODER_DROPOUT = 2**30, 2**30 + 2**20
# No standard deviation is smaller, so that those that grow linearly keep their ratios in the range
# of float32.
_LEAST_STD = 1e-3


class Gaussian(NamedTuple):
    """A diagonal Gaussian over one group, float32."""

    mean: Maps
    std: Maps


class FromPosterior(NamedTuple):
    """What a decoder block takes to sample from its posterior."""

    skip: Maps
    group: Int[Array, ""]


class FromPrior(NamedTuple):
    """What a decoder block takes to go on without a picture.

    Attributes:
      z: latents, used where `keep` is true.
      keep: else they are mean + std * noise of the prior.
    """

    z: Maps
    keep: Array
    noise: Maps


class Group(NamedTuple):
    """What a decoder block tells of its group.

    Attributes:
      z: its latents.
      std: standard deviation of the posterior they were drawn from, or of the prior.
      noise: that the prior would have made them of.
      kl, log_ratio: as in `Inference`; zero without a picture.
    """

    z: Maps
    std: Maps
    noise: Maps
    kl: Float[Array, "batch"]
    log_ratio: Float[Array, "batch"]


class Bottleneck(nn.Module):
    """The inside of a residual branch: to few channels, and two convolutions among them.

    Attributes:
      width: channels.
      taps: 3, or 1 where a picture is too small for neighbours to matter.
      dropout: the share of channels that are left out.
      dtype: dtype of the activations.
    """

    width: int
    taps: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps, keys: Keys | None = None) -> OtherMaps:
        """Returns [batch, height, width, self.width], activated; with `keys`, some dropped."""
        conv = Conv3x3 if self.taps == 3 else Conv1x1
        x = activation(Conv1x1(self.width, self.dtype)(activation(x)))
        x = activation(conv(self.width, self.dtype)(x))
        x = activation(conv(self.width, self.dtype)(x))
        if keys is None or self.dropout == 0.0:
            return x
        share = 1.0 - self.dropout
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, share, (self.width,)))(keys)
        return jnp.where(kept[:, None, None], x / share, 0.0).astype(self.dtype)


class EncoderBlock(nn.Module):
    """A residual block that leaves its output for the decoder."""

    width: int
    hidden: int
    taps: int
    gain: float
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps, block: Int[Array, ""], dropout: Keys | None) -> tuple[Maps, Maps]:
        """Returns its output twice: for the next block and for the decoder's."""
        if dropout is not None:
            dropout = fold_in(dropout, _ENCODER_DROPOUT + block)
        branch = Bottleneck(self.hidden, self.taps, self.dropout, self.dtype)(x, dropout)
        x = x + Conv1x1(self.width, self.dtype, self.gain)(branch)
        return x, x


class DecoderBlock(nn.Module):
    """A group of latents and the residual block that works them in.

    Attributes:
      width: channels of the level.
      hidden: those inside a residual branch.
      latent: channels of the group.
      spread: what makes a standard deviation of a number: softplus | exp.
    """

    width: int
    hidden: int
    latent: int
    taps: int
    gain: float
    spread: str
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Maps, step: FromPosterior | FromPrior, keys: Keys | None, dropout: Keys | None
    ) -> tuple[Maps, Group]:
        """Returns the features for the next block and what became of the group.

        Args:
          x: features from above.
          step: what to do with the group.
          keys: keys of the posterior's noise; without them its mean is taken.
          dropout: key of the channels that are left out, if any are: only with a picture.
        """
        if dropout is not None and isinstance(step, FromPosterior):
            dropout = fold_in(dropout, _DECODER_DROPOUT + step.group)

        def bottleneck(name: str) -> Bottleneck:
            return Bottleneck(self.hidden, self.taps, self.dropout, self.dtype, name=name)

        features = bottleneck("prior")(x)
        prior = self._gaussian(features, "prior_gaussian")
        if isinstance(step, FromPosterior):
            seen = jnp.concatenate([x, step.skip], axis=-1)
            posterior = self._gaussian(bottleneck("posterior")(seen), "posterior_gaussian")
            noise = jnp.zeros_like(prior.mean)
            if keys is not None:
                noise = normal(fold_in(keys, step.group), prior.mean.shape[1:])
            group = _sampled(posterior, prior, noise)
        else:
            z = jnp.where(step.keep, step.z, prior.mean + prior.std * step.noise)
            nothing = jnp.zeros(x.shape[0], jnp.float32)
            group = Group(z, prior.std, (z - prior.mean) / prior.std, nothing, nothing)
        x = x + Conv1x1(self.width, self.dtype, self.gain, name="residual")(features)
        x = x + Conv1x1(self.width, self.dtype, self.gain, name="latents")(group.z)
        branch = bottleneck("out")(x, dropout)
        return x + Conv1x1(self.width, self.dtype, self.gain)(branch), group

    def _gaussian(self, features: Maps, name: str) -> Gaussian:
        """Mean and standard deviation, 1 at the start; float32, whatever the features are."""
        values = Conv1x1(2 * self.latent, jnp.dtype("float32"), 0.1, name=name)(features)
        mean, raw = jnp.split(values, 2, axis=-1)
        std = jnp.exp(raw) if self.spread == "exp" else _softplus(raw)
        return Gaussian(mean, std + _LEAST_STD)


def _softplus(x: Maps) -> Maps:
    """log(1 + 2^x) / log 2: 1 at 0, and x for large x (Hazami et al. 2022, section 4)."""
    return jax.nn.softplus(math.log(2.0) * x) / math.log(2.0)


def _sampled(posterior: Gaussian, prior: Gaussian, noise: Maps) -> Group:
    z = posterior.mean + posterior.std * noise
    ratio = posterior.std / prior.std
    away = (posterior.mean - prior.mean) / prior.std
    as_prior = (z - prior.mean) / prior.std
    log_ratio = jnp.log(ratio)
    kl = 0.5 * (ratio**2 + away**2 - 1.0) - log_ratio
    at_sample = 0.5 * (as_prior**2 - noise**2) - log_ratio
    total = [jnp.sum(values, axis=(1, 2, 3)) for values in (kl, at_sample)]
    return Group(z, posterior.std, as_prior, *total)

"""The blocks of a ladder's encoder and decoder; each decoder block has one group of latents."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from vaejax.models.blocks import Conv1x1, Conv3x3, Maps, OtherMaps, activation
from vaejax.models.noise import Keys, fold_in, normal

# Folded into a picture's key, plus a block's number, for its dropout. They are greater than the
# numbers of groups, which are folded in for the noise of the posterior.
_ENCODER_DROPOUT, _DECODER_DROPOUT = 2**30, 2**30 + 2**20
# The smallest standard deviation. A softplus can come arbitrarily close to zero; with this floor
# the ratio of posterior and prior standard deviations stays in the range of float32.
_LEAST_STD = 1e-3


class Gaussian(NamedTuple):
    """The diagonal Gaussian of one group of latents; mean and standard deviation are float32."""

    mean: Maps
    std: Maps


class FromPosterior(NamedTuple):
    """The input with which a decoder block samples its group from the posterior.

    Attributes:
      skip: features of the encoder block that belongs to this decoder block.
      group: number of the group, from the top.
    """

    skip: Maps
    group: Int[Array, ""]


class FromPrior(NamedTuple):
    """The input with which a decoder block uses given latents or samples them from the prior.

    Attributes:
      z: latents that are used if `keep` is true.
      keep: a boolean scalar; if false, the latents are mean + std * noise of the prior.
      noise: noise for the prior, standard normal at temperature 1.
    """

    z: Maps
    keep: Array
    noise: Maps


class Group(NamedTuple):
    """The outputs of a decoder block for its group.

    Attributes:
      z: the group's latents.
      std: standard deviation of the posterior from which they were drawn, or of the prior.
      noise: (z - mean) / std under the prior, the noise from which the prior would make z.
      kl, log_ratio: as in `Inference`, summed over the group, in nats; zero without a posterior.
    """

    z: Maps
    std: Maps
    noise: Maps
    kl: Float[Array, "batch"]
    log_ratio: Float[Array, "batch"]


class Bottleneck(nn.Module):
    """The inside of a residual branch: a 1 x 1 convolution to few channels, then two convolutions.

    Attributes:
      width: channels of all three.
      taps: kernel size of the last two: 3, or 1 where the maps are too small for neighbours to
        matter.
      dropout: probability with which a channel is dropped, in [0, 1).
      dtype: dtype of the activations.
    """

    width: int
    taps: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps, keys: Keys | None = None) -> OtherMaps:
        """Returns activated features [batch, height, width, self.width].

        Args:
          x: features.
          keys: one key for each picture, for the dropout of whole channels; None drops nothing.
        """
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
    """A residual block whose output also goes to the decoder.

    Attributes:
      width: channels of the level.
      hidden: channels inside the residual branch.
      taps: kernel size, see `Bottleneck`.
      gain: factor of the initial weights that end the residual branch.
      dropout: probability with which a channel of the residual branch is dropped.
      dtype: dtype of the activations.
    """

    width: int
    hidden: int
    taps: int
    gain: float
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps, block: Int[Array, ""], dropout: Keys | None) -> tuple[Maps, Maps]:
        """Returns the output twice, for the next block and for the decoder, as `nn.scan` needs it.

        Args:
          x: features [batch, height, width, self.width].
          block: number of the block from the bottom, which makes its dropout differ from others'.
          dropout: one key for each picture; None drops nothing.
        """
        if dropout is not None:
            dropout = fold_in(dropout, _ENCODER_DROPOUT + block)
        branch = Bottleneck(self.hidden, self.taps, self.dropout, self.dtype)(x, dropout)
        x = x + Conv1x1(self.width, self.dtype, self.gain)(branch)
        return x, x


class DecoderBlock(nn.Module):
    """A group of latents, and a residual block that adds them to the features.

    Attributes:
      width: channels of the level.
      hidden: channels inside each residual branch.
      latent: channels of the group.
      taps: kernel size, see `Bottleneck`.
      gain: factor of the initial weights that end each residual branch.
      spread: the function that maps network outputs to standard deviations, softplus | exp.
      dropout: probability with which a channel of the last residual branch is dropped.
      dtype: dtype of the activations; the Gaussians are float32.
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
        """Returns the features for the next block and the group's outputs.

        Args:
          x: features of the block above, [batch, height, width, self.width].
          step: whether the latents come from the posterior, from the prior or are given.
          keys: one key for each picture, for the posterior's noise; None takes the posterior mean.
          dropout: one key for each picture; None drops nothing. Only with `FromPosterior`.
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
        """A Gaussian with a standard deviation of about 1 at initialisation, always in float32."""
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

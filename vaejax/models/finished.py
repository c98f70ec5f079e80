"""A VAE whose pictures are refined: what the finish trains, and what draws pictures after it."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from vaejax.config import Config
from vaejax.likelihoods import Likelihood, Pixels, build_likelihood
from vaejax.likelihoods.logistic import DiscretizedLogistic
from vaejax.models import build_model
from vaejax.models.blocks import Conv3x3, Maps, ResidualBlock, activation, depth_to_space, merged
from vaejax.models.noise import Keys

Images = UInt8[Array, "batch height width channel"]
# Channels and residual blocks of the refiner.
_WIDTH, _BLOCKS = 32, 1


class Refiner(nn.Module):
    """Adds to a picture what a residual network at half its resolution finds missing.

    A decoder's last layer draws squares of `patch` x `patch` pixels, each from its own features;
    trained against a discriminator alone, it leaves a pattern of that period. Before training the
    refiner changes nothing.

    Attributes:
      width: channels.
      blocks: number of residual blocks.
      dtype: dtype of the activations; parameters are float32.
    """

    width: int
    blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pictures: Maps) -> Maps:
        """Returns refined pictures, float32, on the same scale."""
        _, height, width, channels = pictures.shape
        h = Conv3x3(self.width, self.dtype)(merged(pictures, 2))
        for _ in range(self.blocks):
            h = ResidualBlock(self.dtype)(h)
        h = Conv3x3(4 * channels, self.dtype, nn.initializers.zeros)(activation(h))
        change = depth_to_space(h, 2)[:, :height, :width]
        return pictures + change.astype(jnp.float32)


class FinishedVAE(nn.Module):
    """A VAE with a refiner behind it, with those methods of a VAE that need no likelihood.

    Its pictures are `Pixels`, whose location is the refined mean of p(x|z).

    Attributes:
      vae: the VAE, such as `VAE` or `Ladder`.
      likelihood: p(x|z).
      refiner: refines the mean of p(x|z).
    """

    vae: nn.Module
    likelihood: Likelihood
    refiner: nn.Module

    def _refined(self, pixels: Any) -> Pixels:
        mean, _ = self.likelihood.moments(pixels)
        return Pixels(self.refiner(mean), jnp.zeros((1, 1, 1, 1)))

    def decode(self, z: PyTree) -> Pixels:
        """Decodes latents, and refines."""
        return self._refined(self.vae.decode(z))

    def generate(self, noise: PyTree) -> Pixels:
        """Maps noise to latents with the model's own prior, decodes them, and refines."""
        return self._refined(self.vae.generate(noise))

    def reconstruct(self, images: Images) -> Pixels:
        """Decodes the posterior means, and refines."""
        return self._refined(self.vae.reconstruct(images))

    def redraw(
        self, z: PyTree, keep: Bool[Array, "group"], noise: PyTree
    ) -> tuple[Pixels, PyTree, Any]:
        """Does the same as `Ladder.redraw`, and refines."""
        pixels, *others = self.vae.redraw(z, keep, noise)
        return (self._refined(pixels), *others)

    def posterior(self, images: Images, keys: Keys | None = None) -> tuple[PyTree, PyTree]:
        """Returns latents from q(z|x), and the standard deviations of q(z|x)."""
        return self.vae.posterior(images, keys)

    def noise(self, keys: Keys, temperature: float | Float[Array, "*group"] = 1.0) -> PyTree:
        """Draws noise for the model's own prior."""
        return self.vae.noise(keys, temperature)

    def from_noise(self, noise: PyTree) -> PyTree:
        """Maps noise to latents with the model's own prior."""
        return self.vae.from_noise(noise)

    def to_noise(self, z: PyTree) -> PyTree:
        """Maps latents to noise; the inverse of `from_noise`."""
        return self.vae.to_noise(z)

    def __call__(self, images: Images) -> None:
        """Uses every parameter once, so that `init` creates it; not meant for any other use."""
        self.vae(images)
        self.reconstruct(images)


def picture_model(
    config: Config, *, finished: bool, dtype: str | None = None
) -> tuple[nn.Module, Likelihood]:
    """Returns the module that draws pictures, and the likelihood whose mean they are.

    Args:
      config: config of the run.
      finished: whether pictures are those of a finished decoder: the module is then a
        `FinishedVAE`, and its parameters are those that `finished_params` returns.
      dtype: dtype of the activations; None means `config.model.dtype`.
    """
    vae, likelihood = build_model(config, dtype), build_likelihood(config)
    if not finished:
        return vae, likelihood
    refiner = Refiner(_WIDTH, _BLOCKS, jnp.dtype(dtype or config.model.dtype))
    return FinishedVAE(vae, likelihood, refiner), DiscretizedLogistic()


def finished_params(params: PyTree, decoder: PyTree) -> dict[str, PyTree]:
    """Returns the parameters of a `FinishedVAE`.

    Args:
      params: parameters of the VAE.
      decoder: `vae`, the modules of the VAE that the finish has trained on, if any, and `refiner`.
    """
    return {"vae": {**params, **decoder.get("vae", {})}, "refiner": decoder["refiner"]}

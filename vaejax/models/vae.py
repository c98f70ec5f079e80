"""The VAE: an encoder, a decoder with its pixel scales, and a prior, as one set of parameters."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from vaejax import objectives
from vaejax.likelihoods import MixturePixels, Pixels, to_unit
from vaejax.models.inference import Codes, Inference
from vaejax.models.noise import PRIOR, Keys, fold_in, normal
from vaejax.priors import StandardNormal


class VAE(nn.Module):
    """q(z|x), p(x|z) and p(z) of one flat vector z.

    Attributes:
      encoder: pictures to (mean, log_std).
      decoder: codes to a map of values for each pixel.
      head: that map to the likelihood's pixels.
      prior: with `log_prob(z)`, `to_noise(z)` and its inverse `from_noise(noise)`.
    """

    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module
    prior: nn.Module

    def factors(self) -> tuple[int, ...]:
        """Latent dimensions in each column of `Inference.kl`.

        A factor is one dimension under N(0, I) and all of them under a learned prior.
        """
        size = self.code_size()
        return (1,) * size if isinstance(self.prior, StandardNormal) else (size,)

    def resolutions(self) -> tuple[str, ...]:
        """A flat z has none."""
        return ()

    def code_size(self) -> int:
        """Dimensions of z."""
        return self.encoder.latent_size

    def encode(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Mean and log standard deviation of q(z|x)."""
        return self.encoder(to_unit(images))

    def decode(self, z: Float[Array, "batch latent"]) -> Pixels | MixturePixels:
        """The distribution of every pixel given `z`."""
        return self.head(self.decoder(z))

    def features(
        self, images: UInt8[Array, "batch height width channel"], dropout: Keys | None = None
    ) -> Codes:
        """What `infer` takes of the pictures: q(z|x). Nothing is ever dropped."""
        return Codes(*self.encode(images))

    def infer(
        self,
        features: Codes,
        keys: Keys,
        *,
        dropout: Keys | None = None,
        log_prior: Callable[[Array], Array] | None = None,
    ) -> Inference:
        """Samples z ~ q(z|x) and decodes it.

        Under N(0, I) the KL is in closed form; under any other prior the entropy of q is, and
        log p(z) is taken at the sample.

        Args:
          features: features of the pictures.
          keys: one for each of them.
          dropout: nothing is ever dropped.
          log_prior: log p(z) in place of the model's own prior.
        """
        mean, log_std = features
        z = objectives.reparameterize(mean, log_std, normal(keys, mean.shape[1:]))
        at_z = self.log_prior(z) if log_prior is None else log_prior(z)
        if log_prior is None and isinstance(self.prior, StandardNormal):
            kl = objectives.standard_kl(mean, log_std)
        else:
            kl = (-objectives.gaussian_entropy(log_std) - at_z)[:, None]
        log_ratio = objectives.gaussian_log_prob(z, mean, log_std) - at_z
        return Inference(kl, log_ratio, self.decode(z), features)

    def posterior(
        self, images: UInt8[Array, "batch height width channel"], keys: Keys | None = None
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Codes, and the standard deviations of the posteriors that they are of.

        Args:
          images: the pictures.
          keys: keys of samples; without them the codes are the posteriors' means.
        """
        mean, log_std = self.encode(images)
        z = mean
        if keys is not None:
            z = objectives.reparameterize(mean, log_std, normal(keys, mean.shape[1:]))
        return z, jnp.exp(log_std)

    def reconstruct(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> Pixels | MixturePixels:
        """The pixels at the posterior mean of each picture."""
        return self.decode(self.encode(images)[0])

    def log_prior(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """log p(z) in nats."""
        return self.prior.log_prob(z)

    def noise(
        self, keys: Keys, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "batch latent"]:
        """Noise for each picture; `temperature` is its standard deviation."""
        return temperature * normal(fold_in(keys, PRIOR), (self.code_size(),))

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """The codes that the prior makes of noise."""
        return self.prior.from_noise(noise)

    def to_noise(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """The inverse of `from_noise`."""
        return self.prior.to_noise(z)

    def generate(self, noise: Float[Array, "batch latent"]) -> Pixels | MixturePixels:
        """The pixels that `decode` makes of what the prior makes of noise."""
        return self.decode(self.from_noise(noise))

    def __call__(self, images: UInt8[Array, "batch height width channel"]) -> None:
        """Touches every parameter once; only for initialisation."""
        mean, _ = self.encode(images)
        self.log_prior(mean)
        self.decode(mean)

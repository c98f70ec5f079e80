"""The VAE: encoder, decoder, likelihood head and prior in one module."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from vaejax import objectives
from vaejax.likelihoods import MixturePixels, Pixels, to_unit
from vaejax.models.inference import Codes, Inference
from vaejax.models.noise import LATENT_NOISE, PRIOR, Keys, fold_in, normal, uniform
from vaejax.priors import StandardNormal


class VAE(nn.Module):
    """A VAE whose latents are one array z, a vector or a map (Kingma and Welling 2014).

    Codes z are flat in any case, [batch, latent], a map's row by row.

    Attributes:
      encoder: maps pictures on the scale of `likelihoods.to_unit` to (mean, log_std) of q(z|x).
      decoder: maps codes z to values for each pixel, [batch, height, width, value].
      head: maps these values to the parameters of p(x|z), `Pixels` or `MixturePixels`.
      prior: p(z), with `log_prob(z)`, `to_noise(z)` and its inverse `from_noise(noise)`.
      latent_shape: the shape of z before it is made flat: (dimensions,) of a vector, or (rows,
        columns, channels) of a map.
    """

    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module
    prior: nn.Module
    latent_shape: tuple[int, ...]

    def factors(self) -> tuple[int, ...]:
        """The number of latent dimensions in each column (factor) of `Inference.kl`.

        Under N(0, I) each dimension of a vector or channel of a map is a factor; under a learned
        prior all dimensions are one.
        """
        *positions, channels = self.latent_shape
        if isinstance(self.prior, StandardNormal):
            return (math.prod(positions),) * channels
        return (math.prod(self.latent_shape),)

    def resolutions(self) -> tuple[str, ...]:
        """An empty tuple: one array z has no resolutions."""
        return ()

    def code_shape(self) -> tuple[int, ...]:
        """The shape of z, `latent_shape`."""
        return self.latent_shape

    def encode(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Returns the mean and the log standard deviation of q(z|x)."""
        return self.encoder(to_unit(images))

    def decode(self, z: Float[Array, "batch latent"]) -> Pixels | MixturePixels:
        """Returns the parameters of p(x|z) for every pixel."""
        return self.head(self.decoder(z))

    def features(
        self, images: UInt8[Array, "batch height width channel"], dropout: Keys | None = None
    ) -> Codes:
        """Returns q(z|x), the input of `infer`; `dropout` is ignored, as this model has none."""
        return Codes(*self.encode(images))

    def infer(
        self,
        features: Codes,
        keys: Keys,
        *,
        dropout: Keys | None = None,
        log_prior: Callable[[Array, Keys], Array] | None = None,
        latent_noise: float = 0.0,
    ) -> Inference:
        """Samples z ~ q(z|x) and decodes it.

        Under N(0, I) the KL is in closed form. Under any other prior only the entropy of q is in
        closed form, and log p(z) is evaluated at the sample.

        Args:
          features: q(z|x), as `features` returns it.
          keys: one key for each picture.
          dropout: ignored; this model has no dropout.
          log_prior: a function from z, and one key for each, to log p(z) in nats, which replaces
            the model's own prior.
          latent_noise: the decoder sees z + s * std * noise with s ~ U(0, latent_noise) for each
            picture, and std that of the codes of this batch, for each channel. The terms are then
            of a decoder that adds this noise itself: they bound log p(x) of that model, and not of
            the one that is evaluated. (The decoder of Zheng et al. 2025, arXiv 2510.11690, is
            trained so.)
        """
        mean, log_std = features
        z = objectives.reparameterize(mean, log_std, normal(keys, mean.shape[1:]))
        at_z = self.log_prior(z) if log_prior is None else log_prior(z, fold_in(keys, PRIOR))
        if log_prior is None and isinstance(self.prior, StandardNormal):
            kl = self._shaped(objectives.standard_kl(mean, log_std))
            kl = jnp.sum(kl, axis=tuple(range(1, kl.ndim - 1)))
        else:
            kl = (-objectives.gaussian_entropy(log_std) - at_z)[:, None]
        log_ratio = objectives.gaussian_log_prob(z, mean, log_std) - at_z
        if latent_noise:
            std = objectives.code_std(*map(self._shaped, features))
            z = z + _latent_noise(keys, latent_noise, std, self.latent_shape)
        codes = Codes(self._shaped(mean), self._shaped(log_std))
        return Inference(kl, log_ratio, self.decode(z), codes)

    def posterior(
        self, images: UInt8[Array, "batch height width channel"], keys: Keys | None = None
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Returns codes z from q(z|x), and the standard deviations of q(z|x).

        Args:
          images: the pictures.
          keys: one key for each picture, to sample its code; None returns the posterior means.
        """
        mean, log_std = self.encode(images)
        z = mean
        if keys is not None:
            z = objectives.reparameterize(mean, log_std, normal(keys, mean.shape[1:]))
        return z, jnp.exp(log_std)

    def reconstruct(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> Pixels | MixturePixels:
        """Returns the parameters of p(x|z) at the posterior mean of each picture."""
        return self.decode(self.encode(images)[0])

    def log_prior(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Returns log p(z) in nats."""
        return self.prior.log_prob(z)

    def noise(
        self, keys: Keys, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "batch latent"]:
        """Draws N(0, temperature² I) noise for the prior, one vector for each key."""
        return temperature * normal(fold_in(keys, PRIOR), (math.prod(self.latent_shape),))

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps noise to codes with the prior."""
        return self.prior.from_noise(noise)

    def to_noise(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps codes to noise; the inverse of `from_noise`."""
        return self.prior.to_noise(z)

    def generate(self, noise: Float[Array, "batch latent"]) -> Pixels | MixturePixels:
        """Maps noise to codes with the prior and decodes them."""
        return self.decode(self.from_noise(noise))

    def _shaped(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch *shape"]:
        return z.reshape(len(z), *self.latent_shape)

    def __call__(self, images: UInt8[Array, "batch height width channel"]) -> None:
        """Uses every parameter once, so that `init` creates it; not meant for any other use."""
        mean, _ = self.encode(images)
        self.log_prior(mean)
        self.decode(mean)


def _latent_noise(
    keys: Keys, most: float, std: Float[Array, "channel"], shape: tuple[int, ...]
) -> Float[Array, "batch latent"]:
    """Noise whose standard deviation is `std` times a share of each picture, U(0, most)."""
    share = most * uniform(fold_in(keys, LATENT_NOISE))
    noise = normal(fold_in(keys, LATENT_NOISE + 1), shape) * std.reshape(*[1] * len(shape), -1)
    return share[:, None] * noise.reshape(len(keys), -1)

"""The losses of decoder and discriminator, and sums for their metrics."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from vaejax.config import FinishConfig
from vaejax.likelihoods import Images, to_unit
from vaejax.metrics.frechet import thumbnail_features
from vaejax.models.discriminator import Discriminator, Judgement
from vaejax.models.finished import FinishedVAE
from vaejax.models.noise import Keys
from vaejax.objectives.adversarial import discriminator_loss, generator_loss, gradient_penalty
from vaejax.tasks.vae import functions

Sum = Float[Array | np.ndarray, ""]
Unit = Float[Array, "batch height width channel"]


class Seen(NamedTuple):
    """What the discriminator sees of a batch; pictures are on the scale of `to_unit`.

    Attributes:
      real: the pictures of the batch.
      reconstructions: one decoded sample of q(z|x) for each picture.
      samples: as many decoded samples of the prior.
    """

    real: Unit
    reconstructions: Unit
    samples: Unit

    def generated(self) -> Float[Array, "twice height width channel"]:
        """Returns the reconstructions, and the samples after them."""
        return jnp.concatenate([self.reconstructions, self.samples])


class DecoderSums(NamedTuple):
    """Sums over the pictures of updates, from which the metrics of the decoder are computed.

    Attributes:
      pictures: number of pictures.
      pixels: mean absolute error of the reconstructions, in grey levels.
      features: distance of the discriminator's features of pictures and reconstructions.
      adversarial: adversarial loss, nats.
      real, real_squared: 8x8 thumbnails of real pictures, 0..1, and their squares.
      sampled, sampled_squared: those of samples.
    """

    pictures: Sum
    pixels: Sum
    features: Sum
    adversarial: Sum
    real: Float[Array | np.ndarray, "value"]
    real_squared: Float[Array | np.ndarray, "value"]
    sampled: Float[Array | np.ndarray, "value"]
    sampled_squared: Float[Array | np.ndarray, "value"]


class DiscriminatorSums(NamedTuple):
    """Sums over the pictures of updates, from which those of the discriminator are computed.

    Attributes:
      pictures: number of real pictures.
      loss: cross-entropy of real and generated pictures, nats.
      right_of_real: number of real pictures whose logit is positive.
      right_of_reconstructions, right_of_samples: number of those whose logit is negative.
    """

    pictures: Sum
    loss: Sum
    right_of_real: Sum
    right_of_reconstructions: Sum
    right_of_samples: Sum


def seen(
    model: FinishedVAE, vae: PyTree, params: PyTree, images: Images, fresh: PyTree, keys: Keys
) -> Seen:
    """Decodes samples of the posterior, and samples of a prior.

    Args:
      model: the finished VAE.
      vae: parameters of the VAE as it was trained, which encode, and sample its own prior.
      params: parameters of the finished VAE, which decode.
      images: the pictures.
      fresh: as many samples of a prior; None for the model's own.
      keys: one key for each picture.
    """
    codes, _ = functions.posterior(model.vae, vae, images, keys)
    if fresh is None:
        fresh = functions.sample_latents(model.vae, vae, keys, 1.0)
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), codes, fresh)
    pixels: Any = model.apply({"params": params}, jax.lax.stop_gradient(both), method="decode")
    count = len(images)
    real = to_unit(images, model.likelihood.bits)
    return Seen(real, pixels.location[:count], pixels.location[count:])


def decoder_loss(
    settings: FinishConfig, network: Discriminator, judge: PyTree, shown: Seen
) -> tuple[Float[Array, ""], DecoderSums]:
    """Computes the decoder's loss: pixels, the discriminator's features, and its logits.

    Args:
      settings: the weights of the terms.
      network: the discriminator.
      judge: parameters of the discriminator.
      shown: the pictures.
    """
    real = jax.lax.stop_gradient(_judged(network, judge, shown.real))
    fake = _judged(network, judge, shown.generated())
    pixels = jnp.mean(jnp.abs(shown.real - shown.reconstructions))
    count = len(shown.real)
    distances = [
        jnp.mean(jnp.abs(ours[:count].astype(jnp.float32) - theirs.astype(jnp.float32)))
        for ours, theirs in zip(fake.features, real.features)
    ]
    features = jnp.sum(jnp.stack(distances))
    adversarial = generator_loss(fake.patches) + generator_loss(fake.whole)
    loss = pixels + settings.features * features + settings.adversarial * adversarial
    thumbnails, sampled = (
        thumbnail_features(127.5 * (jnp.clip(some, -1.0, 1.0) + 1.0))
        for some in (shown.real, shown.samples)
    )
    sums = DecoderSums(
        jnp.float32(count),
        127.5 * pixels * count,
        features * count,
        adversarial * count,
        *(jnp.sum(power, axis=0) for power in (thumbnails, thumbnails**2, sampled, sampled**2)),
    )
    return loss, jax.lax.stop_gradient(sums)


def judge_loss(
    settings: FinishConfig, network: Discriminator, judge: PyTree, shown: Seen, penalized: Array
) -> tuple[Float[Array, ""], DiscriminatorSums]:
    """Computes the discriminator's loss: cross-entropy of patches and pictures, and the penalty.

    Args:
      settings: the weight of the penalty.
      network: the discriminator.
      judge: parameters of the discriminator.
      shown: the pictures.
      penalized: whether this update computes the penalty.
    """
    shown = jax.lax.stop_gradient(shown)
    real, fake = (_judged(network, judge, some) for some in (shown.real, shown.generated()))
    entropy = discriminator_loss(real.patches, fake.patches)
    entropy += discriminator_loss(real.whole, fake.whole)

    def penalty() -> Float[Array, ""]:
        def logits(pictures: Unit) -> Float[Array, "batch"]:
            return _judged(network, judge, pictures).logits()

        return gradient_penalty(logits, shown.real)

    weight = settings.penalty * settings.penalty_every
    loss = entropy + weight * jax.lax.cond(penalized, penalty, lambda: jnp.zeros(()))
    count = len(shown.real)
    right = (fake.logits() < 0).astype(jnp.float32)
    sums = DiscriminatorSums(
        jnp.float32(count),
        entropy * count,
        jnp.sum(real.logits() > 0, dtype=jnp.float32),
        jnp.sum(right[:count]),
        jnp.sum(right[count:]),
    )
    return loss, jax.lax.stop_gradient(sums)


def _judged(network: Discriminator, judge: PyTree, pictures: Array) -> Judgement:
    # Linen declares that `apply` may return a pair, which it does only for `mutable` variables.
    judged: Any = network.apply({"params": judge}, pictures)
    return judged

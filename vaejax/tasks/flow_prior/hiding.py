"""Hides labels from a flow at random, so that it learns to do without them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.models.noise import Keys
from vaejax.priors.label_embedding import Condition


def with_hidden(keys: Keys, labels: Float[Array, "batch label"], dropout: float) -> Condition:
    """Returns conditions on labels of which some are hidden at random, for training.

    All labels of a code are hidden with probability `dropout`, so that the flow without a condition
    is learned too (Ho and Salimans, "Classifier-free diffusion guidance", 2022). In half of the
    other codes each label is hidden independently, with a probability that is itself uniform in
    [0, 1] for each code: any number of known labels is then equally frequent there, and a user may
    give any of them.

    Args:
      keys: one key for each code.
      labels: scaled values.
      dropout: probability that all are hidden.
    """

    def is_known(key: Array) -> Array:
        all_hidden, some_hidden, share, each = jax.random.split(key, 4)
        # Zero where no label is hidden on its own, as no uniform number is below zero.
        chance = jnp.where(jax.random.bernoulli(some_hidden), jax.random.uniform(share), 0.0)
        kept = jax.random.uniform(each, labels.shape[1:]) >= chance
        return kept & ~jax.random.bernoulli(all_hidden, dropout)

    known = jax.vmap(is_known)(keys)[..., None].astype(jnp.float32)
    return jnp.stack([labels, jnp.ones_like(labels)], axis=-1) * known

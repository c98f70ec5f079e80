"""Networks, and the one function that builds a model from a config."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import PRNGKeyArray

from vaejax.config import Config
from vaejax.models.conv import ConvDecoder, ConvEncoder
from vaejax.models.heads import MixtureHead, PixelHead
from vaejax.models.inference import Codes, Inference
from vaejax.models.ladder import Ladder
from vaejax.models.latent_levels import Levels
from vaejax.models.vae import VAE
from vaejax.priors import build_prior

__all__ = ["EXACT", "VAE", "Codes", "Inference", "Ladder", "build_model", "init_params"]


# What is measured or shown of a trained model is computed in it, whatever training computes in.
EXACT = "float32"
# The least features of a pixel that its mixture is a linear map of.
LEAST_FEATURES = 16


def build_model(config: Config, dtype: str | None = None) -> VAE | Ladder:
    """The model that `config` describes, without parameters.

    Args:
      config: of the run.
      dtype: of the activations; None takes the config's, in which it is trained.
    """
    model, data = config.model, config.data
    activations = jnp.dtype(dtype or model.dtype)
    head: MixtureHead | PixelHead
    if config.likelihood.name == "mixture":
        # Between what a position's width has for each of its pixels, width / patch^2, and the width
        # itself, with which this map would be the largest of all.
        features = max(LEAST_FEATURES, model.widths[0] // model.patch)
        head = MixtureHead(data.channels, config.likelihood.components, features)
    else:
        head = PixelHead(data.channels, config.likelihood.scale, config.likelihood.fixed_scale)
    if model.has_groups:
        own: dict[str, Any] = dataclasses.asdict(config.ladder)
        own["hidden"] = config.ladder.hidden or tuple(-(-w // 2) for w in model.widths)
        levels = Levels(data.shape, model.patch, model.blocks, own.pop("latent"))
        return Ladder(levels, model.widths, head=head, dtype=activations, **own)
    shape: dict[str, Any] = {
        "widths": model.widths,
        "blocks": model.blocks,
        "patch": model.patch,
        "dtype": activations,
    }
    return VAE(
        encoder=ConvEncoder(latent_size=model.latent_size, **shape),
        decoder=ConvDecoder(image_shape=(*data.image_size, head.inputs()), **shape),
        head=head,
        prior=build_prior(
            config.prior.name, model.latent_size, config.prior.layers, config.prior.width
        ),
    )


def init_params(model: nn.Module, config: Config, key: PRNGKeyArray) -> dict:
    """Fresh parameters, float32."""
    images = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.uint8)
    return model.lazy_init(key, images)["params"]

"""The networks, and `build_model`, which builds a model from a config."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import PRNGKeyArray

from vaejax.config import (
    AttributesConfig,
    Config,
    ConvConfig,
    LadderConfig,
    LocationScaleConfig,
    MixtureConfig,
    SpatialConfig,
)
from vaejax.errors import UserError
from vaejax.models.conv import ConvDecoder, ConvEncoder
from vaejax.models.heads import MixtureHead, PixelHead
from vaejax.models.inference import Codes, Inference
from vaejax.models.ladder import Ladder
from vaejax.models.latent_levels import Levels
from vaejax.models.spatial import SpatialDecoder, SpatialEncoder
from vaejax.models.vae import VAE
from vaejax.priors import build_prior

__all__ = ["EXACT", "VAE", "Codes", "Inference", "Ladder", "build_model", "init_params"]


# The dtype of the activations of a trained model when it is evaluated or sampled, whatever dtype
# training used.
EXACT = "float32"


def build_model(config: Config, dtype: str | None = None) -> VAE | Ladder:
    """Builds the Linen module that `config` describes, without parameters.

    Args:
      config: config of the run; `data`, `model`, `likelihood` and `prior` are read.
      dtype: dtype of the activations, such as `float32`; None means `config.model.dtype`, the
        dtype of training.

    Raises:
      UserError: the model is no VAE.
    """
    data, head = config.data, _build_head(config)
    activations = jnp.dtype(dtype or config.model.dtype)
    encoder: nn.Module
    decoder: nn.Module
    match config.model:
        case LadderConfig() as model:
            return Ladder(
                Levels(data.shape, model.patch, model.blocks, model.latent),
                model.widths,
                hidden=model.hidden or tuple(-(-width // 2) for width in model.widths),
                spread=model.spread,
                skips=model.skips,
                dropout=model.dropout,
                scan=model.scan,
                remat=model.remat,
                head=head,
                dtype=activations,
            )
        case ConvConfig() as model:
            shape = (model.widths, model.blocks, model.patch, activations)
            encoder = ConvEncoder(model.latent_size, *shape)
            decoder = ConvDecoder((*data.image_size, head.inputs()), *shape)
        case SpatialConfig() as model:
            shape = (model.widths, model.blocks, model.patch, activations)
            encoder = SpatialEncoder(model.latent, *shape)
            latents = model.latent_shape(data.image_size)
            decoder = SpatialDecoder(latents, (*data.image_size, head.inputs()), *shape)
        case AttributesConfig() as model:
            raise UserError(
                f"config.model.name={model.name} is no VAE; begin with the config file of a VAE, "
                "such as configs/celeba.py"
            )
    prior = build_prior(config.prior, math.prod(config.latent_shape))
    return VAE(encoder, decoder, head, prior, config.latent_shape)


def _build_head(config: Config) -> MixtureHead | PixelHead:
    likelihood, channels = config.likelihood, config.data.channels
    if isinstance(likelihood, MixtureConfig):
        return MixtureHead(channels, likelihood.components, config.model.pixel_features)
    if isinstance(likelihood, LocationScaleConfig):
        return PixelHead(channels, likelihood.scale, likelihood.fixed_scale)
    return PixelHead(channels, "fixed")


def init_params(model: nn.Module, config: Config, key: PRNGKeyArray) -> dict:
    """Initialises the parameters of `model`, float32.

    Args:
      model: what `build_model` returns.
      config: config of the run; it gives the shape of the pictures.
      key: key of the random initial weights.
    """
    images = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.uint8)
    return model.lazy_init(key, images)["params"]

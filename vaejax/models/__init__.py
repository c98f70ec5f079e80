"""Networks, and the one function that builds a model from a config."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from vaejax.config import Config
from vaejax.models.conv import ConvDecoder, ConvEncoder
from vaejax.models.heads import MixtureHead, PixelHead
from vaejax.models.inference import Codes, Inference
from vaejax.models.ladder import Ladder
from vaejax.models.levels import Levels
from vaejax.models.vae import VAE
from vaejax.priors import build_prior

__all__ = ["VAE", "Codes", "Inference", "Ladder", "build_model", "init_params"]


def build_model(config: Config) -> VAE | Ladder:
    """The model that `config` describes, without parameters."""
    model, data = config.model, config.data
    if config.likelihood.name == "mixture":
        head = MixtureHead(
            data.channels, config.likelihood.components, max(16, model.widths[0] // model.patch)
        )
    else:
        head = PixelHead(data.channels, config.likelihood.scale, config.likelihood.fixed_scale)
    if model.name == "ladder":
        own = dataclasses.asdict(config.ladder)
        own["hidden"] = config.ladder.hidden or tuple(-(-w // 2) for w in model.widths)
        levels = Levels(data.shape, model.patch, model.blocks, own.pop("latent"))
        return Ladder(levels, model.widths, head=head, dtype=jnp.dtype(model.dtype), **own)
    shape = {
        "widths": model.widths,
        "blocks": model.blocks,
        "patch": model.patch,
        "dtype": jnp.dtype(model.dtype),
    }
    return VAE(
        encoder=ConvEncoder(latent_size=model.latent_size, **shape),
        decoder=ConvDecoder(image_shape=(*data.image_size, head.inputs()), **shape),
        head=head,
        prior=build_prior(
            config.prior.name, model.latent_size, config.prior.layers, config.prior.width
        ),
    )


def init_params(model: VAE | Ladder, config: Config, key: PRNGKeyArray) -> dict:
    """Fresh parameters, float32."""
    images = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.uint8)
    return model.lazy_init(key, images)["params"]

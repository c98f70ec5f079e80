"""Networks, and the one function that builds a model from a config."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from vaejax.config import Config
from vaejax.models.conv import ConvDecoder, ConvEncoder
from vaejax.models.vae import VAE, PixelHead
from vaejax.priors import build_prior


def build_model(config: Config) -> VAE:
    """The VAE that `config` describes, without parameters."""
    model, data = config.model, config.data
    shape = {
        "widths": model.widths,
        "blocks": model.blocks,
        "patch": model.patch,
        "dtype": jnp.dtype(model.dtype),
    }
    values = data.channels * (2 if config.likelihood.scale == "predicted" else 1)
    return VAE(
        encoder=ConvEncoder(latent_size=model.latent_size, **shape),
        decoder=ConvDecoder(image_shape=(*data.image_size, values), **shape),
        head=PixelHead(config.likelihood.scale, config.likelihood.fixed_scale),
        prior=build_prior(
            config.prior.name, model.latent_size, config.prior.layers, config.prior.width
        ),
    )


def init_params(model: VAE, config: Config, key: PRNGKeyArray) -> dict:
    """Fresh parameters, float32."""
    height, width = config.data.image_size
    images = jax.ShapeDtypeStruct((1, height, width, config.data.channels), jnp.uint8)
    return model.lazy_init(key, images)["params"]

"""What a run learns (a VAE, a flow prior, a network of attributes), as tasks for the loop."""

from vaejax.config import Config
from vaejax.tasks.attributes import AttributeTask, attribute_task
from vaejax.tasks.vae import VAETask, vae_task


def build_task(config: Config) -> VAETask | AttributeTask:
    """Returns the task that `config` describes: a VAE, or a network of attributes."""
    return vae_task(config) if config.is_vae else attribute_task(config)

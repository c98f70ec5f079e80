"""What a run learns, a VAE or a flow prior, as tasks that the loop of `vaejax.training` trains."""

from vaejax.config import Config
from vaejax.tasks.vae import VAETask, vae_task


def build_task(config: Config) -> VAETask:
    """Returns the task that `config` describes: at present always a `VAETask`."""
    return vae_task(config)

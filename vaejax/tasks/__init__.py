"""What a run learns: a VAE, a flow prior. `vaejax.training` is the loop over any task."""

from vaejax.config import Config
from vaejax.tasks.vae import VAETask, vae_task


def build_task(config: Config) -> VAETask:
    """The task of a run."""
    return vae_task(config)

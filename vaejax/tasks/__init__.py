"""What a run learns, one folder for each task; `vaejax.training` is the loop over any of them."""

from vaejax.config import Config
from vaejax.tasks.vae import VAETask, vae_task


def build_task(config: Config) -> VAETask:
    """The task of a run."""
    return vae_task(config)

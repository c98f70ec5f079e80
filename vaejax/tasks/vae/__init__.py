"""A VAE trained by the evidence lower bound."""

from vaejax.tasks.vae.picture_metrics import ranking
from vaejax.tasks.vae.task import NET, VAETask, vae_task

__all__ = ["NET", "VAETask", "ranking", "vae_task"]

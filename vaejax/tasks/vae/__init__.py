"""A VAE trained by the evidence lower bound."""

from vaejax.tasks.vae.task import BEST_BY, NET, VAETask, vae_task

__all__ = ["BEST_BY", "NET", "VAETask", "vae_task"]

"""The finish: a trained VAE's decoder is trained on against a discriminator."""

from vaejax.tasks.finish.task import DECODER, FinishTask, finished

__all__ = ["DECODER", "FinishTask", "finished"]

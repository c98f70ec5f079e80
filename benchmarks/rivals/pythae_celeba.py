"""pythae's VAE for CelebA, as its users run it.

It has its own networks and trainer, with the settings of its repository's examples/scripts: latent
size 64, squared error, Adam at 1e-4, batches of --batch. Its networks take only 64 x 64 RGB.

By default it takes turns on noise pictures. With --minutes=M and --out=FILE it trains on the
config's pictures for M minutes and writes its reconstructions of the validation pictures to FILE.
"""

import logging
import sys
import tempfile
import time

import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from pythae.models.nn.benchmarks.celeba import Decoder_Conv_AE_CELEBA, Encoder_Conv_VAE_CELEBA
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from benchmarks.rivals import worker
from vaejax import data
from vaejax.data.cache.building import available_cores
from vaejax.errors import UserError

# Pictures that are reconstructed at once.
AT_ONCE = 100


class TakeTurns(TrainingCallback):
    """Trains only when it is this program's turn."""

    def __init__(self, turns: worker.Turns):
        self.turns = turns

    def on_train_step_end(self, training_config, **kwargs):
        """Waits for the next turn if this one is over; pythae calls it after each batch."""
        self.turns.step_done()


class TimeIsUp(Exception):
    """Raised to end the training when its minutes are over."""


class StopAfter(TrainingCallback):
    """Ends the training some minutes after its first batch began."""

    def __init__(self, minutes: float):
        self.seconds, self.start = 60 * minutes, None

    def on_train_step_begin(self, training_config, **kwargs):
        """Notes the time of the first call; pythae calls it before each epoch."""
        self.start = self.start or time.perf_counter()

    def on_train_step_end(self, training_config, **kwargs):
        """Raises TimeIsUp when the time is over; pythae calls it after each batch."""
        if time.perf_counter() - self.start > self.seconds:
            raise TimeIsUp


def train(images: np.ndarray, batch: int, callback: TrainingCallback, model: VAE) -> None:
    """Trains on uint8 pictures [picture, height, width, channel] until the callback ends it."""
    with tempfile.TemporaryDirectory() as directory:
        settings = BaseTrainerConfig(
            output_dir=directory,
            per_device_train_batch_size=batch,
            learning_rate=1e-4,
            num_epochs=10**6,
        )
        pipeline = TrainingPipeline(training_config=settings, model=model)
        pipeline(train_data=to_pythae(images), callbacks=[callback])


def to_pythae(images: np.ndarray) -> np.ndarray:
    """Converts uint8 [picture, height, width, channel] to float32 0..1, channels first."""
    return images.transpose(0, 3, 1, 2).astype(np.float32) / 255.0


@torch.no_grad()
def reconstructions(model: VAE, images: np.ndarray) -> dict[str, np.ndarray]:
    """Reconstructs uint8 pictures [picture, height, width, channel].

    Returns:
      Arrays by name, with a row for each picture:
      `mean`: decoded posterior means, float32 0..255, [picture, height, width, channel];
      `sample`: the same from one sample of each posterior;
      `kl`: the KL divergence of each posterior from N(0, I), nats, [picture].
    """
    model.to("cpu").eval()  # its trainer may have moved it
    rows = {"mean": [], "sample": [], "kl": []}
    for start in range(0, len(images), AT_ONCE):
        batch = torch.from_numpy(to_pythae(images[start : start + AT_ONCE]))
        code = model.encoder(batch)
        mean, log_variance = code.embedding, code.log_covariance
        sample = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
        decoded = (model.decoder(z).reconstruction for z in (mean, sample))
        pictures = (255.0 * image.permute(0, 2, 3, 1).numpy() for image in decoded)
        for name, values in zip(rows, (*pictures, kl.numpy())):
            rows[name].append(values)
    return {name: np.concatenate(values) for name, values in rows.items()}


def main() -> None:
    """Takes turns, or trains for some minutes."""
    config = worker.settings()
    if config.data.shape != (64, 64, 3):
        raise UserError("pythae takes 64 x 64 RGB; set config.data.image_size=(64, 64)")
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    torch.set_num_threads(available_cores())
    settings = VAEConfig(input_dim=(3, 64, 64), latent_dim=64, reconstruction_loss="mse")
    model = VAE(settings, Encoder_Conv_VAE_CELEBA(settings), Decoder_Conv_AE_CELEBA(settings))
    options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:])
    batch = int(options["batch"])
    if "minutes" not in options:
        parameters = sum(value.numel() for value in model.parameters())
        noise = np.random.default_rng(0).integers(0, 256, (10 * batch, 64, 64, 3), np.uint8)
        train(noise, batch, TakeTurns(worker.Turns(batch, parameters=parameters)), model)
        return
    splits = data.open_dataset(config.data).splits
    try:
        train(splits["train"].images, batch, StopAfter(float(options["minutes"])), model)
    except TimeIsUp:
        np.savez(options["out"], **reconstructions(model, splits["valid"].images))


if __name__ == "__main__":
    main()

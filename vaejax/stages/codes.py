"""The codes of a trained model's pictures, kept as files for the stages that train on them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vaejax.data import Dataset
from vaejax.data.cache.npy import NpyWriter
from vaejax.files.atomic import replacing
from vaejax.runtime.processes import Group
from vaejax.trained.model import TrainedModel


def saved_codes(
    trained: TrainedModel, dataset: Dataset, directory: Path, group: Group, seed: int
) -> dict[str, Float[np.ndarray, "picture latent"]]:
    """Returns one code z ~ q(z|x) of each picture, memory-mapped from disk.

    Process 0 writes the files that do not exist.

    Args:
      trained: the model, whose latents are one array.
      dataset: the pictures.
      directory: directory of the files.
      group: the processes that read them.
      seed: seed of the noise of the codes.

    Returns:
      The codes of `train`, of `valid` if there is such a split, and with `config.data.flip` of
      `mirrored`, the mirror images of the training pictures.
    """
    pictures: dict[str, np.ndarray] = {
        split: dataset.splits[split].images
        for split in ("train", "valid")
        if split in dataset.splits
    }
    if trained.config.data.flip:
        pictures["mirrored"] = pictures["train"][:, :, ::-1]
    files = {name: directory / f"codes_{name}_{trained.digest:08x}.npy" for name in pictures}
    with group.together():  # waits for process 0
        missing = [name for name, file in files.items() if not file.is_file()]
        for name in missing if group.index == 0 else ():
            directory.mkdir(parents=True, exist_ok=True)
            batches = trained.posterior_samples(pictures[name], seed=seed)
            _write(files[name], map(np.asarray, batches))
    return {name: np.load(file, mmap_mode="r") for name, file in files.items()}


def _write(file: Path, batches: Iterator[Float[np.ndarray, "batch latent"]]) -> None:
    """Writes codes batch by batch, so that memory need not hold them all."""
    first = next(batches)
    with (
        replacing(file) as temporary,
        NpyWriter(temporary, first.shape[1:], first.dtype) as writer,
    ):
        for codes in itertools.chain([first], batches):
            writer.append(codes)

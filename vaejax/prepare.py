"""Prepares the data before training: `python -m vaejax.prepare --config=configs/celeba.py`.

Decodes the pictures into the cache, and has TFDS prepare a set that is not prepared yet.
"""

from absl import flags
from ml_collections import config_flags

from vaejax import cli
from vaejax.paths import local_path
from vaejax.replacing import check_writable
from vaejax.settings import resolve

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")
PREVIEW = flags.DEFINE_string("preview", None, "Also write a sheet of training pictures, a PNG.")


def main() -> None:
    """Prepares, and says what there is."""
    config = resolve(CONFIG.value)
    preview = PREVIEW.value and local_path("--preview", PREVIEW.value)
    import numpy as np

    from vaejax import data, pictures
    from vaejax.data.subsets import random_rows
    from vaejax.progress import say

    if preview:
        check_writable(preview, "--preview")
    dataset = data.prepare(config.data)
    for name, split in dataset.splits.items():
        say(f"{name}: {len(split.images)} pictures {split.images.shape[1:]}")
    if preview:
        columns = config.eval.grid
        images = dataset.splits["train"].images
        images = np.asarray(images[random_rows(len(images), columns**2)])
        pictures.save(preview, pictures.grid(images, columns))
        say(f"preview: {preview}")


if __name__ == "__main__":
    cli.run(main, required=["config"])

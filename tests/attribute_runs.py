"""A small CelebA whose attributes can be seen, and the config of a network that learns them."""

import pathlib

import numpy as np
from commands import REPOSITORY
from picture_trees import ATTRIBUTES, encoded, write_celeba
from PIL import Image

from vaejax.config import Config
from vaejax.config.settings import resolve

COUNT = 96


def write_faces(root: pathlib.Path, count: int = COUNT) -> pathlib.Path:
    """Writes pictures in CelebA's layout; half are for training, a quarter each for the others.

    A red picture has every second attribute, from the first on, and another one none of these. No
    picture has the second attribute; the others are random.
    """
    random = np.random.default_rng(0)
    records = {}
    for number in range(1, count + 1):
        bits = random.integers(0, 2, len(ATTRIBUTES), np.uint8)
        bits[::2], bits[1] = bits[0], 0
        values = random.integers(80, 120, (218, 178, 3), np.uint8)
        values[..., 1:] //= np.uint8(4 if bits[0] else 1)
        content = encoded(Image.fromarray(values), "JPEG", quality=95)
        records[f"{number:06d}.jpg"] = (content, (0, 0, 1, 2)[number % 4], bits)
    return write_celeba(root, records)


def attribute_settings(root: pathlib.Path, **train: object) -> dict:
    """Returns the settings of a run of seconds on the pictures in `root`."""
    loop = {"steps": 24, "batch_size": 8, "log_every": 6, "eval_every": 12, "save_every": 6}
    return {
        "data": {
            "source": "celeba",
            "path": str(root),
            "cache_dir": str(root.parent / "cache"),
            "image_size": (16, 16),
            "crop": "stretch",
            "flip": False,
        },
        "model": {"name": "attributes", "widths": (8, 16), "blocks": (1, 0), "features": 8},
        "optimizer": {"warmup_steps": 0, "learning_rate": 0.02, "ema_decay": 0.5},
        "train": {**loop, **train},
        "eval": {"batch_size": 10, "grid": 4},
    }


def attribute_config(root: pathlib.Path, **train: object) -> Config:
    """Returns the config of `attribute_settings`."""
    return resolve(attribute_settings(root, **train))


def attribute_flags(root: pathlib.Path) -> list[str]:
    """Returns the flags that give a command the config `attribute_config(root)`."""
    return [
        f"--config={REPOSITORY / 'configs' / 'celeba_attributes.py'}",
        *(
            f"--config.{section}.{key}={value}"
            for section, values in attribute_settings(root).items()
            for key, value in values.items()
        ),
    ]

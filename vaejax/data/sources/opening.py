"""Opens the source that a config names."""

import pathlib
import stat

from vaejax.config import DataConfig
from vaejax.data.items import Source
from vaejax.data.sources.arrays import ArrayFile
from vaejax.data.sources.celeba import CelebA
from vaejax.data.sources.folder import Folder
from vaejax.errors import UserError

_FORMS = "synthetic, celeba, folder, array or tfds:NAME"


def open_source(config: DataConfig) -> Source:
    """Opens the source that the config names, without reading any picture.

    Raises:
      UserError: the source is unknown, or something it needs is missing.
    """
    if config.source == "synthetic":
        from vaejax.data.synthetic.source import Synthetic

        return Synthetic(config.synthetic_counts, config.image_size, config.split_seed)
    if config.source.startswith("tfds:"):
        # TensorFlow Datasets is an optional extra, and slow to import.
        from vaejax.data.sources.tfds import Tfds

        return Tfds(config.source.removeprefix("tfds:"), config.path)
    if config.source == "celeba":
        path = _existing(config, "the directory with img_align_celeba.zip")
        return CelebA(path, config.max_pixels)
    if config.source == "folder":
        return Folder(_existing(config, "a folder or zip of pictures"), config.max_pixels)
    if config.source == "array":
        return ArrayFile(_existing(config, "an .npz or .npy file"))
    raise UserError(f"config.data.source={config.source!r} is unknown: use {_FORMS}")


def _existing(config: DataConfig, wanted: str) -> pathlib.Path:
    if not config.path:
        raise UserError(
            f"config.data.path is empty, but config.data.source={config.source!r}"
            f" needs one: set it to {wanted}"
        )
    try:
        path = pathlib.Path(config.path).expanduser()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"config.data.path={config.path!r} does not exist: set it to {wanted}"
        ) from None
    # In this order: no permission, a link to itself or too long a name; no such user; a NUL.
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"config.data.path={config.path!r} cannot be read ({reason}): set it to {wanted}"
        ) from error
    if config.source == "celeba" and not stat.S_ISDIR(mode):
        raise UserError(f"config.data.path={config.path!r} is not a directory: set it to {wanted}")
    if config.source == "array" and not stat.S_ISREG(mode):
        raise UserError(f"config.data.path={config.path!r} is not a file: set it to {wanted}")
    return path

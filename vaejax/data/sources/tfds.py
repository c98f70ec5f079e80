"""Image data sets of TensorFlow Datasets (TFDS) that are prepared on this machine.

The encoded pictures are read as stored (`SkipDecoding`), so that the same JPEG gives the same
pixels here as in its original folder. Opening a data set never downloads anything;
`prepare_tfds` is the only function that may.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from vaejax.data.items import Chunk, Contents, Item, Source
from vaejax.data.lazy_tensorflow import tensorflow_datasets
from vaejax.errors import UserError, short_reason
from vaejax.files.paths import local_path

_SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "test": "test"}

CELEBA_FILES = (
    "img_align_celeba.zip",
    "list_eval_partition.txt",
    "list_attr_celeba.txt",
    "list_landmarks_align_celeba.txt",
    "identity_CelebA.txt",
)
"""The files that `tfds:celeb_a` is prepared from; TFDS checks each file's SHA-256."""


class Tfds(Source):
    """A data set `NAME[/CONFIG][:VERSION]` that TFDS has prepared in its `data_dir`."""

    def __init__(self, name: str, data_dir: str = ""):
        """Opens the data set.

        Args:
          name: `NAME[/CONFIG][:VERSION]`.
          data_dir: TFDS's directory of data sets; "" for the default of `data_directory`.

        Raises:
          UserError: TFDS is not installed, or the data set is unknown, not prepared or damaged.
        """
        self.kind = f"tfds:{name}"
        self._tfds = tensorflow_datasets()
        directory = prepared_directory(name, data_directory(data_dir))
        if directory is None:
            _refuse_unknown(name)
            raise UserError(
                f"config.data.source='tfds:{name}' is not prepared in {data_directory(data_dir)}: "
                "run `python -m vaejax.prepare` with this config, or set config.data.path to its "
                "data_dir"
            )
        self._directory = directory
        with self._readable():
            self._builder = self._tfds.builder_from_directory(str(self._directory))
            others = {
                split: info.num_examples
                for split, info in self._builder.info.splits.items()
                if split not in _SPLITS
            }
        if others:
            listed = ", ".join(f"{split} ({count:,} examples)" for split, count in others.items())
            self.notes = (f"splits of {self.kind} that are not used: {listed}",)

    def signature(self) -> list:
        """Returns name, size (bytes) and modification time (ns) of each prepared file."""
        files = sorted(file for file in self._directory.iterdir() if file.is_file())
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Converts errors to `UserError`: on damaged files TFDS can raise anything."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"config.data.source={self.kind!r} cannot be read from {self._directory}"
                f" ({short_reason(error)}): remove that directory, and have"
                " `python -m vaejax.prepare` make it again"
            ) from error

    def contents(self) -> Contents:
        """Lists all examples, in the order of the files.

        A data set with only one of the known splits counts as one without official splits.

        Raises:
          UserError: there is no known split, no image feature to choose, or a file is damaged.
        """
        with self._readable():
            return self._contents()

    def _contents(self) -> Contents:
        features = dict(self._builder.info.features.items())
        image = _image_feature(self.kind, features, self._tfds)
        attributes = features.get("attributes")
        columns: Sequence[str] = ()
        if isinstance(attributes, self._tfds.features.FeaturesDict):
            columns = sorted(attributes)
        sizes = {
            split: info.num_examples
            for split, info in self._builder.info.splits.items()
            if split in _SPLITS
        }
        if not sizes:
            raise UserError(
                f"config.data.source={self.kind!r} has the splits"
                f" {', '.join(self._builder.info.splits)}"
                " and none of train, validation, valid, test: choose another data set"
            )
        official = len(sizes) > 1
        chunks = partial(self._chunks, image, list(sizes), official)
        return Contents(sum(sizes.values()), chunks, {}, columns)

    def _chunks(self, image: str, splits: list[str], official: bool, step: int) -> Iterator[Chunk]:
        # One file after another: with TFDS's own interleaving the order would depend on its
        # settings.
        config = self._tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=True)
        with self._readable():
            for split in splits:
                examples = self._builder.as_dataset(
                    split=split,
                    shuffle_files=False,
                    read_config=config,
                    decoders={image: self._tfds.decode.SkipDecoding()},
                )
                items: list[Item] = []
                for example in self._tfds.as_numpy(examples):
                    items.append(_item(example, image))
                    if len(items) == step:
                        yield Chunk(_SPLITS[split] if official else None, partial(iter, items))
                        items = []
                if items:
                    yield Chunk(_SPLITS[split] if official else None, partial(iter, items))


def data_directory(data_dir: str) -> pathlib.Path:
    """Returns TFDS's directory of data sets.

    Args:
      data_dir: `config.data.path`; "" for TFDS's own default, $TFDS_DATA_DIR or
        ~/tensorflow_datasets.

    Raises:
      UserError: it is not a path of this machine.
    """
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return local_path("config.data.path" if data_dir else "TFDS_DATA_DIR", data_dir or default)


def prepared_directory(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Returns the directory of the newest prepared version of `name`, or None.

    It searches the directories rather than calling `tfds.builder`, which runs the data set's own
    code and may query a server about a data set that is not prepared.

    Args:
      name: `NAME[/CONFIG][:VERSION]`.
      data_dir: TFDS's directory of data sets.

    Raises:
      UserError: several configs are prepared, and `name` has none.
    """
    base, _, version = name.partition(":")
    found = [file.parent for file in data_dir.glob(f"{base}/{version or '*'}/dataset_info.json")]
    # Configs add one directory level; a single config need not be named.
    found += [file.parent for file in data_dir.glob(f"{base}/*/{version or '*'}/dataset_info.json")]
    versions = [directory for directory in found if re.fullmatch(r"\d+\.\d+\.\d+", directory.name)]
    if len({directory.parent for directory in versions}) > 1:
        configs = ", ".join(sorted(f"{base}/{directory.parent.name}" for directory in versions))
        raise UserError(
            f"config.data.source='tfds:{name}' has several configs: name one of {configs}"
        )
    newest = max(versions, key=lambda path: tuple(map(int, path.name.split("."))), default=None)
    return newest


def prepare_tfds(name: str, data_dir: str, manual_dir: str) -> None:
    """Prepares a data set with TFDS, unless it is prepared already.

    Args:
      name: `NAME[/CONFIG][:VERSION]`.
      data_dir: TFDS's directory of data sets; "" for the default of `data_directory`.
      manual_dir: directory of the original files; "" to download them.

    Raises:
      UserError: the name is unknown, a file is missing, or TFDS could not prepare it.
    """
    tfds = tensorflow_datasets()
    directory = data_directory(data_dir)
    if prepared_directory(name, directory) is not None:
        return
    _refuse_unknown(name)
    if manual_dir:
        manual_dir = str(local_path("config.data.manual_dir", manual_dir))
    if manual_dir and not pathlib.Path(manual_dir).is_dir():
        raise UserError(
            f"config.data.manual_dir={manual_dir!r} is not a directory: name the one with the files"
        )
    if manual_dir and re.split("[:/]", name)[0] == "celeb_a":
        missing = [file for file in CELEBA_FILES if not (pathlib.Path(manual_dir) / file).exists()]
        if missing:
            raise UserError(
                f"config.data.manual_dir={manual_dir!r} lacks {', '.join(missing)}: tfds:celeb_a "
                f"needs all of {', '.join(CELEBA_FILES)}, as published; source 'celeba' needs fewer"
            )
    settings = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    try:
        tfds.builder(name, data_dir=str(directory)).download_and_prepare(download_config=settings)
    except Exception as error:  # downloads and third-party builders can raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"config.data.source='tfds:{name}' could not be prepared in {directory} ({reason}): "
            "put the original files, unchanged, in config.data.manual_dir"
        ) from error


def _refuse_unknown(name: str) -> None:
    base = re.split("[:/]", name)[0]
    known = tensorflow_datasets().list_builders(with_community_datasets=False)
    if base not in known:
        raise UserError(
            f"config.data.source='tfds:{name}' is neither known to TFDS nor prepared in "
            "config.data.path: see `tfds.list_builders()`, or import its builder first"
        )


def _image_feature(kind: str, features: Mapping[str, Any], tfds: Any) -> str:
    images = [name for name in features if isinstance(features[name], tfds.features.Image)]
    if "image" in images or len(images) == 1:
        return "image" if "image" in images else images[0]
    raise UserError(
        f"config.data.source={kind!r} has {len(images)} image features"
        f" ({', '.join(images) or 'none'}):"
        " choose a data set with one, or one called 'image'"
    )


def _item(example: dict[str, Any], image: str) -> Item:
    name = example.pop("tfds_id").decode()
    content = example.pop(image)
    labels = {key: _label(value) for key, value in example.items()}
    return Item(
        name,
        lambda: content,
        {key: value for key, value in labels.items() if value is not None},
    )


def _label(value: Any) -> np.ndarray | None:
    """Converts a feature to a label; returns None if it cannot be one (text, masks, ...).

    Numbers and vectors are kept; a nested dict of numbers becomes a vector, sorted by name.
    """
    if isinstance(value, Mapping):
        columns = [_label(value[name]) for name in sorted(value)]
        numbers = [column for column in columns if column is not None and not column.ndim]
        return np.stack(numbers) if len(numbers) == len(columns) else None
    array = np.asarray(value)
    if array.dtype.kind not in "buif" or array.ndim > 1:
        return None
    return array.astype(np.uint8) if array.dtype.kind == "b" else array

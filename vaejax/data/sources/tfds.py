"""Image data sets of TensorFlow Datasets that already lie on this machine.

The encoded pictures are read as they are (`SkipDecoding`), so that the same JPEG gives the same
pixels here as in its original folder. Nothing is ever downloaded on opening; `prepare_tfds` is
the only function that may.
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
"""What `tfds:celeb_a` is made from; TFDS checks each file's SHA-256."""


class Tfds(Source):
    """A prepared data set `NAME[/CONFIG][:VERSION]` under a `data_dir`."""

    def __init__(self, name: str, data_dir: str = "", manual_dir: str = ""):
        self.kind = f"tfds:{name}"
        self._tfds = tensorflow_datasets()
        directory = prepared_directory(name, data_directory(data_dir))
        if directory is None:
            _refuse_unknown(name)
            raise UserError(
                f"config.data.source='tfds:{name}' is not prepared in"
                f" {data_directory(data_dir)}: run"
                " `python -m vaejax.prepare` with this config, or set"
                f" config.data.path to its data_dir"
            )
        self._directory = directory
        with self._readable():
            self._builder = self._tfds.builder_from_directory(str(self._directory))

    def signature(self) -> list:
        """Names, sizes and modification times of the prepared files."""
        files = sorted(file for file in self._directory.iterdir() if file.is_file())
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Around TFDS's reading: of what was damaged since it was prepared it raises anything."""
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
        """All examples, in the order of the files; without official splits if it is all train."""
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
        # One file after another: with TFDS's own interleaving the order would be an accident
        # of its settings.
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
    """Where data sets lie: `config.data.path`, or TFDS's own default."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return local_path("config.data.path" if data_dir else "TFDS_DATA_DIR", data_dir or default)


def prepared_directory(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """The directory of the newest prepared version of `name`, or None.

    Found by looking rather than through `tfds.builder`, which runs the data set's own code and
    may ask a server about a set that is not prepared.
    """
    base, _, version = name.partition(":")
    found = [file.parent for file in data_dir.glob(f"{base}/{version or '*'}/dataset_info.json")]
    # A set with configs keeps one level more; a single config needs no naming.
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
    """Prepares a data set with TFDS, from files in `manual_dir` or by downloading.

    Raises:
      UserError: the name is unknown, a file is missing, or TFDS could not prepare it.
    """
    tfds = tensorflow_datasets()
    directory = data_directory(data_dir)
    if prepared_directory(name, directory) is not None:
        return
    _refuse_unknown(name)
    if manual_dir and not pathlib.Path(manual_dir).is_dir():
        raise UserError(
            f"config.data.manual_dir={manual_dir!r} is not a directory: name the one with the files"
        )
    if manual_dir and re.split("[:/]", name)[0] == "celeb_a":
        missing = [file for file in CELEBA_FILES if not (pathlib.Path(manual_dir) / file).exists()]
        if missing:
            raise UserError(
                f"config.data.manual_dir={manual_dir!r} lacks {', '.join(missing)}:"
                f" tfds:celeb_a needs"
                f" all of {', '.join(CELEBA_FILES)}, as published; source 'celeba' needs fewer"
            )
    settings = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    try:
        tfds.builder(name, data_dir=str(directory)).download_and_prepare(download_config=settings)
    except Exception as error:  # downloads and foreign builders fail in every way there is
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"config.data.source='tfds:{name}' could not be prepared in {directory}"
            f" ({reason}): put the"
            " original files, unchanged, in config.data.manual_dir"
        ) from error


def _refuse_unknown(name: str) -> None:
    base = re.split("[:/]", name)[0]
    known = tensorflow_datasets().list_builders(with_community_datasets=False)
    if base not in known:
        raise UserError(
            f"config.data.source='tfds:{name}' is no data set TFDS knows, nor one"
            f" prepared in config.data.path:"
            " see `tfds.list_builders()`, or import its builder first"
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
    """A number, a row of a nested dict's numbers by name; None for all else (text, masks, ...)."""
    if isinstance(value, Mapping):
        columns = [_label(value[name]) for name in sorted(value)]
        numbers = [column for column in columns if column is not None and not column.ndim]
        return np.stack(numbers) if len(numbers) == len(columns) else None
    array = np.asarray(value)
    if array.dtype.kind not in "buif" or array.ndim > 1:
        return None
    return array.astype(np.uint8) if array.dtype.kind == "b" else array

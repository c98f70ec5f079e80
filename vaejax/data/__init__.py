"""Opens picture data sets as uint8 arrays, from which batches are cut::

    dataset = open_dataset(config.data)
    for batch in pipeline.train_batches(dataset.splits["train"].arrays(), seed=0, batch_size=128):
        ...

Importing this package imports neither TensorFlow nor TensorFlow Datasets.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8

from vaejax.config import DataConfig
from vaejax.data.cache import store
from vaejax.data.cache.disk import SETTING
from vaejax.data.items import Source
from vaejax.data.pictures import crops
from vaejax.data.reasons import count_reasons
from vaejax.data.sources.opening import open_source
from vaejax.errors import UserError
from vaejax.records.progress import say

__all__ = ["Dataset", "Split", "open_dataset", "prepare"]

_RESERVED_NAMES = ("image", "index", "mask")


@dataclasses.dataclass(frozen=True)
class Split:
    """The pictures of one split.

    Attributes:
      images: the memory-mapped cache file, read-only; a row is read from disk when it is indexed.
      labels: label arrays by name, with a row for each image, e.g. `attributes` of CelebA,
        `[picture, 40]` of 0 and 1; the fingerprint holds the names of these 40 columns.
      names: each picture's name in its source: a file name, or the row number in an array.
    """

    images: UInt8[np.ndarray, "picture height width channel"]
    labels: dict[str, Shaped[np.ndarray, "picture ..."]]
    names: Shaped[np.ndarray, " picture"] = dataclasses.field(
        default_factory=lambda: np.empty(0, np.str_)
    )

    def arrays(self, labels: Sequence[str] = ()) -> dict[str, Shaped[np.ndarray, "picture ..."]]:
        """Returns the arrays that batches are cut from: `image`, and the named labels.

        Args:
          labels: names of the labels, keys of `self.labels`.

        Raises:
          UserError: there is no such label, it is not numeric, or it has the name of another
            part of a batch (`image`, `index` or `mask`).
        """
        for name in labels:
            if name not in self.labels:
                known = ", ".join(sorted(self.labels)) or "none"
                raise UserError(f"the data has no label {name!r}; it has: {known}")
            if self.labels[name].dtype.kind not in "biuf":
                raise UserError(
                    f"the label {name!r} is of {self.labels[name].dtype}; only numbers can be "
                    "trained on"
                )
            if name in _RESERVED_NAMES:
                raise UserError(
                    f"the label name {name!r} is reserved for a part of every batch; rename it"
                )
        return {"image": self.images, **{name: self.labels[name] for name in labels}}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set at the training size.

    Attributes:
      splits: "train" and, where they have pictures, "valid" and "test".
      fingerprint: identifies the data, wherever they are stored: the kind of source, picture
        size, channels and crop, and the count and SHA-256 of each split's arrays; JSON-able.
      report: `set_aside`, everything among the pictures that was not used (name -> reason),
        `file`, the path of that list on disk ("" if it could not be written), and `remarks`,
        what is odd about pictures that are used (name -> remark).
    """

    splits: dict[str, Split]
    fingerprint: dict
    report: dict

    def shown(self) -> UInt8[np.ndarray, "picture height width channel"]:
        """Returns the pictures to display: the validation split, or else the training split."""
        return self.splits.get("valid", self.splits["train"]).images


def open_dataset(
    config: DataConfig, *, progress: bool = True, cache_setting: str = SETTING
) -> Dataset:
    """Opens the data; decodes them into the cache the first time.

    Args:
      config: the data's settings, `crop` resolved.
      progress: whether to show progress and messages on stderr.
      cache_setting: name of the setting by which the caller's user can move the cache, for
        messages.

    Raises:
      UserError: something is missing or does not fit; the message says what to do.
    """
    crops.check_preset(config.crop, config.image_size)
    source = open_source(config)
    cached = store.open_or_build(config, source, progress, cache_setting)
    unused = {**source.left_out, **cached.set_aside}
    file = store.write_report(cached.folder, unused)
    if progress:
        _tell(source, unused, cached.remarks, file)
    return Dataset(
        splits={name: Split(*arrays) for name, arrays in cached.splits.items()},
        fingerprint=cached.fingerprint,
        report={"set_aside": unused, "remarks": cached.remarks, "file": str(file or "")},
    )


def _tell(
    source: Source,
    unused: dict[str, str],
    remarks: dict[str, str],
    file: pathlib.Path | None,
) -> None:
    for note in source.notes:
        say(note)
    if remarks:
        say(f"used, but odd: {count_reasons(remarks)}")
    if unused:
        names = f"; their names are in {file}" if file else ""
        say(f"not used: {count_reasons(unused)}{names}")


def prepare(config: DataConfig, *, progress: bool = True) -> Dataset:
    """Does everything that must happen once before training; the only function that downloads.

    A data set `tfds:NAME` that is not prepared is prepared by TFDS, from `config.manual_dir` or,
    if that is empty, by downloading. Then the cache is built.

    Args:
      config: the data's settings, `crop` resolved.
      progress: whether to show progress and messages on stderr.

    Raises:
      UserError: as in `open_dataset`, or TFDS cannot prepare the data set.
    """
    crops.check_preset(config.crop, config.image_size)
    if config.source.startswith("tfds:"):
        from vaejax.data.sources.tfds import prepare_tfds

        prepare_tfds(config.source.removeprefix("tfds:"), config.path, config.manual_dir)
    return open_dataset(config, progress=progress)

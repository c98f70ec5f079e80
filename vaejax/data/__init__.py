"""Pictures: from where they lie to batches of uint8::

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

_PARTS_OF_A_BATCH = ("image", "index", "mask")


@dataclasses.dataclass(frozen=True)
class Split:
    """The pictures of one split.

    Attributes:
      images: a read-only map of the cache; a row is read from disk when it is asked for.
      labels: arrays whose first axis goes with the images, e.g. `attributes` of CelebA,
        `[picture, 40]` of 0 and 1, their names in the data set's fingerprint.
      names: each picture's file name, or its number in an array.
    """

    images: UInt8[np.ndarray, "picture height width channel"]
    labels: dict[str, Shaped[np.ndarray, "picture ..."]]
    names: Shaped[np.ndarray, " picture"] = dataclasses.field(
        default_factory=lambda: np.empty(0, np.str_)
    )

    def arrays(self, labels: Sequence[str] = ()) -> dict[str, Shaped[np.ndarray, "picture ..."]]:
        """What batches are cut from: `image`, and the named labels.

        Raises:
          UserError: there is no such label, it is not of numbers, or it is called like another
            part of a batch.
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
            if name in _PARTS_OF_A_BATCH:
                raise UserError(
                    f"a label cannot be called {name!r}, as a part of every batch is; rename it"
                )
        return {"image": self.images, **{name: self.labels[name] for name in labels}}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set at the training size.

    Attributes:
      splits: "train" and, where they have pictures, "valid" and "test".
      fingerprint: what the data are, not where they lie: JSON-able, equal for equal arrays.
      report: `set_aside`, all that lies among the pictures and was not used (name -> reason),
        `file`, where that list lies ("" where it could not be written), and `remarks`, what is
        odd about pictures that are used (name -> remark).
    """

    splits: dict[str, Split]
    fingerprint: dict
    report: dict

    def shown(self) -> UInt8[np.ndarray, "picture height width channel"]:
        """Faces to look at: of the validation split, else of the training split."""
        return self.splits.get("valid", self.splits["train"]).images


def open_dataset(
    config: DataConfig, *, progress: bool = True, cache_setting: str = SETTING
) -> Dataset:
    """Opens the data, decoding them into the cache the first time.

    Args:
      config: the data's settings, `crop` resolved.
      progress: whether to show progress and messages on stderr.
      cache_setting: what the caller's user can set to have the cache elsewhere, for messages.

    Raises:
      UserError: what is missing or does not fit, and what to do.
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
        say(f"used all the same: {count_reasons(remarks)}")
    if unused:
        names = f"; their names are in {file}" if file else ""
        say(f"not used: {count_reasons(unused)}{names}")


def prepare(config: DataConfig, *, progress: bool = True) -> Dataset:
    """Everything that must happen once before training; the only way to download anything.

    A `tfds:NAME` that is not prepared is prepared by TFDS, from `data.manual_dir` or, where that
    is empty, by downloading. Then the cache is built.

    Raises:
      UserError: as `open_dataset`, or when TFDS cannot prepare the data set.
    """
    crops.check_preset(config.crop, config.image_size)
    if config.source.startswith("tfds:"):
        from vaejax.data.sources.tfds import prepare_tfds

        prepare_tfds(config.source.removeprefix("tfds:"), config.path, config.manual_dir)
    return open_dataset(config, progress=progress)

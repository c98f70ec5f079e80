"""A folder or zip of pictures without annotations."""

import pathlib
from collections.abc import Iterator, Sequence
from functools import partial

from vaejax.data.items import Chunk, Contents, Item, Source, spans
from vaejax.data.reasons import count_reasons
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.data.splits import SPLITS
from vaejax.errors import UserError

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


class Folder(Source):
    """Pictures of mixed sizes, without labels.

    If top-level folders named like splits (train, val, test or a usual synonym), one of them for
    training, hold all pictures, they are the splits; otherwise the pictures are one pool.
    """

    kind = "folder"

    def __init__(self, path: pathlib.Path, max_pixels: int):
        """Lists the pictures.

        Args:
          path: the folder or zip.
          max_pixels: largest number of pixels of a picture; it limits the size of files to read.

        Raises:
          UserError: there are none, or the path cannot be listed.
        """
        self._files = PictureFiles(path, max_pixels)
        self.left_out = self._files.left_out
        if not self._files.names:
            there = count_reasons(self.left_out)
            raise UserError(
                f"config.data.path={str(path)!r} holds no pictures"
                f"{f', but {there}' if there else ''}: put JPEG, PNG or other pictures there, or"
                " name another folder or zip"
            )
        folders = split_folders(self._files.names)
        self._rows: dict[str | None, Sequence[int]] = {None: range(len(self._files.names))}
        if folders:
            self._rows = _rows_of_splits(self._files.names, folders)
            counts = ", ".join(f"{len(rows):,} {split}" for split, rows in self._rows.items())
            self.notes = (
                f"the folders {', '.join(sorted(folders))} are the splits ({counts});"
                " config.data.holdout is not used",
            )
        elif named := _named_like_splits(self._files.names):
            self.notes = (
                f"the folders {', '.join(named)} are named like splits, but other pictures are "
                "beside them or there is no folder of training pictures: all pictures are divided "
                "at random (config.data.holdout)",
            )

    def signature(self) -> dict:
        """Returns name -> size (bytes) and modification time (ns; in a zip, the CRC)."""
        return self._files.marks

    def contents(self) -> Contents:
        """Lists all pictures, by split and name."""
        return Contents(len(self._files.names), self._chunks, {})

    def _chunks(self, step: int) -> Iterator[Chunk]:
        for split, rows in self._rows.items():
            for span in spans(len(rows), step):
                names = [self._files.names[rows[row]] for row in span]
                items = [Item(name, partial(self._files.read, name), {}) for name in names]
                yield Chunk(split, partial(iter, items))


def split_folders(names: Sequence[str]) -> dict[str, str]:
    """Finds the folders that are the splits of a data set: folder -> split; {} if none are.

    Args:
      names: relative names of all pictures, with forward slashes.

    >>> split_folders(["Train/a.jpg", "Train/b.jpg", "val/c.jpg"])
    {'Train': 'train', 'val': 'valid'}
    >>> split_folders(["train/a.jpg", "other/b.jpg"]), split_folders(["val/a.jpg", "test/b.jpg"])
    ({}, {})
    """
    folders = {name.partition("/")[0]: "" for name in names}
    if not all("/" in name for name in names):
        return {}
    splits = {folder: _SPLIT_FOLDERS.get(folder.lower(), "") for folder in folders}
    return splits if "" not in splits.values() and "train" in splits.values() else {}


def _named_like_splits(names: Sequence[str]) -> list[str]:
    """Lists the top-level folders that are named like splits."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    return sorted(folder for folder in folders if folder.lower() in _SPLIT_FOLDERS)


def _rows_of_splits(names: list[str], folders: dict[str, str]) -> dict[str | None, Sequence[int]]:
    rows: dict[str | None, Sequence[int]] = {
        split: [row for row, name in enumerate(names) if folders[name.partition("/")[0]] == split]
        for split in SPLITS
    }
    return {split: found for split, found in rows.items() if found}

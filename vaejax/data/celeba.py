"""CelebA as its authors publish it, or as Kaggle repacks it.

The directory holds `img_align_celeba.zip` or the unpacked `img_align_celeba/` (Kaggle: twice
nested), `list_eval_partition` and `list_attr_celeba`, both `.txt` (official) or `.csv` (Kaggle).
"""

import pathlib
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from vaejax.data.files import PictureFiles
from vaejax.data.records import Chunk, Contents, Item, spans
from vaejax.data.splits import SPLITS
from vaejax.errors import UserError

_SITE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


class Table(NamedTuple):
    """An annotation file: a row of whole numbers for each picture."""

    columns: list[str]
    rows: dict[str, list[int]]


class CelebA:
    """The aligned photographs with their official splits and 40 attributes."""

    kind = "celeba"

    def __init__(self, path: pathlib.Path):
        self._partition = _annotation(path, "list_eval_partition")
        self._attributes = _annotation(path, "list_attr_celeba")
        # Where both are there the zip is used: an interrupted unpacking cannot be seen.
        places = [path / "img_align_celeba.zip", path / "img_align_celeba"]
        pictures = next((place for place in places if place.exists()), None)
        if pictures is None:
            raise UserError(
                f"config.data.path={str(path)!r} holds neither img_align_celeba.zip nor the folder"
                f" img_align_celeba: get one of them from {_SITE}"
            )
        self._files = PictureFiles(pictures)
        if not self._files.names:
            raise UserError(f"{pictures} holds no pictures: get it again from {_SITE}")

    def signature(self) -> dict:
        """Marks of the pictures and of both annotation files."""
        stats = {file.name: file.stat() for file in (self._partition, self._attributes)}
        tables = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
        return {"pictures": self._files.marks, "tables": tables}

    def contents(self) -> Contents:
        """Pictures that are listed and there, by split and name; the others are set aside."""
        partition = read_table(self._partition).rows
        attributes = read_table(self._attributes)
        there = set(self._files.names)
        set_aside = {
            name: f"listed in {self._partition.name} but missing"
            for name in sorted(partition.keys() - there)
        }
        names_of = {split: [] for split in SPLITS}
        for name in self._files.names:
            if name not in partition:
                set_aside[name] = f"not listed in {self._partition.name}"
            elif name not in attributes.rows:
                set_aside[name] = f"not listed in {self._attributes.name}"
            elif partition[name] not in ([0], [1], [2]):
                set_aside[name] = f"partition {partition[name]}, not 0, 1 or 2"
            else:
                names_of[SPLITS[partition[name][0]]].append(name)
        count = sum(map(len, names_of.values()))
        chunks = partial(self._chunks, names_of, attributes.rows)
        return Contents(count, chunks, set_aside, attributes.columns)

    def _chunks(
        self, names_of: dict[str, list[str]], attributes: dict[str, list[int]], step: int
    ) -> Iterator[Chunk]:
        for split, names in names_of.items():
            for rows in spans(len(names), step):
                items = [
                    Item(
                        names[row],
                        partial(self._files.read, names[row]),
                        {"attributes": _binary(attributes[names[row]])},
                    )
                    for row in rows
                ]
                yield Chunk(split, partial(iter, items))


def _binary(values: list[int]) -> UInt8[np.ndarray, " attribute"]:
    return (np.array(values) > 0).astype(np.uint8)


def _annotation(path: pathlib.Path, stem: str) -> pathlib.Path:
    for suffix in (".txt", ".csv"):
        if (path / (stem + suffix)).is_file():
            return path / (stem + suffix)
    raise UserError(
        f"config.data.path={str(path)!r} lacks {stem}.txt (or Kaggle's {stem}.csv):"
        f" put it there; it is published at {_SITE}"
    )


def read_table(path: pathlib.Path) -> Table:
    """Reads an annotation file, official (spaces; count and names first) or Kaggle's (commas).

    Raises:
      UserError: no text, or a line that is not a name and whole numbers, one a column.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text ({error.reason}): get the file again") from error
    columns: list[str] = []
    start = 0
    if path.suffix == ".csv":
        columns, start = lines[0].split(",")[1:] if lines else [], 1
    elif lines and len(lines[0].split()) == 1:  # a count, then the names of the columns
        columns, start = lines[1].split() if len(lines) > 1 else [], 2
    width = len(columns) or 1
    rows = {}
    for number, line in enumerate(lines[start:], start + 1):
        fields = line.split("," if path.suffix == ".csv" else None)
        if not fields or fields == [""]:
            continue
        try:
            rows[fields[0]] = [int(field) for field in fields[1:]]
        except ValueError:
            rows[fields[0]] = []
        if len(rows[fields[0]]) != width:
            raise UserError(
                f"{path} line {number} is {line[:60]!r}, not a file name and {width}"
                " whole numbers: get the file again"
            )
    return Table(columns, rows)

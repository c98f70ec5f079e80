"""CelebA as its authors publish it, or as Kaggle repacks it.

The directory holds `img_align_celeba.zip` or the unpacked `img_align_celeba/` (Kaggle: twice
nested), `list_eval_partition` and `list_attr_celeba`, both `.txt` (official) or `.csv` (Kaggle).
The case of these names is ignored. A picture that the tables do not list under its own name is
matched without its suffix.
"""

import csv
import pathlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from vaejax.data.items import Chunk, Contents, Item, Source, spans
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.data.splits import SPLITS
from vaejax.errors import UserError

_SITE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


class Table(NamedTuple):
    """An annotation file: a row of integers for each picture.

    Attributes:
      columns: names of the columns; empty if the file does not name them.
      rows: picture name -> one value per column.
    """

    columns: list[str]
    rows: dict[str, list[int]]


class CelebA(Source):
    """The aligned photographs with their official splits and 40 binary attributes."""

    kind = "celeba"

    def __init__(self, path: pathlib.Path, max_pixels: int):
        """Finds the pictures and both annotation files.

        Args:
          path: the directory that holds them.
          max_pixels: largest number of pixels of a picture; it limits the size of files to read.

        Raises:
          UserError: one of them is missing or cannot be read.
        """
        self._partition = _annotation(path, "list_eval_partition")
        self._attributes = _annotation(path, "list_attr_celeba")
        # If both exist the zip is used: an interrupted extraction cannot be detected.
        pictures = _find(path, "img_align_celeba.zip", "img_align_celeba")
        if pictures is None:
            raise UserError(
                f"config.data.path={str(path)!r} holds neither img_align_celeba.zip nor the folder"
                f" img_align_celeba: get one of them from {_SITE}"
            )
        self._files = PictureFiles(pictures, max_pixels)
        self.left_out = self._files.left_out
        if not self._files.names:
            raise UserError(f"{pictures} holds no pictures: get it again from {_SITE}")
        self._rows = read_table(self._partition).rows
        self._matched = match(self._files.names, self._rows)
        renamed = sum(name != row for name, row in self._matched.items() if row)
        if renamed:
            self.notes = (
                f"{renamed:,} pictures have another suffix than in {self._partition.name}; they "
                "were matched by their names without it",
            )

    def signature(self) -> dict:
        """Returns the pictures' marks, and size and modification time of both annotation files."""
        stats = {file.name: file.stat() for file in (self._partition, self._attributes)}
        tables = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
        return {"pictures": self._files.marks, "tables": tables}

    def contents(self) -> Contents:
        """Lists the pictures that exist and are in both tables; the others are set aside.

        Raises:
          UserError: the attribute table cannot be read.
        """
        attributes = read_table(self._attributes)
        names = self._files.names
        described = match(names, attributes.rows)
        there = set(self._matched.values())
        set_aside = {
            name: f"listed in {self._partition.name} but missing"
            for name in sorted(self._rows.keys() - there)
        }
        names_of: dict[str, list[str]] = {split: [] for split in SPLITS}
        for name in names:
            row = self._matched.get(name, "")
            if name not in self._matched:
                set_aside[name] = f"not listed in {self._partition.name}"
            elif not row or not described.get(name, name):
                set_aside[name] = "one of several files or rows of this name without the suffix"
            elif name not in described:
                set_aside[name] = f"not listed in {self._attributes.name}"
            elif self._rows[row] not in ([0], [1], [2]):
                set_aside[name] = f"partition {self._rows[row]}, not 0, 1 or 2"
            else:
                names_of[SPLITS[self._rows[row][0]]].append(name)
        count = sum(map(len, names_of.values()))
        values = {name: attributes.rows[row] for name, row in described.items() if row}
        return Contents(
            count, partial(self._chunks, names_of, values), set_aside, attributes.columns
        )

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


def match(files: Collection[str], rows: Collection[str]) -> dict[str, str]:
    """Matches files to table rows by name, or else by name without the suffix.

    Args:
      files: names of the picture files.
      rows: picture names in a table.

    Returns:
      File -> row, for the files that have one; "" if the match without suffix is ambiguous.

    >>> match(["1.png", "2.jpg", "3.png", "3.JPG", "4.jpg"], ["1.jpg", "2.jpg", "3.jpg"])
    {'2.jpg': '2.jpg', '1.png': '1.jpg', '3.png': '', '3.JPG': ''}
    """
    matched = {name: name for name in files if name in rows}
    rows_of = defaultdict(list)
    for row in rows:
        if row not in matched:
            rows_of[_stem(row)].append(row)
    files_of = defaultdict(list)
    for name in files:
        if name not in matched and _stem(name) in rows_of:
            files_of[_stem(name)].append(name)
    for stem, names in files_of.items():
        alone = len(names) == len(rows_of[stem]) == 1
        matched |= dict.fromkeys(names, rows_of[stem][0] if alone else "")
    return matched


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _binary(values: list[int]) -> UInt8[np.ndarray, " attribute"]:
    return (np.array(values) > 0).astype(np.uint8)


def _find(folder: pathlib.Path, *names: str) -> pathlib.Path | None:
    """Returns the first of `names` (lower case) that a folder has in any case, or None."""
    try:
        there = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}
    except OSError as error:
        raise UserError(
            f"config.data.path={str(folder)!r} cannot be read ({error.strerror}): name a directory"
            " that can"
        ) from error
    return next((there[name] for name in names if name in there), None)


def _annotation(path: pathlib.Path, stem: str) -> pathlib.Path:
    found = _find(path, f"{stem}.txt", f"{stem}.csv")
    if found is not None and found.is_file():
        return found
    raise UserError(
        f"config.data.path={str(path)!r} lacks {stem}.txt (or Kaggle's {stem}.csv):"
        f" put it there; it is published at {_SITE}"
    )


def read_table(path: pathlib.Path) -> Table:
    """Reads an annotation file, official (separated by spaces) or Kaggle's (by commas).

    An official file may begin with the number of pictures and the names of the columns; Kaggle's
    begins with a header.

    Raises:
      UserError: the file cannot be read or is not text, a line is not a file name and one
        integer per column, or two lines contradict each other.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        # The separator is detected from the first line; the suffix is ignored.
        has_commas = bool(lines) and "," in lines[0]
        if has_commas:
            table = [
                [field.strip() for field in row] for row in csv.reader(lines, skipinitialspace=True)
            ]
        else:
            table = [line.split() for line in lines]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except (UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{path} is no text ({reason}): get the file again") from error
    columns: list[str] = []
    start = 0
    if has_commas:
        columns, start = table[0][1:], 1
    elif table and len(table[0]) == 1:  # a count, then the names of the columns
        columns, start = table[1] if len(table) > 1 else [], 2
    width = len(columns) or 1
    rows: dict[str, list[int]] = {}
    for number, fields in enumerate(table[start:], start + 1):
        if not any(fields):
            continue
        earlier = rows.get(fields[0])
        try:
            rows[fields[0]] = [int(field) for field in fields[1:]]
        except ValueError:
            rows[fields[0]] = []
        if earlier not in (None, rows[fields[0]]):
            raise UserError(
                f"{path} line {number} contradicts an earlier line about {fields[0]!r}: get the "
                "file again"
            )
        if len(rows[fields[0]]) != width:
            raise UserError(
                f"{path} line {number} is {' '.join(fields)[:60]!r}, not a file name and {width}"
                " whole numbers: get the file again"
            )
    return Table(columns, rows)

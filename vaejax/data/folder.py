"""A folder or zip of pictures, as anyone has."""

import pathlib
from collections.abc import Iterator
from functools import partial

from vaejax.data.files import SUFFIXES, PictureFiles
from vaejax.data.records import Chunk, Contents, Item, spans
from vaejax.errors import UserError


class Folder:
    """Pictures of mixed sizes, without official splits and labels."""

    kind = "folder"

    def __init__(self, path: pathlib.Path):
        self._files = PictureFiles(path)
        if not self._files.names:
            raise UserError(
                f"config.data.path={str(path)!r} holds no pictures: put files ending in"
                f" {', '.join(SUFFIXES)} there, or name another folder or zip"
            )

    def signature(self) -> dict:
        """Names with sizes and modification times (zip: CRCs)."""
        return self._files.marks

    def contents(self) -> Contents:
        """All pictures, by name."""
        return Contents(len(self._files.names), self._chunks, {})

    def _chunks(self, step: int) -> Iterator[Chunk]:
        for rows in spans(len(self._files.names), step):
            names = [self._files.names[row] for row in rows]
            items = [Item(name, partial(self._files.read, name), {}) for name in names]
            yield Chunk(None, partial(iter, items))

"""The procedural faces of `vaejax.data.synthetic.faces` as a source."""

import hashlib
import pathlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from vaejax.data.items import Chunk, Contents, Item, Source, spans
from vaejax.data.splits import SPLITS
from vaejax.data.synthetic.faces import faces
from vaejax.errors import UserError


class Synthetic(Source):
    """Faces drawn at the training size; the splits are disjoint ranges of the face number."""

    kind = "synthetic"

    def __init__(self, counts: tuple[int, int, int], image_size: tuple[int, int], seed: int):
        self._counts = counts
        self._size = image_size
        self._seed = seed

    def signature(self) -> list:
        """Counts, seed, and the code that draws: looking at a face would compile it first."""
        files = sorted(pathlib.Path(__file__).parent.glob("*.py"))
        if not files:
            # Without its source, other drawings would be taken for these.
            raise UserError(f"the source of {__name__} is not there; install vaejax as files")
        drawing = hashlib.sha256()
        for file in files:
            drawing.update(file.read_bytes())
        return [list(self._counts), self._seed, drawing.hexdigest()]

    def contents(self) -> Contents:
        """Face 0 is the first of train; valid and test follow on."""
        return Contents(sum(self._counts), self._chunks, {})

    def _chunks(self, step: int) -> Iterator[Chunk]:
        first = 0
        for split, count in zip(SPLITS, self._counts):
            for rows in spans(count, step):
                yield Chunk(split, partial(self._draw, first + rows.start, first + rows.stop))
            first += count

    def _draw(self, start: int, stop: int) -> Iterator[Item]:
        numbers = np.arange(start, stop)
        pictures, labels = faces(numbers, *self._size, seed=self._seed)
        for row, number in enumerate(numbers):
            values = {name: column[row] for name, column in labels.items()}
            yield Item(str(number), partial(pictures.__getitem__, row), values)

"""Shows during training which faces the network takes to have an attribute."""

import functools
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, PyTree, UInt8
from PIL import Image, ImageDraw

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.data.feed.subsets import random_rows
from vaejax.models import EXACT
from vaejax.models.attributes import build_attribute_network, logits_of
from vaejax.records import pictures
from vaejax.records.metric_log import NoReporter, Reporter
from vaejax.runtime.compiling import jit, precise
from vaejax.tasks.attributes.labels import attribute_names

# At most so many faces are searched, in batches of so many.
_FACES, _BATCH = 1000, 100
# Width in pixels of the column of names.
_NAMES = 130


class Gallery:
    """Draws a row for each of some attributes, with the faces that have the highest logits."""

    def __init__(self, config: Config, dataset: Dataset, directory: Path):
        """Chooses the faces, at random but always the same ones; compiles on the first `draw`.

        Args:
          config: config of the run; `eval.grid` is the number of rows and of columns.
          dataset: its validation pictures are shown, else its training pictures.
          directory: the directory of the files.
        """
        # The cache file: faces are read batch by batch, since many large ones would fill memory.
        self._source, self._directory = dataset.shown(), directory
        self._faces = random_rows(len(self._source), _FACES)
        network = build_attribute_network(config, EXACT)
        names = attribute_names(dataset.fingerprint, network.attributes)
        # From the whole list, because the names of similar attributes are neighbours.
        rows = np.linspace(0, len(names) - 1, min(config.eval.grid, len(names))).astype(int)
        self._shown = {int(row): names[row].replace("_", " ") for row in rows}
        self._columns = min(config.eval.grid, len(self._faces))
        self._logits = jit(precise(functools.partial(logits_of, network)))

    def draw(self, step: int, params: dict[str, PyTree], reporter: Reporter | NoReporter) -> None:
        """Writes the sheet to `attributes_STEP.png`, and passes it to `reporter` for TensorBoard.

        Args:
          step: updates so far.
          params: parameters of the run's only network by name, on this process's first device.
          reporter: receives the sheet for TensorBoard.
        """
        (network,) = params.values()
        logits = self._predicted(network)
        highest = np.argsort(-logits, axis=0, kind="stable")[: self._columns]
        chosen = [self._source[self._faces[highest[:, row]]] for row in self._shown]
        faces = np.concatenate(chosen)
        sheet = _named(pictures.grid(faces, self._columns), list(self._shown.values()))
        pictures.save(self._directory / f"attributes_{step:08d}.png", sheet)
        reporter.picture(step, "attributes", sheet)

    def _predicted(self, params: PyTree) -> Float[np.ndarray, "face attribute"]:
        """Returns the logits of the faces; the last batch is padded, so one program is compiled."""
        found = []
        for start in range(0, len(self._faces), _BATCH):
            rows = np.minimum(np.arange(start, start + _BATCH), len(self._faces) - 1)
            batch = np.asarray(self._source[self._faces[rows]])
            found.append(jax.device_get(self._logits(params, batch)))
        return np.concatenate(found)[: len(self._faces)]


def _named(
    sheet: UInt8[np.ndarray, "height width channel"], names: list[str]
) -> UInt8[np.ndarray, "height wider channel"]:
    """Puts a column with the names of the rows, which are equally high, before a grid."""
    height, _, channels = sheet.shape
    column = Image.new("L", (_NAMES, height), 255)
    draw = ImageDraw.Draw(column)
    for row, name in enumerate(names):
        draw.text((8, (row + 0.5) * height / len(names) - 6), name, fill=0)
    text = np.repeat(np.asarray(column)[:, :, None], channels, axis=2)
    return np.concatenate([text, sheet], axis=1)

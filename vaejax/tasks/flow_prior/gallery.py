"""Draws faces from a flow over codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from vaejax.priors import FlowMatching
from vaejax.records import pictures

_SEED = 2**31 - 3

Draw = Callable[[Float[Array, "count latent"]], UInt8[np.ndarray, "count height width channel"]]


class Samples:
    """Draws faces from the same noise during training, as a grid of `columns` x `columns`."""

    def __init__(
        self,
        prior: Callable[[dict[str, PyTree]], FlowMatching],
        decode: Draw,
        columns: int,
        directory: Path,
    ):
        """Compiles on the first `draw`.

        Args:
          prior: returns the flow with given parameters.
          decode: maps codes to pictures.
          columns: faces in each row, and number of rows.
          directory: the directory of the files.
        """
        self._decode, self._columns, self._directory = decode, columns, directory
        key = jax.random.key(_SEED)
        self._codes = jax.jit(lambda params: prior(params).sample(key, columns**2))

    def draw(self, step: int, params: dict[str, PyTree], reporter: Any) -> None:
        """Writes the grid to `samples_STEP.png`, and passes it to `reporter` for TensorBoard."""
        sheet = pictures.grid(self._decode(self._codes(params)), self._columns)
        pictures.save(self._directory / f"samples_{step:08d}.png", sheet)
        reporter.picture(step, "samples", sheet)

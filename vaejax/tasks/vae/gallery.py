"""Draws reconstructions and samples during training, always from the same faces and noise."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.data.feed.subsets import random_rows
from vaejax.likelihoods import to_picture
from vaejax.models import EXACT
from vaejax.models.finished import picture_model
from vaejax.models.noise import great_circle
from vaejax.records import pictures
from vaejax.records.metric_log import NoReporter, Reporter
from vaejax.runtime.compiling import jit, precise

# A seed of its own, so that the gallery shares no noise with training steps.
GALLERY_SEED = 2**31 - 2


class Gallery:
    """Draws reconstructions, samples and interpolations as PNG grids."""

    def __init__(
        self, config: Config, dataset: Dataset, directory: Path, *, finished: bool = False
    ):
        """Chooses the faces, at random but always the same ones; compiles on the first `draw`.

        Args:
          config: config of the run; `eval.grid` is the number of columns.
          dataset: its validation pictures are shown, else its training pictures.
          directory: the directory of the files.
          finished: whether the parameters are those of a `FinishedVAE`.
        """
        self._directory = directory
        source = dataset.shown()
        # Whole rows of faces only.
        self._columns = min(config.eval.grid, len(source))
        rows = max(1, min(self._columns // 2, len(source) // self._columns))
        self._faces = np.asarray(source[random_rows(len(source), self._columns * rows)])
        model, likelihood = picture_model(config, finished=finished, dtype=EXACT)
        shown = functools.partial(to_picture, likelihood)
        keys = jax.random.split(jax.random.key(GALLERY_SEED), self._columns**2)

        @jit
        @precise
        def draw(params: dict, faces: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            apply = functools.partial(model.apply, {"params": params})
            codes, _ = apply(faces, method="posterior")
            samples = apply(apply(keys, method="noise"), method="generate")
            # Each row interpolates between two faces in equal steps of the prior's noise: a line
            # between codes may leave the region in which the prior has mass.
            noise = apply(codes, method="to_noise")
            path = jax.tree.map(lambda leaf: _paths(leaf, self._columns), noise)
            reconstructions, between = apply(codes, method="decode"), apply(path, method="generate")
            return shown(reconstructions), shown(samples), shown(between)

        self._draw = draw

    def draw(self, step: int, params: dict[str, dict], reporter: Reporter | NoReporter) -> None:
        """Writes reconstructions, samples and interpolations as PNG, and to TensorBoard.

        Args:
          step: updates so far.
          params: parameters of the run's only network by name, on this process's first device.
          reporter: receives the grids for TensorBoard.
        """
        (vae,) = params.values()
        reconstructions, samples, between = jax.device_get(self._draw(vae, self._faces))
        sheets = {
            "reconstructions": pictures.interleave_rows(
                self._faces, reconstructions, self._columns
            ),
            "samples": samples,
            "interpolations": between,
        }
        for name, images in sheets.items():
            sheet = pictures.grid(images, self._columns)
            pictures.save(self._directory / f"{name}_{step:08d}.png", sheet)
            reporter.picture(step, name, sheet)


def _paths(noise: Float[Array, "face *rest"], steps: int) -> Float[Array, "picture *rest"]:
    """Arcs from each face's noise to the next face's, with `steps` points on each.

    At most `steps` arcs are returned, one after the other.
    """
    starts, ends = (jnp.repeat(some[:steps], steps, axis=0) for some in (noise[:-1], noise[1:]))
    shares = jnp.tile(jnp.linspace(0.0, 1.0, steps), len(starts) // steps)
    return great_circle(starts, ends, shares)

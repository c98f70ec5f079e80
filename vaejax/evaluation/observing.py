"""Applies extractors to sets of pictures, over all devices, in memory that does not grow with N."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float

from vaejax.data.cache.rows import RowCache
from vaejax.errors import UserError
from vaejax.evaluation.picture_sets import Batch, PictureSet
from vaejax.features import Extractor
from vaejax.metrics.moments import Moments, moments_of
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, round_up, split_batch

# Metrics that compare pictures one by one get at most this many rows of a set.
KEPT = 20_000
# Rows that are collected before they are added to the moments: an addition copies all products.
_CHUNK = 2048


class Rows(NamedTuple):
    """What an extractor computed of a set of pictures.

    Attributes:
      moments: the moments of the rows of all pictures.
      kept: the first `KEPT` rows, float32.
    """

    moments: Moments
    kept: Float[np.ndarray, "kept feature"]

    @property
    def pictures(self) -> int:
        """The number of all pictures."""
        return int(self.moments.counts.sum())


class Observer:
    """Applies extractors to sets of pictures; compiles one program for each extractor."""

    def __init__(
        self,
        extractors: Sequence[Extractor],
        mesh: Mesh,
        batch_size: int,
        cache: RowCache | None = None,
    ):
        """Copies the extractors' parameters to every device; compiles at the first batch.

        Args:
          extractors: the extractors, with different names.
          mesh: the devices, over which each batch is split.
          batch_size: pictures in a batch; it is rounded up to a multiple of the devices.
          cache: keeps the rows of real pictures; None keeps nothing.
        """
        everywhere, self._split = replicated(mesh), split_batch(mesh)
        self._extractors = {one.name: one for one in extractors}
        self._params = {one.name: jax.device_put(one.params, everywhere) for one in extractors}
        self._programs = {
            one.name: jit(
                precise(one.apply),
                mesh=mesh,
                in_shardings=(everywhere, self._split),
                out_shardings=everywhere,
            )
            for one in extractors
        }
        self._size, self._cache = round_up(batch_size, mesh), cache

    def passes(self, pictures: PictureSet, names: Sequence[str]) -> int:
        """Returns how many pictures `__call__` goes through, for the display of progress."""
        return pictures.count * (len(names) if self._is_cached(pictures) else 1)

    def __call__(
        self,
        pictures: PictureSet,
        names: Sequence[str],
        advance: Callable[[int], None] = lambda count: None,
    ) -> dict[str, Rows]:
        """Computes the rows of a set.

        A generated set is streamed once through all extractors, so that it is generated once; a
        real one once through each extractor whose rows are not in the cache.

        Args:
          pictures: the set.
          names: names of the extractors to apply, at least one.
          advance: is called with the number of pictures just done.

        Returns:
          The rows by the name of the extractor.

        Raises:
          UserError: a row holds a number that is not finite.
        """
        if not self._is_cached(pictures):
            collectors = {name: _Collector(self._extractors[name]) for name in names}
            for outputs in self._outputs(pictures, names, advance):
                for name, rows in outputs.items():
                    collectors[name].add(rows)
            return {name: collector.finished() for name, collector in collectors.items()}
        return {name: self._from_cache(pictures, name, advance) for name in names}

    def _is_cached(self, pictures: PictureSet) -> bool:
        return self._cache is not None and pictures.identity is not None

    def _from_cache(self, pictures: PictureSet, name: str, advance: Callable[[int], None]) -> Rows:
        assert self._cache is not None and pictures.identity is not None
        done = 0

        def count(pictures: int) -> None:
            nonlocal done
            done += pictures
            advance(pictures)

        extractor, collector = self._extractors[name], _Collector(self._extractors[name])
        rows = self._cache.rows(
            f"{pictures.identity} {extractor.digest()}",
            lambda: (output[name] for output in self._outputs(pictures, [name], count)),
        )
        for start in range(0, len(rows), self._size):
            collector.add(rows[start : start + self._size])
        advance(pictures.count - done)
        return collector.finished()

    def _outputs(
        self, pictures: PictureSet, names: Sequence[str], advance: Callable[[int], None]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the extractors' rows of each batch, without those of padding."""
        left = pictures.count
        for batch in of_size(pictures.batches(), self._size, self._split):
            outputs = {name: self._programs[name](self._params[name], batch) for name in names}
            counted = min(left, self._size)
            yield {name: np.asarray(rows)[:counted] for name, rows in outputs.items()}
            left -= counted
            advance(counted)


class _Collector:
    """Collects the rows of one extractor."""

    def __init__(self, extractor: Extractor):
        self._extractor = extractor
        self._moments: Moments | None = None
        self._waiting: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []
        self._room = KEPT

    def add(self, rows: Float[np.ndarray, "batch feature"]) -> None:
        if not np.all(np.isfinite(rows)):
            raise UserError(
                f"{self._extractor.name} gives numbers that are not finite; its weights are "
                "damaged, or the pictures are not what it takes"
            )
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _CHUNK:
            self._add_waiting()
        if self._room > 0:
            self._kept.append(rows[: self._room])
            self._room -= len(self._kept[-1])

    def _add_waiting(self) -> None:
        rows = np.concatenate(self._waiting)
        self._moments = (self._moments or Moments.empty(rows.shape[1])).add(rows)
        self._waiting = []

    def finished(self) -> Rows:
        if self._waiting:
            self._add_waiting()
        assert self._moments is not None, "a set has pictures"
        return Rows(self._moments, np.concatenate(self._kept))


def first_rows(rows: Rows, count: int) -> Rows:
    """Returns the first `count` rows; all if there are no more than these or they are not kept."""
    if count >= len(rows.kept):
        return rows
    kept = rows.kept[:count]
    return Rows(moments_of([kept]), kept)


def of_size(batches: Iterator[Batch], size: int, sharding: NamedSharding) -> Iterator[jax.Array]:
    """Cuts batches on the host into batches of `size` on devices; pads the last one.

    Every process has all batches. Batches on devices are left as they are.

    Args:
      batches: the batches.
      size: pictures in a batch.
      sharding: how a batch is split over the devices.
    """

    def placed(batch: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(batch.shape, sharding, batch.__getitem__)

    waiting: list[np.ndarray] = []
    for batch in batches:
        if isinstance(batch, jax.Array):
            yield batch
            continue
        waiting.append(batch)
        while sum(map(len, waiting)) >= size:
            joined = np.concatenate(waiting)
            yield placed(joined[:size])
            waiting = [joined[size:]]
    rest = np.concatenate(waiting) if waiting else ()
    if len(rest):
        yield placed(rest[np.minimum(np.arange(size), len(rest) - 1)])

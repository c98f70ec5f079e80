"""Means and covariances of rows of features that come in batches, in flat memory.

The rows are divided into groups, whose moments are kept apart, so that a block bootstrap can draw
groups without seeing the rows again. A set holds (groups · features²) numbers: 0.7 GB for 20
groups of 2,048 features, 10 MB for 256 features.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int64, Num

# Rows that `moments_of` collects before it adds them. Each addition passes over all products.
_CHUNK = 2048


class Moments(NamedTuple):
    """Number, sum and sum of outer products of the rows of each group, in float64.

    Row i, counted over all batches, belongs to group i mod groups. Sums are of rows minus `shift`,
    because the products of rows with a large mean would cancel in the covariance.
    """

    shift: Float[np.ndarray, "feature"]
    counts: Int64[np.ndarray, "group"]
    sums: Float[np.ndarray, "group feature"]
    products: Float[np.ndarray, "group feature feature"]

    @classmethod
    def empty(cls, features: int, groups: int = 20) -> "Moments":
        """Returns the moments of no rows."""
        return cls(
            np.zeros(features),
            np.zeros(groups, np.int64),
            np.zeros((groups, features)),
            np.zeros((groups, features, features)),
        )

    def add(self, rows: Num[Array | np.ndarray, "batch feature"]) -> "Moments":
        """Returns the moments with a batch of rows added; large batches are faster.

        Raises:
          ValueError: a value is not finite, or rows have another number of features.
        """
        rows = checked_rows(rows)
        if rows.shape[1] != len(self.shift):
            raise ValueError(f"rows have {rows.shape[1]} features, not {len(self.shift)}")
        if not len(rows):
            return self
        first = int(self.counts.sum())
        shift = self.shift if first else rows.mean(axis=0)
        groups = len(self.counts)
        counts, sums, products = self.counts.copy(), self.sums.copy(), self.products.copy()
        for offset in range(min(groups, len(rows))):
            part = rows[offset::groups] - shift[None]
            group = (first + offset) % groups
            counts[group] += len(part)
            sums[group] += part.sum(axis=0)
            products[group] += part.T @ part
        return Moments(shift, counts, sums, products)

    def merge(self, other: "Moments") -> "Moments":
        """Returns the moments of both sets of rows, group by group.

        Raises:
          ValueError: the numbers of groups or of features differ.
        """
        if self.sums.shape != other.sums.shape:
            raise ValueError(
                f"moments of {self.sums.shape} groups and features cannot be merged with "
                f"{other.sums.shape}"
            )
        if not self.counts.any():
            return other
        # The other rows minus this shift are the other rows minus their own shift, plus `gap`.
        gap = other.shift - self.shift
        crossed = np.einsum("gi,j->gij", other.sums, gap)
        moved = other.products + crossed + crossed.swapaxes(1, 2)
        moved += np.einsum("g,i,j->gij", other.counts, gap, gap)
        return Moments(
            self.shift,
            self.counts + other.counts,
            self.sums + other.sums + other.counts[:, None] * gap[None],
            self.products + moved,
        )

    def mean(self, weights: Num[np.ndarray, "group"] | None = None) -> Float[np.ndarray, "feature"]:
        """Computes the mean row.

        Args:
          weights: how often each group counts; None for once.

        Raises:
          ValueError: no row has weight.
        """
        weights, total = self._weighted(weights)
        if not total:
            raise ValueError("a mean needs pictures, got none")
        return self.shift + weights @ self.sums / total

    def covariance(
        self, weights: Num[np.ndarray, "group"] | None = None
    ) -> Float[np.ndarray, "feature feature"]:
        """Computes the covariance with divisor N - 1, where N is the sum of the rows' weights.

        Args:
          weights: how often each group counts; None for once.

        Raises:
          ValueError: the rows' weights sum to less than two.
        """
        weights, total = self._weighted(weights)
        if total < 2:
            raise ValueError(f"a covariance needs two pictures, got {total:g}")
        centre = weights @ self.sums / total
        products = np.tensordot(weights, self.products, 1)
        return (products - total * np.outer(centre, centre)) / (total - 1)

    def _weighted(self, weights):
        """Returns the weights in float64, and the sum of the rows' weights."""
        weights = np.ones(len(self.counts)) if weights is None else weights.astype(np.float64)
        return weights, float(weights @ self.counts)


def moments_of(
    batches: Iterable[Num[Array | np.ndarray, "_ feature"]], *, groups: int = 20
) -> Moments:
    """Computes the moments of all rows of `batches`, which may have any sizes.

    Raises:
      ValueError: there is no batch, a value is not finite, or numbers of features differ.
    """
    moments, waiting, rows = None, [], 0
    for batch in batches:
        moments = moments or Moments.empty(batch.shape[1], groups)
        waiting.append(checked_rows(batch))
        rows += len(batch)
        if rows >= _CHUNK:
            moments, waiting, rows = moments.add(np.concatenate(waiting)), [], 0
    if moments is None:
        raise ValueError("there is no batch to compute moments of")
    return moments.add(np.concatenate(waiting)) if waiting else moments


def checked_rows(
    rows: Num[Array | np.ndarray, "count feature"],
) -> Float[np.ndarray, "count feature"]:
    """Returns the rows in float64.

    Raises:
      ValueError: a value is not finite.
    """
    rows = np.asarray(rows, np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {int(np.argmin(finite))} of the features is not finite")
    return rows

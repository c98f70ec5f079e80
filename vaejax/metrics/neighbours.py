"""Exact nearest neighbours of rows, and balls around rows, in bounded memory.

Squared distances of all pairs come from `|a|² + |b|² - 2 a·b`, which is fast, but cancels for rows
that are close. Its rounding error is bounded, and every pair for which it could matter is computed
again from the difference of its rows. Distances are therefore right also for pictures that are
almost or exactly equal.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int64, Num

from vaejax.metrics.moments import checked_rows

# Pairs of rows whose distances are held at once.
_PAIRS = 1 << 22


class Neighbours(NamedTuple):
    """The nearest rows of each row, the nearest first; of equal distances, the first row."""

    distances: Float[np.ndarray, "row k"]
    indices: Int64[np.ndarray, "row k"]


def nearest(
    rows: Num[Array | np.ndarray, "row feature"],
    others: Num[Array | np.ndarray, "other feature"],
    k: int,
    *,
    exclude_self: bool = False,
) -> Neighbours:
    """Finds the `k` rows of `others` with the least Euclidean distance to each row of `rows`.

    Args:
      rows: the rows whose neighbours are wanted.
      others: the rows among which they are found.
      k: number of neighbours.
      exclude_self: `others` are `rows`, and a row is not its own neighbour; its duplicates are.

    Raises:
      ValueError: fewer than `k` neighbours exist, or a value is not finite.
    """
    rows, others = checked_rows(rows), checked_rows(others)
    if not 1 <= k <= len(others) - exclude_self:
        raise ValueError(f"{k} neighbours are wanted among {len(others)} rows")
    distances, indices = np.empty((len(rows), k)), np.empty((len(rows), k), np.int64)
    for start, low, high in _bounds(rows, others):
        if exclude_self:
            themselves = np.arange(len(high))
            low[themselves, start + themselves] = high[themselves, start + themselves] = np.inf
        # The k-th neighbour is no farther than the k-th least of the upper bounds.
        kth = np.partition(high, k - 1, axis=1)[:, k - 1]
        for row, candidates in enumerate(low <= kth[:, None], start):
            chosen = np.flatnonzero(candidates)
            exact = _distances(rows[row][None], others[chosen])
            order = np.argsort(exact, kind="stable")[:k]
            distances[row], indices[row] = exact[order], chosen[order]
    return Neighbours(distances, indices)


def balls_around(
    rows: Num[Array | np.ndarray, "row feature"],
    centres: Num[Array | np.ndarray, "centre feature"],
    radii: Float[np.ndarray, "centre"],
) -> Int64[np.ndarray, "row"]:
    """Counts, for each row, the centres that are closer than their radius.

    Raises:
      ValueError: a value is not finite.
    """
    rows, centres = checked_rows(rows), checked_rows(centres)
    counts = np.empty(len(rows), np.int64)
    for start, low, high in _bounds(rows, centres):
        squares = (radii * radii)[None]
        inside = high < squares
        unsure, near = np.nonzero((low <= squares) & ~inside)
        inside[unsure, near] = _distances(rows[start + unsure], centres[near]) < radii[near]
        counts[start : start + len(inside)] = inside.sum(axis=1)
    return counts


def _bounds(
    rows: Float[np.ndarray, "row feature"], others: Float[np.ndarray, "other feature"]
) -> Iterator[tuple[int, Float[np.ndarray, "block other"], Float[np.ndarray, "block other"]]]:
    """Yields bounds of the squared distances of blocks of rows: their first row, low and high."""
    # The formula cancels least around the mean.
    centre = others.mean(axis=0)[None]
    rows, others = rows - centre, others - centre
    norms, other_norms = (np.sum(x * x, axis=1) for x in (rows, others))
    # Twice the bound on the rounding of products of this many terms, relative to the norms.
    slack = 4 * (rows.shape[1] + 4) * np.finfo(np.float64).eps
    size = max(1, _PAIRS // len(others))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        sums = norms[block, None] + other_norms[None]
        squares = sums - 2 * (rows[block] @ others.T)
        sums *= slack
        yield start, squares - sums, squares + sums


def _distances(
    a: Float[np.ndarray, "#pair feature"], b: Float[np.ndarray, "#pair feature"]
) -> Float[np.ndarray, "pair"]:
    """Computes the distance of each pair of rows; exactly 0 for equal rows."""
    difference = a - b
    return np.sqrt(np.sum(difference * difference, axis=1))

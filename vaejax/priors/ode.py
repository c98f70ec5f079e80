"""Solves ordinary differential equations with a fixed number of steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

Field = Callable[[PyTree, Float[Array, ""]], PyTree]
"""Computes d state / d time from (state, time)."""


def solve(field: Field, state: PyTree, start: float, end: float, steps: int) -> PyTree:
    """Integrates a field over time by the classical fourth-order Runge-Kutta method.

    Args:
      field: the field.
      state: the state at time `start`.
      start: first time.
      end: last time; it may lie before `start`.
      steps: number of equal steps, with four evaluations of the field each.

    Returns:
      The state at time `end`.
    """
    step = (end - start) / steps

    def ahead(state: PyTree, slope: PyTree, length: float) -> PyTree:
        return jax.tree.map(lambda x, dx: x + length * dx, state, slope)

    def advance(state: PyTree, index: Float[Array, ""]) -> tuple[PyTree, None]:
        time = start + step * index
        k1 = field(state, time)
        k2 = field(ahead(state, k1, step / 2), time + step / 2)
        k3 = field(ahead(state, k2, step / 2), time + step / 2)
        k4 = field(ahead(state, k3, step), time + step)
        slope: Any = jax.tree.map(
            lambda a, b, c, d: (a + 2.0 * b + 2.0 * c + d) / 6.0, k1, k2, k3, k4
        )
        return ahead(state, slope, step), None

    return lax.scan(advance, state, jnp.arange(steps, dtype=jnp.float32))[0]

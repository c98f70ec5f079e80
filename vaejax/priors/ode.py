"""Solves ordinary differential equations with a fixed number of steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

Field = Callable[[PyTree, Float[Array, ""]], PyTree]
"""Computes d state / d time from (state, time)."""

# The classical Runge-Kutta method: where in a step each slope is evaluated, from the slope before
# it, and its weight.
_PLACES = (0.0, 0.5, 0.5, 1.0)
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


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

    def ahead(state: PyTree, slope: PyTree, length: Float[Array, ""]) -> PyTree:
        return jax.tree.map(lambda x, dx: x + length * dx, state, slope)

    def advance(state: PyTree, index: Float[Array, ""]) -> tuple[PyTree, None]:
        # A loop over the slopes, so that the field is compiled once and not four times.
        def add_slope(carry: tuple[PyTree, PyTree], part: Array) -> tuple[tuple, None]:
            slope, result = carry
            place, weight = part * step
            slope = field(ahead(state, slope, place), start + step * index + place)
            return (slope, ahead(result, slope, weight)), None

        parts = jnp.array([_PLACES, _WEIGHTS], jnp.float32).T
        no_slope = jax.tree.map(jnp.zeros_like, state)
        (_, state_after), _ = lax.scan(add_slope, (no_slope, state), parts)
        return state_after, None

    return lax.scan(advance, state, jnp.arange(steps, dtype=jnp.float32))[0]

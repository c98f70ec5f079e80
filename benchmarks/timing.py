"""Timing of compiled programs, side by side."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

# Sizes at which a product reaches the device's rate, and takes only a moment on a CPU.
_PRODUCT_SIZE = {"cpu": 2048}
_LARGE_PRODUCT = 8192


def in_turn(
    programs: Mapping[str, Callable[[], object]], *, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Measures seconds per call of each program, `repeats` times, in turn: A B C A B C …

    A machine's speed drifts; programs that take turns meet the same drift, so the ratios of
    one round mean more than any time.

    Args:
      programs: functions by name; each returns arrays to wait for.
      repeats: number of rounds.
      seconds: how long a program is called in each round, at least once.

    Returns:
      For each program its seconds per call, one number for each round.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(repeats):
        for name, program in programs.items():
            calls, start = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - start < seconds:
                jax.block_until_ready(program())
                calls += 1
            times[name].append((time.perf_counter() - start) / calls)
    return times


def rates_of(pairs: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, dict[str, float]]:
    """Returns a rate of the first program, and for each other the rate at its median ratio to it.

    Args:
      pairs: by the other's name, rates of (first, other) that were measured in turn.
    """
    first = statistics.median(mine for turns in pairs.values() for mine, _ in turns)
    ratios = {
        name: statistics.median(theirs / mine for mine, theirs in turns)
        for name, turns in pairs.items()
    }
    return first, {name: first * ratio for name, ratio in ratios.items()}


def spread(times: list[float]) -> float:
    """Returns half the interquartile range, relative to the median; 0 for a single time."""
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / statistics.median(times)


def large_product(dtype: str) -> tuple[Callable[[], jax.Array], float]:
    """Returns a large matrix product, which shows what the device can do, and its FLOPs."""
    size = _PRODUCT_SIZE.get(jax.default_backend(), _LARGE_PRODUCT)
    matrix = jnp.full((size, size), 1.0 / size, dtype)
    product = jax.jit(lambda a: a @ a)
    return lambda: product(matrix), 2.0 * size**3

"""Checks and converts the arguments, other than pictures, of a trained model's methods."""

import numbers
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vaejax.errors import UserError
from vaejax.priors.fitted import FittedPrior
from vaejax.priors.flow_matching import FlowMatching
from vaejax.priors.labels import Given

# z of each picture: one vector, or for a ladder one array for each resolution, coarsest first,
# [batch, group, row, column, channel].
Groups = tuple[Float[np.ndarray, "batch _ _ _ _"], ...]
Latents = Float[np.ndarray, "batch latent"] | Groups
Temperature = float | Sequence[float]


class Sampling(TypedDict, total=False):
    """Where samples come from: the keyword arguments of `TrainedModel.sample`, which says more.

    Attributes:
      seed: seed of the noise.
      temperature: standard deviation of the prior's noise.
      prior: name of the prior.
      labels: values of some labels, on which the prior is conditioned.
      guidance: how strongly samples are drawn towards the labels.
    """

    seed: int
    temperature: Temperature | None
    prior: str | None
    labels: Given | None
    guidance: float


def check_count(count: int, name: str = "count") -> None:
    """Checks that `count` is an integer of at least 1.

    Raises:
      UserError: it is not; the message calls it `name`.
    """
    if not isinstance(count, numbers.Integral) or count < 1:
        raise UserError(f"{name}={count} must be a whole number from 1 on")


def check_fits(count: int, size: int) -> None:
    """Checks that `count` results of `size` bytes each fit into the machine's physical memory.

    Raises:
      UserError: they do not fit.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if count * size > memory:
        raise UserError(
            f"count={count} needs {count * size / 1e9:,.0f} GB, and this machine has "
            f"{memory / 1e9:,.0f} GB of memory; draw fewer at a time, with several seeds"
        )


def key_of(seed: int) -> PRNGKeyArray:
    """Returns the JAX key of a seed.

    Raises:
      UserError: the seed is not an integer in [0, 2^32); JAX would silently drop higher bits.
    """
    if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} must be a whole number from 0 to {2**32 - 1}")
    return jax.random.key(int(seed))


def as_temperatures(
    temperature: Temperature, resolutions: Sequence[Any]
) -> Float[np.ndarray, ""] | Float[np.ndarray, "group"]:
    """Converts temperatures to one float32 number, or to one for each group of a ladder.

    Args:
      temperature: one number; for a ladder also one for each resolution or for each group,
        coarsest first. All are at least 0.
      resolutions: the resolution of each group of a ladder, coarsest first; empty for a flat z.

    Raises:
      UserError: a temperature is negative or not a finite number, or their number is wrong.
    """
    try:
        values = np.squeeze(np.asarray(temperature, np.float64))
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if not np.all((values >= 0) & (values <= np.finfo(np.float32).max)):
        raise UserError(f"temperature={temperature} must be a number from 0 on")
    values = values.astype(np.float32)
    depths = list(Counter(resolutions).values())
    if values.ndim == 0 or (depths and values.shape == (sum(depths),)):
        return values
    if depths and values.shape == (len(depths),):
        return np.repeat(values, depths)
    known = "one"
    if depths:
        known += f", or {len(depths)} (one per resolution), or {sum(depths)} (one per group)"
    raise UserError(f"temperature={temperature} has {values.size} numbers; give {known}")


def recorded_temperature(
    temperature: Temperature, resolutions: Sequence[Any]
) -> float | tuple[float, ...]:
    """Returns temperatures in the form in which an evaluation records them.

    It is one number where all are equal, else the numbers as they were given.

    Args:
      temperature, resolutions: as for `as_temperatures`.

    Raises:
      UserError: a temperature is negative or not a finite number, or their number is wrong.
    """
    as_temperatures(temperature, resolutions)
    values = tuple(np.ravel(np.asarray(temperature, np.float64)).tolist())
    return values[0] if len(set(values)) == 1 else values


def conditioned(
    prior: FittedPrior | None, labels: Given | None, guidance: float
) -> FittedPrior | None:
    """Returns a prior given labels, if there are any.

    Args:
      prior: the prior; None for the model's own.
      labels: values of some labels that the prior has learned, by name; None or empty for none.
      guidance: as for `FlowMatching.given`.

    Raises:
      UserError: the prior has not learned such a label, a value is out of its range, or there is
        guidance without labels.
    """
    if not labels:
        if guidance != 1:
            raise UserError(f"guidance={guidance} is towards labels, and none are given; give some")
        return prior
    if not isinstance(prior, FlowMatching) or not prior.labels:
        raise UserError(
            f"labels={', '.join(labels)}: this prior has learned no labels; name the prior "
            "flow_matching, trained with config.flow.labels, or leave them out"
        )
    return prior.given(labels, guidance)


def as_latents(z: Latents | PyTree[Array], expected: PyTree[jax.ShapeDtypeStruct]) -> Latents:
    """Converts latents to float32 NumPy arrays.

    Args:
      z: latents, as `TrainedModel.encode` returns them.
      expected: the shapes of the model's latents; the first axis may have any size.

    Raises:
      UserError: the latents are not arrays of numbers, have other shapes, or are not finite.
    """
    try:
        leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(z)]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"latents must be arrays of numbers, such as `encode` gives; these are a "
            f"{type(z).__name__}"
        ) from error
    count = len(leaves[0]) if leaves and leaves[0].ndim else 0
    shapes = [(count, *leaf.shape[1:]) for leaf in jax.tree.leaves(expected)]
    if any(not np.all(np.isfinite(leaf)) for leaf in leaves):
        raise UserError("latents hold numbers that are not finite; remove them")
    if not count or [leaf.shape for leaf in leaves] != shapes:
        known = ", ".join(str(("batch", *shape[1:])).replace("'", "") for shape in shapes)
        raise UserError(
            f"latents of shapes {', '.join(str(leaf.shape) for leaf in leaves) or 'nothing'}; "
            f"this model takes {known}"
        )
    return jax.tree.unflatten(jax.tree.structure(expected), leaves)

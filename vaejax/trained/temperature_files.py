"""The file of the temperatures that were fitted to a trained ladder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from vaejax.errors import UserError
from vaejax.files.atomic import replacing
from vaejax.files.strict_json import dumps
from vaejax.records.digests import digest
from vaejax.records.progress import say
from vaejax.trained.decoder_files import FinishedDecoder
from vaejax.trained.prior_files import Origin


def temperatures_path(origin: Origin) -> Path:
    """Returns the path of the fitted temperatures of a run, whether or not it exists."""
    return origin.workdir / "priors" / "temperatures.json"


def save_temperatures(
    origin: Origin, finished: FinishedDecoder | None, values: Sequence[float]
) -> None:
    """Saves temperatures together with the checkpoint and the decoder that they were fitted to.

    Args:
      origin: the checkpoint.
      finished: its finished decoder; None for the model's own.
      values: one temperature for each resolution, coarsest first.

    Raises:
      OSError: the file cannot be written.
    """
    content = {
        "temperatures": list(values),
        "step": origin.step,
        "model": origin.digest,
        "decoder": _decoder_digest(origin, finished),
    }
    with replacing(temperatures_path(origin)) as temporary:
        temporary.write_text(dumps(content) + "\n", encoding="utf-8")


def load_temperatures(origin: Origin, finished: FinishedDecoder | None) -> tuple[float, ...] | None:
    """Returns the temperatures that were fitted to a checkpoint, one for each resolution.

    Returns None if none were fitted. Those of another checkpoint or decoder are not used, which one
    line says.

    Args:
      origin: the checkpoint.
      finished: its finished decoder; None for the model's own.

    Raises:
      UserError: the file is damaged.
    """
    path = temperatures_path(origin)
    if not path.exists():
        return None
    remedy = (
        f"python -m vaejax.fit --workdir={origin.workdir} --prior=temperatures "
        f"--checkpoint={origin.step}"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = tuple(float(value) for value in content["temperatures"])
        step, model, decoder = (content[name] for name in ("step", "model", "decoder"))
    except (ValueError, KeyError, TypeError):
        values = ()
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise UserError(f"{path} is damaged; remove it, and fit temperatures again by {remedy}")
    if step != origin.step:
        other = f"step {step}, and this is step {origin.step}"
    elif model != origin.digest:
        other = "another model than this"
    elif decoder != _decoder_digest(origin, finished):
        other = "another decoder than this"
    else:
        return values
    say(
        f"the temperatures in {origin.workdir} were fitted to {other}: they are not used; others "
        f"are fitted by {remedy}"
    )
    return None


def _decoder_digest(origin: Origin, finished: FinishedDecoder | None) -> int:
    return digest(finished.params) if finished else origin.digest

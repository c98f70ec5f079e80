"""The file of the temperatures that were fitted to a trained ladder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from vaejax.errors import UserError
from vaejax.files.atomic import replacing
from vaejax.files.strict_json import dumps
from vaejax.records.progress import say
from vaejax.trained.prior_files import Origin


def temperatures_path(origin: Origin) -> Path:
    """Returns the path of the fitted temperatures of a run, whether or not it exists."""
    return origin.workdir / "priors" / "temperatures.json"


def save_temperatures(origin: Origin, values: Sequence[float]) -> None:
    """Saves temperatures together with the checkpoint that they were fitted to.

    Args:
      origin: the checkpoint.
      values: one temperature for each resolution, coarsest first.

    Raises:
      OSError: the file cannot be written.
    """
    path = temperatures_path(origin)
    path.parent.mkdir(exist_ok=True)
    content = {"temperatures": list(values), "step": origin.step, "model": origin.digest}
    with replacing(path) as temporary:
        temporary.write_text(dumps(content) + "\n", encoding="utf-8")


def load_temperatures(origin: Origin) -> tuple[float, ...] | None:
    """Returns the temperatures that were fitted to a checkpoint, one for each resolution.

    Returns None if none were fitted. Those of another checkpoint are not used, which one line says.

    Raises:
      UserError: the file is damaged.
    """
    path = temperatures_path(origin)
    if not path.exists():
        return None
    remedy = f"python -m vaejax.fit --workdir={origin.workdir} --prior=temperatures"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = tuple(float(value) for value in content["temperatures"])
        of_checkpoint = content["step"], content["model"]
    except (ValueError, KeyError, TypeError):
        values = ()
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise UserError(f"{path} is damaged; remove it, or write it anew by {remedy}")
    if of_checkpoint == (origin.step, origin.digest):
        return values
    say(
        f"the temperatures in {origin.workdir} were fitted to step {of_checkpoint[0]}, and this is "
        f"step {origin.step}, which is sampled at temperature 1; fit them by {remedy}"
    )
    return None

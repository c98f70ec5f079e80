"""Varies a config as `--sweep=batch_size,width,dtype` asks."""

import itertools

import ml_collections

from vaejax.config import Config
from vaejax.config.settings import changed, resolve
from vaejax.errors import UserError


def variants(config: ml_collections.ConfigDict, sweep: list[str]) -> list[Config]:
    """Returns the config, varied in all combinations of what `sweep` names.

    Args:
      config: the config as it was given, not yet resolved.
      sweep: any of "batch_size" (half, same, double), "width" (likewise) and "dtype" (float32,
        bfloat16).

    Raises:
      UserError: `sweep` names something else.
    """
    base = resolve(config)
    batch, widths = base.train.batch_size, base.model.widths
    choices = {
        "batch_size": ("train.batch_size", [max(1, batch // 2), batch, 2 * batch]),
        "width": ("model.widths", [tuple(max(1, int(w * f)) for w in widths) for f in (0.5, 1, 2)]),
        "dtype": ("model.dtype", ["float32", "bfloat16"]),
    }
    if unknown := [name for name in sweep if name not in choices]:
        raise UserError(f"--sweep={unknown[0]} is none of {', '.join(choices)}")
    keys, values = zip(*(choices[name] for name in sweep)) if sweep else ((), ())
    return [changed(base, dict(zip(keys, chosen))) for chosen in itertools.product(*values)]

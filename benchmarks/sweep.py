"""A config, varied: what `--sweep=batch_size,width,dtype` asks for."""

import itertools

import ml_collections

from vaejax.config import Config
from vaejax.config.settings import changed, resolve
from vaejax.errors import UserError


def variants(config: ml_collections.ConfigDict, sweep: list[str]) -> list[Config]:
    """The config, varied in all combinations of what `sweep` names.

    Raises:
      UserError: it names something else.
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

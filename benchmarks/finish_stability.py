"""Whether a finish ever makes samples worse silently: `python -m benchmarks.finish_stability …`.

Trains models from several seeds: on the pictures of the config, on a few of them, and on those of
one person. Each is finished with the config's settings, those of all pictures also at several times
the learning rates. A finish must make samples better (by what ranks decoders, and without raising
the distance of their thumbnails by more than a quarter), keep the decoder it began with and say so,
or stop early with a reason.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import report
from benchmarks.finish_verdict import FIGURES, Finish, verdict
from benchmarks.runs import finished_run, metrics, start_run
from vaejax import cli, data
from vaejax.config import Config
from vaejax.config.settings import resolve
from vaejax.errors import UserError
from vaejax.records.progress import say
from vaejax.tasks.finish.metrics import RANKING

CONFIG = cli.define_config()
SEEDS = flags.DEFINE_integer("seeds", 4, "Number of seeds, counted from 0.", lower_bound=1)
RATES = flags.DEFINE_multi_float(
    "rate", [1, 3, 10], "Factor of both learning rates; may be given more than once.", lower_bound=0
)
FEW = flags.DEFINE_integer("few", 400, "Number of pictures where there are few.", lower_bound=2)
ONE_PERSON = flags.DEFINE_string(
    "one_person", None, "A .npz file with pictures of one person, such as the Frey faces."
)
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


class Setting(NamedTuple):
    """What the runs of some rows differ in.

    Attributes:
      name: the name in the table.
      model: settings of the model's training.
      rates: factor of both learning rates of the finish.
    """

    name: str
    model: dict[str, Any]
    rates: float = 1.0


def few_pictures(config: Config, path: Path) -> dict[str, Any]:
    """Writes `--few` training pictures and all validation pictures; returns the settings to use.

    Raises:
      UserError: the data cannot be read, or there are not so many pictures.
    """
    splits = data.open_dataset(config.data).splits
    train, valid = (np.asarray(splits[name].images) for name in ("train", "valid"))
    if len(train) < FEW.value:
        raise UserError(f"--few={FEW.value}: there are {len(train)} training pictures; name fewer")
    np.savez(path, images=np.concatenate([train[: FEW.value], valid]))
    return {"data.source": "array", "data.path": path, "data.holdout": (len(valid), 0)}


def finish(model: Path, workdir: Path, setting: Setting, seed: int, config: Config) -> Finish:
    """Finishes a copy of a trained run.

    Args:
      model: work directory of the trained run.
      workdir: work directory of the copy.
      setting: what differs from the config.
      seed: seed of the training.
      config: the config of this command, whose `finish` is used.
    """
    shutil.copytree(model, workdir)
    rates = {
        f"finish.{name}": setting.rates * getattr(config.finish, name)
        for name in ("decoder_rate", "discriminator_rate")
    }
    said = ""
    with start_run(workdir, *_overrides(setting, seed, rates)) as run:
        lines = list(run.lines())
        try:
            run.check()
        except UserError as error:
            said = str(error)
    (stage,) = (workdir / "stages").glob("finish_*")
    return verdict(metrics(stage, "valid"), lines, said)


def row(setting: Setting, found: list[Finish]) -> dict[str, Any]:
    """Returns the row of the table for all seeds of a setting."""
    ends = [one.end for one in found]
    counts = {end: ends.count(end) for end in ("better", "unchanged", "stopped", "worse")}
    figures: dict[str, float] = {}
    for name in FIGURES:
        for when in ("before", "after"):
            figures[f"{name}, {when}"] = float(np.mean([getattr(one, when)[name] for one in found]))
    return {"setting": setting.name, "runs": len(found), **counts, **figures}


def _overrides(setting: Setting, seed: int, others: dict[str, Any]) -> list[str]:
    values = {**setting.model, "train.seed": seed, **others}
    return [f"{name}={value}" for name, value in values.items()]


def all_settings(config: Config, root: Path) -> list[Setting]:
    """Returns the settings to try; writes the few pictures into the directory `root`."""
    found = [
        *(Setting(f"rates times {factor:g}", {}, factor) for factor in RATES.value),
        Setting(f"{FEW.value} pictures", few_pictures(config, root / "few.npz")),
    ]
    if ONE_PERSON.value:
        path = Path(ONE_PERSON.value).expanduser().resolve()
        of_one = {"data.source": "array", "data.path": path, "data.crop": "center"}
        found.append(Setting("one person", of_one))
    return found


def main() -> int:
    """Trains and finishes all models, prints the table; returns 1 if one got worse silently."""
    config = resolve(CONFIG.value)
    if not config.finish.steps:
        raise UserError("config.finish.steps=0 finishes nothing; name a number of updates")
    with tempfile.TemporaryDirectory() as directory:
        root, rows = Path(directory), []
        models: dict[str, Path] = {}
        for setting in all_settings(config, root):
            found = []
            for seed in range(SEEDS.value):
                key = json.dumps([setting.model, seed], default=str)
                if key not in models:  # other rates finish the same model
                    models[key] = root / f"model{len(models)}"
                    say(f"training: {setting.name}, seed {seed}")
                    finished_run(models[key], *_overrides(setting, seed, {"finish.steps": 0}))
                one = finish(models[key], root / "finish", setting, seed, config)
                shutil.rmtree(root / "finish")
                change = f"{one.before[RANKING.metric]:.3g} to {one.after[RANKING.metric]:.3g}"
                say(f"{setting.name}, seed {seed}: {one.end}, {change} {one.said}".rstrip())
                found.append(one)
            rows.append(row(setting, found))
    report.show(rows)
    report.keep(rows, OUT.value)
    return int(any(row["worse"] for row in rows))


if __name__ == "__main__":
    cli.run(main, required=["config"])

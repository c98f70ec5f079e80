"""Trains a VAE: `python -m vaejax.main --config=configs/celeba.py`."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from vaejax import cli
from vaejax.settings import resolve

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept. Default: runs/ and the config file's name."
)


def main() -> int:
    """Trains, or goes on training, and shows what was learned."""
    config = resolve(CONFIG.value)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = Path(WORKDIR.value or f"runs/{name}").expanduser()
    # Only now: a mistake in the settings is told before the heavy imports.
    from vaejax.finishing import finish
    from vaejax.training import Outcome, train
    from vaejax.workdir import claim

    with claim(workdir, config):
        if train(config, workdir) is Outcome.INTERRUPTED:
            return cli.INTERRUPTED
        finish(workdir)
    return 0


if __name__ == "__main__":
    cli.run(main, required=["config"])

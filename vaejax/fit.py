"""Fits a prior to a trained model: `python -m vaejax.fit --workdir=DIR --prior=NAME`."""

from absl import flags

from vaejax import cli
from vaejax.errors import TRY_AGAIN

WORKDIR = cli.define_workdir()
PRIOR = flags.DEFINE_list(
    "prior", None, "gaussian, mixture, flow_matching, or several; for a ladder temperatures."
)
CHECKPOINT = cli.define_checkpoint()
DATA_PATH = cli.define_data_path()
CACHE_DIR = cli.define_cache_dir()
SEED = cli.define_seed("The seed of the codes and of the fit; of a ladder's samples.")


def main() -> int:
    """Fits and saves the priors; a fit that a signal stopped is resumed by the same command."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    from vaejax.stages.fitting import check_priors, fit
    from vaejax.trained.loading import load, open_data
    from vaejax.training.loop import Outcome

    trained = load(workdir, CHECKPOINT.value)
    priors = cli.given(PRIOR)
    check_priors(trained, priors)
    dataset = open_data(trained, DATA_PATH.value, CACHE_DIR.value)
    outcome = fit(trained, priors, dataset, seed=SEED.value)
    return TRY_AGAIN if outcome is Outcome.INTERRUPTED else 0


if __name__ == "__main__":
    cli.run(main, required=["workdir", "prior"])

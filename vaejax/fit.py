"""Fits a prior to a trained model's codes: `python -m vaejax.fit --workdir=DIR --prior=NAME`."""

from absl import flags

from vaejax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Of the run.")
PRIOR = flags.DEFINE_list("prior", None, "gaussian, mixture, flow_matching, or several.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")
DATA_PATH = flags.DEFINE_string("data_path", None, "Where the data lies, if it was moved.")
CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where decoded pictures are kept.")
SEED = flags.DEFINE_integer(
    "seed", 0, "Of the codes and the fit.", lower_bound=0, upper_bound=2**32 - 1
)


def main() -> None:
    """Fits and saves."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    from vaejax.trained.finishing import check_priors, fit
    from vaejax.trained.loading import load, open_data

    trained = load(workdir, CHECKPOINT.value)
    priors = cli.given(PRIOR)
    check_priors(trained, priors)
    dataset = open_data(trained, DATA_PATH.value, CACHE_DIR.value)
    fit(trained, priors, dataset, seed=SEED.value)


if __name__ == "__main__":
    cli.run(main, required=["workdir", "prior"])

"""Fits a prior to a trained model's codes: `python -m vaejax.fit --workdir=DIR --prior=NAME`."""

from absl import flags

from vaejax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Of the run.")
PRIOR = flags.DEFINE_list("prior", None, "gaussian, mixture, flow_matching, or several.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")
DATA_PATH = flags.DEFINE_string("data_path", None, "Where the data lies, if it was moved.")
SEED = flags.DEFINE_integer(
    "seed", 0, "Of the codes and the fit.", lower_bound=0, upper_bound=2**32 - 1
)


def main() -> None:
    """Fits and saves."""
    workdir = cli.existing_run(WORKDIR.value)
    from vaejax.finishing import fit
    from vaejax.loading import load

    trained = load(workdir, CHECKPOINT.value)
    fit(trained, PRIOR.value, seed=SEED.value, data_path=DATA_PATH.value)


if __name__ == "__main__":
    cli.run(main, required=["workdir", "prior"])

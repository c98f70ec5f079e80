"""Measures a trained model on held-out faces: `python -m vaejax.evaluate --workdir=DIR`."""

from absl import flags

from vaejax import cli

WORKDIR = cli.define_workdir()
SPLIT = flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "Which pictures.")
PICTURES = flags.DEFINE_integer(
    "pictures", 0, "Number of pictures of the split, chosen at random; 0: all.", lower_bound=0
)
SAMPLES = flags.DEFINE_integer(
    "importance_samples", None, "K of the importance-weighted bound; default from the config.",
    lower_bound=0,
)  # fmt: skip
PRIOR = flags.DEFINE_string("prior", "model", "model, or a fitted one: gaussian, …")
DATA_PATH = cli.define_data_path()
CACHE_DIR = cli.define_cache_dir()
CHECKPOINT = cli.define_checkpoint()


def main() -> None:
    """Evaluates the model, prints the figures, and writes JSON to `WORKDIR/evaluations/`."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    from vaejax.trained.loading import load
    from vaejax.trained.measuring import measure

    measure(
        load(workdir, CHECKPOINT.value),
        split=SPLIT.value,
        pictures=PICTURES.value,
        importance_samples=SAMPLES.value,
        prior=PRIOR.value,
        data_path=DATA_PATH.value,
        cache_dir=CACHE_DIR.value,
    )


if __name__ == "__main__":
    cli.run(main, required=["workdir"])

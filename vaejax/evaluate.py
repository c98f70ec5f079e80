"""Measures a trained model on held-out faces: `python -m vaejax.evaluate --workdir=DIR`."""

from absl import flags

from vaejax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Of the run.")
SPLIT = flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "Which pictures.")
PICTURES = flags.DEFINE_integer(
    "pictures", 0, "So many of the split, chosen at random; 0: all.", lower_bound=0
)
SAMPLES = flags.DEFINE_integer(
    "importance_samples", None, "K of the importance-weighted bound; default from the config.",
    lower_bound=0,
)  # fmt: skip
PRIOR = flags.DEFINE_string("prior", "model", "model, or a fitted one: gaussian, …")
DATA_PATH = flags.DEFINE_string("data_path", None, "Where the data lies now, if it has moved.")
CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where decoded pictures are kept.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")


def main() -> None:
    """Evaluates, prints, and writes JSON into `evaluations/` of the work directory."""
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

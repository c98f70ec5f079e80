"""Draws what a ladder's latents decide: `python -m vaejax.explore --workdir=DIR`."""

from absl import flags

from vaejax import cli
from vaejax.files.paths import local_path

WORKDIR = flags.DEFINE_string("workdir", None, "Of a run with config.model.name=ladder.")
OUT = flags.DEFINE_string("out", None, "A directory (default: explored in the work directory).")
FACES = flags.DEFINE_integer("faces", 6, "How many.", lower_bound=1, upper_bound=64)
SEED = flags.DEFINE_integer(
    "seed", 0, "The same seed draws the same.", lower_bound=0, upper_bound=2**32 - 1
)
DATA_PATH = flags.DEFINE_string("data_path", None, "Where the data lies now, if it has moved.")
CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where decoded pictures are kept.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")


def main() -> None:
    """Draws three sheets."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    out = local_path("--out", OUT.value or workdir / "explored")
    from vaejax.trained.exploring import explore
    from vaejax.trained.loading import load

    explore(
        load(workdir, CHECKPOINT.value),
        out,
        faces=FACES.value,
        seed=SEED.value,
        data_path=DATA_PATH.value,
        cache_dir=CACHE_DIR.value,
    )


if __name__ == "__main__":
    cli.run(main, required=["workdir"])

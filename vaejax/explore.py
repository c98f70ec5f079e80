"""Draws what each resolution of a ladder controls: `python -m vaejax.explore --workdir=DIR`."""

from absl import flags

from vaejax import cli
from vaejax.files.paths import local_path

WORKDIR = cli.define_workdir()
OUT = flags.DEFINE_string("out", None, "A directory (default: explored in the work directory).")
FACES = flags.DEFINE_integer("faces", 6, "Number of faces.", lower_bound=1, upper_bound=64)
SEED = cli.define_seed("The same seed draws the same.")
DATA_PATH = cli.define_data_path()
CACHE_DIR = cli.define_cache_dir()
CHECKPOINT = cli.define_checkpoint()
DECODER = cli.define_decoder()


def main() -> None:
    """Draws `progressive.png`, `resampled.png` and `temperatures.png`."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    out = local_path("--out", OUT.value or workdir / "explored")
    from vaejax.trained.exploring import explore
    from vaejax.trained.loading import load

    explore(
        load(workdir, CHECKPOINT.value, decoder=DECODER.value),
        out,
        faces=FACES.value,
        seed=SEED.value,
        data_path=DATA_PATH.value,
        cache_dir=CACHE_DIR.value,
    )


if __name__ == "__main__":
    cli.run(main, required=["workdir"])

"""Draws new faces from a trained model: `python -m vaejax.sample --workdir=DIR`."""

import itertools
from pathlib import Path

from absl import flags

from vaejax import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Of the run.")
COUNT = flags.DEFINE_integer("count", 64, "How many faces.", lower_bound=1)
OUT = flags.DEFINE_string(
    "out", None, "A PNG for the grid (default: samples.png in the work directory), or a directory."
)
SEPARATE = flags.DEFINE_bool("separate", False, "One file for each face, in the directory --out.")
PRIOR = flags.DEFINE_string("prior", "model", "model, or a fitted one: gaussian, …")
TEMPERATURE = flags.DEFINE_list(
    "temperature", ["1"], "Spread of the noise; of a ladder also one for each resolution or group."
)
SEED = flags.DEFINE_integer(
    "seed", 0, "The same seed gives the same faces.", lower_bound=0, upper_bound=2**32 - 1
)
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")


def main() -> None:
    """Samples and writes."""
    workdir = cli.existing_run(WORKDIR.value)
    import numpy as np

    from vaejax import pictures
    from vaejax.errors import UserError
    from vaejax.loading import load
    from vaejax.progress import counting, say

    try:
        temperature = [float(word) for word in TEMPERATURE.value]
    except ValueError:
        raise UserError(f"--temperature={','.join(TEMPERATURE.value)} must be numbers") from None
    batches = load(workdir, CHECKPOINT.value).sample_in_batches(
        COUNT.value, seed=SEED.value, temperature=temperature, prior=PRIOR.value
    )
    if SEPARATE.value:
        path = Path(OUT.value or workdir / "samples").expanduser()
        with counting("drawing", COUNT.value) as advance:
            for i, image in enumerate(itertools.chain.from_iterable(batches)):
                pictures.save(path / f"{i:06d}.png", image)
                advance(1)
    else:
        path = Path(OUT.value or workdir / "samples.png").expanduser()
        if path.is_dir():
            raise UserError(f"--out={path} is a directory; name a PNG, or add --separate")
        columns = max(1, round(COUNT.value**0.5))
        pictures.save(path, pictures.grid(np.concatenate(list(batches)), columns))
    say(f"{COUNT.value} faces: {path}")


if __name__ == "__main__":
    cli.run(main, required=["workdir"])

"""Draws new faces from a trained model: `python -m vaejax.sample --workdir=DIR`."""

import itertools
import os
import re
from pathlib import Path

from absl import flags

from vaejax import cli
from vaejax.errors import UserError
from vaejax.files.paths import local_path

WORKDIR = cli.define_workdir()
COUNT = flags.DEFINE_integer("count", 64, "How many faces.", lower_bound=1)
OUT = flags.DEFINE_string(
    "out",
    None,
    "A .png, .jpg or .webp for the grid (default: samples.png in the work directory), or a "
    "directory.",
)
SEPARATE = flags.DEFINE_bool("separate", False, "One file for each face, in the directory --out.")
PRIOR = flags.DEFINE_string(
    "prior", None, "model, or a fitted one: gaussian, … (default: that of the finish, if any)."
)
TEMPERATURE = cli.define_temperature()
SEED = cli.define_seed("The same seed gives the same faces.")
LABELS = flags.DEFINE_list(
    "labels", None, "Labels that the faces shall have, for a flow trained with them: Smiling=1, …"
)
GUIDANCE = flags.DEFINE_float(
    "guidance", 1.0, "How strongly faces are drawn towards the labels; 1: as the data has them."
)
CHECKPOINT = cli.define_checkpoint()
DECODER = cli.define_decoder()


def main() -> None:
    """Draws the faces and writes them as one grid or, with `--separate`, as files."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    import numpy as np

    from vaejax.config.saved import load_json
    from vaejax.records import pictures
    from vaejax.records.progress import counting, say
    from vaejax.trained.loading import load

    columns = max(1, round(COUNT.value**0.5))
    shape = load_json(workdir / "config.json").data.image_size
    out = _directory(workdir) if SEPARATE.value else _file(workdir, columns, shape)
    batches = load(workdir, CHECKPOINT.value, decoder=DECODER.value).sample_in_batches(
        COUNT.value,
        seed=SEED.value,
        temperature=cli.given_temperature(TEMPERATURE),
        prior=PRIOR.value,
        labels=_labels(),
        guidance=GUIDANCE.value,
    )
    with counting("drawing", COUNT.value, shown=COUNT.value > _FEW) as advance:
        if SEPARATE.value:
            for i, image in enumerate(itertools.chain.from_iterable(batches)):
                pictures.save(out / f"{i:06d}.png", image)
                advance(1)
        else:
            faces = []
            for batch in batches:
                faces.append(batch)
                advance(len(batch))
            pictures.save(out, pictures.grid(np.concatenate(faces), columns))
    say(f"{COUNT.value} faces: {out}")


def _file(workdir: Path, columns: int, shape: tuple[int, int]) -> Path:
    """Returns the path of the grid: `--out`, or `samples.png` in it if it is a directory.

    Args:
      workdir: work directory of the run, which holds the default path.
      columns: columns of the grid.
      shape: height and width of a face in pixels.

    Raises:
      UserError: the file cannot be written, or the format of its suffix is unknown or cannot hold a
        grid of this size.
    """
    from vaejax.files.atomic import check_writable
    from vaejax.records.pictures import check_format, sheet_size

    given = OUT.value or str(workdir / "samples.png")
    path = local_path("--out", given)
    if path.is_dir() or given.endswith(("/", os.sep)):
        path = path / "samples.png"
    check_format(path, "--out", sheet_size(COUNT.value, columns, shape))
    check_writable(path, "--out")
    return path


def _directory(workdir: Path) -> Path:
    """Returns the directory for separate faces, which must not hold those of an earlier call.

    Raises:
      UserError: it holds faces, or cannot be written.
    """
    from vaejax.files.atomic import check_writable

    path = local_path("--out", OUT.value or str(workdir / "samples"))
    first = path / "000000.png"
    check_writable(first, "--out")
    if any(_FACE.fullmatch(file.name) for file in path.iterdir()):
        raise UserError(
            f"--out={path} holds faces already, and seeds would be mixed; remove them, or name "
            "another directory"
        )
    return path


def _labels() -> dict[str, float]:
    """Returns the labels by name.

    Raises:
      UserError: there is none, or one is not NAME=NUMBER or is given twice.
    """
    if LABELS.value is None:
        return {}
    parts = [word.rpartition("=") for word in LABELS.value]
    try:
        labels = {name: float(value) for name, _, value in parts}
    except ValueError:
        labels = {}
    if not labels or "" in labels or len(labels) < len(parts):
        raise UserError(
            f"--labels={','.join(LABELS.value)} must be labels with their numbers, each once, such "
            "as Smiling=1,Eyeglasses=0"
        )
    return labels


# Up to this many faces are drawn without a progress display.
_FEW = 1_000
# Names of the files in a directory of separate faces.
_FACE = re.compile(r"\d{6,}\.png")


if __name__ == "__main__":
    cli.run(main, required=["workdir"])

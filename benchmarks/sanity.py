"""Which metric notices which fault: `python -m benchmarks.sanity --config=… --picture=panel.png`.

Half of the held-out faces are disturbed and measured as if a model had generated them; the other
half are the real faces. Each fault gets a row: how far each figure is from its floor, and what the
report says of it in words.
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags

import vaejax
from benchmarks import disturbances, report
from vaejax import cli, data
from vaejax.config.settings import resolve
from vaejax.data.cache.rows import RowCache
from vaejax.data.cache.store import cache_root
from vaejax.data.feed.subsets import random_order
from vaejax.errors import UserError
from vaejax.evaluation.choosing import OF_SETS, Choice, chosen_metrics
from vaejax.evaluation.comparing import compare_sets, observer_for
from vaejax.evaluation.figures import Figure
from vaejax.evaluation.findings import findings
from vaejax.evaluation.picture_sets import FLOOR, REAL, SAMPLES, TRAIN_ALL, rows_of
from vaejax.records import pictures
from vaejax.records.progress import say
from vaejax.runtime.mesh import make_mesh
from vaejax.trained.picture_sets import Measured

CONFIG = cli.define_config()
FEATURES = flags.DEFINE_enum("features", "resnet", ["resnet", "vgg"], "The feature space.")
ATTRIBUTE = flags.DEFINE_string("attribute", "Male", "Faces with it are left out as a fault.")
FAULTS = flags.DEFINE_list("faults", None, "Names of the faults to measure; all by default.")
RUN = flags.DEFINE_string(
    "run", None, "A trained run; its reconstructions and samples are measured as faults too."
)
PICTURE = flags.DEFINE_string("picture", None, "A picture file of faces with each fault.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Faces of a row of the picture.
_SHOWN = 10


def faults(train: Measured, half: Measured) -> dict[str, disturbances.Fault]:
    """Returns the faults by name; the first is none.

    Args:
      train: the training faces.
      half: the faces that are disturbed.
    """
    found: dict[str, disturbances.Fault] = {
        "none": lambda faces: faces,
        "blur 0.5": disturbances.blurred(0.5),
        "blur 1": disturbances.blurred(1.0),
        "blur 2": disturbances.blurred(2.0),
        "noise 8": disturbances.noisy(8.0),
        "JPEG 30": disturbances.compressed(30),
        "tint 8": disturbances.tinted(8.0),
        "shift 3": disturbances.shifted(3),
        "one face": disturbances.repeated(1),
        "20 faces": disturbances.repeated(20),
    }
    having = half.attributes().get(ATTRIBUTE.value)
    if having is not None:
        found[f"no {ATTRIBUTE.value}"] = disturbances.without(having[half.rows])
    learned = train.images[random_order(len(train.images), len(half.rows))]
    found["copies"] = lambda faces: learned
    for name, sampled in (("reconstructed", False), ("sampled", True)):
        fault = disturbances.principal_components(learned, 64, sampled=sampled)
        found[f"linear VAE {name}"] = fault
    if RUN.value:
        trained = vaejax.load(RUN.value)
        found[f"{trained.workdir.name} reconstructed"] = trained.reconstruct
        found[f"{trained.workdir.name} sampled"] = lambda faces: trained.sample(len(faces))
    for name in FAULTS.value or ():
        if name not in found:
            raise UserError(f"--faults={name} is none of {', '.join(found)}")
    return {name: found[name] for name in FAULTS.value or found}


def main() -> None:
    """Prints the table and the words, and writes the picture."""
    settings = resolve(CONFIG.value).data
    dataset, cache = data.open_dataset(settings), RowCache(cache_root(settings))
    if "valid" not in dataset.splits:
        raise UserError("the data has no validation faces; name data that has")
    shape = dataset.splits["valid"].images.shape[1:]
    choice = Choice(OF_SETS, FEATURES.value)
    metrics = chosen_metrics(choice, *shape[:2]).of_sets
    mesh = make_mesh(len(jax.local_devices()), devices=jax.local_devices())
    size = len(dataset.splits["valid"].images)
    order, half = random_order(size, size), size // 2
    real, disturbed = (
        Measured(dataset, "valid", rows) for rows in (order[:half], order[half : 2 * half])
    )
    count = len(dataset.splits["train"].images)
    train = Measured(dataset, "train", random_order(count, count))
    sets = {
        REAL: real.as_set(),
        FLOOR: Measured(dataset, "train", train.rows[-half:]).as_set(),
        TRAIN_ALL: Measured(dataset, "train", train.rows[:-half]).as_set(),
    }
    observer = observer_for(metrics, mesh, cache=cache)
    faces = np.asarray(disturbed.images[disturbed.rows])
    rows: list[report.Row] = []
    shown = []
    for name, fault in faults(train, disturbed).items():
        faulty = fault(faces)
        shown.append(faulty[:_SHOWN])
        found = compare_sets({**sets, SAMPLES: rows_of(faulty)}, metrics, observer).figures
        of_samples = [one for one in found if one.name.endswith(f"_{SAMPLES}")]
        rows.append({"fault": name} | {one.name: _distance(one) for one in of_samples})
        say(f"{name}: {'; '.join(findings(of_samples)) or 'nothing'}")
    report.show(rows)
    if PICTURE.value:
        sheet = pictures.grid(np.concatenate(shown), _SHOWN)
        pictures.save(Path(PICTURE.value), sheet)
    report.keep(rows, OUT.value)


def _distance(figure: Figure) -> float:
    """How far a figure is from its floor: in floors if these are surely above 0, else in std."""
    assert figure.floor is not None
    value, floor = figure.estimate, figure.floor
    if figure.better == "lower" and not floor.value < 2 * floor.std:
        return value.value / floor.value
    return (value.value - floor.value) / max(np.hypot(value.std, floor.std), 1e-12)


if __name__ == "__main__":
    cli.run(main, required=["config"])

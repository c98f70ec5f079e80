"""Compares evaluations of several runs, and shows their pictures side by side."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from vaejax.errors import UserError
from vaejax.evaluation.picture_sets import first
from vaejax.files.atomic import check_writable, replacing
from vaejax.metrics.bootstrap import mean_estimate
from vaejax.records.pictures import grid
from vaejax.records.progress import say
from vaejax.records.tables import markdown
from vaejax.report import render
from vaejax.report.numbers import measured
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.decoder_files import MODEL
from vaejax.trained.loading import load, open_data
from vaejax.trained.picture_sets import measured_faces

# What may differ between evaluations that are compared: what is compared, and where.
FREE = (
    "run", "checkpoint_step", "likelihood", "prior", "prior_density", "temperature", "decoder",
    "date", "device", "jax", "vaejax",
)  # fmt: skip
_COLUMNS = 12


class Evaluated(NamedTuple):
    """A run's newest evaluation of a split.

    Attributes:
      workdir: work directory of the run.
      protocol: how it was measured.
      figures: the figures by name, as `Figure.as_json` gives them.
      of_pictures: by name, the values of each picture; empty if their file is missing.
    """

    workdir: Path
    protocol: dict[str, Any]
    figures: dict[str, dict[str, Any]]
    of_pictures: dict[str, Float[np.ndarray, "picture"]]


def compare(
    workdirs: Sequence[Path],
    split: str,
    report: Path | None = None,
    *,
    data_path: str | None = None,
    cache_dir: str | None = None,
) -> list[dict[str, Any]]:
    """Prints a table of the runs' newest evaluations, and writes it as HTML with pictures.

    Differences are to the first run. Where both runs hold the values of each picture, they are
    compared picture by picture, so that what makes a picture hard for all runs cancels; otherwise
    the spreads of both add up.

    Args:
      workdirs: work directories of two or more runs.
      split: which evaluations.
      report: an HTML file, for which the models draw pictures; None writes none.
      data_path: path of the data; None means each run's `config.data.path`.
      cache_dir: directory of the cache of decoded pictures; None means `config.data.cache_dir`.

    Returns:
      The rows of the table.

    Raises:
      UserError: a run has no evaluation of the split, two evaluations differ in their protocols, or
        `report` cannot be written.
    """
    if report:
        check_writable(report, "--report")
    runs = [newest(workdir, split) for workdir in workdirs]
    for other in runs[1:]:
        check_alike(runs[0], other)
    names = _names(workdirs)
    rows = table(runs, names)
    print(markdown(rows))
    if report:
        sheets = _side_by_side(runs, names, split, data_path, cache_dir)
        shared = {part: value for part, value in runs[0].protocol.items() if part not in FREE}
        page = {"title": " and ".join(names), "protocol": shared, "comparison": rows}
        with replacing(report) as temporary:
            temporary.write_text(render(page, sheets), encoding="utf-8")
        say(f"report: {report}")
    return rows


def newest(workdir: Path, split: str) -> Evaluated:
    """Reads the newest evaluation of a split.

    Raises:
      UserError: there is none, or it is damaged or was written before version 0.2.
    """
    remedy = f"run `python -m vaejax.evaluate --workdir={workdir} --split={split}`"
    found = sorted(
        (workdir / "evaluations").glob(f"{split}_*.json"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise UserError(f"{workdir} has no evaluation of the split {split!r}; {remedy}")
    path = found[-1]
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        figures = {figure["name"]: figure for figure in evaluation["figures"]}
        protocol = evaluation["protocol"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as an evaluation; {remedy}") from error
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            of_pictures = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError):
        of_pictures = {}
    return Evaluated(workdir, protocol, figures, of_pictures)


def check_alike(one: Evaluated, other: Evaluated) -> None:
    """Checks that two evaluations have the same protocol, but for `FREE`.

    Raises:
      UserError: they differ; the message names the first part that does.
    """
    for part in sorted(one.protocol.keys() | other.protocol.keys()):
        values = [run.protocol.get(part) for run in (one, other)]
        if part in FREE or values[0] == values[1]:
            continue
        shown = " and ".join(_short(value) for value in values)
        raise UserError(
            f"{one.workdir} and {other.workdir} cannot be compared: their evaluations differ in "
            f"{part!r} ({shown}); evaluate both in the same way"
        )


def table(runs: Sequence[Evaluated], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a row for each figure that all runs have: values, floor, and differences.

    Args:
      runs: the evaluations.
      names: the columns' names.
    """
    rows = []
    for name, figure in runs[0].figures.items():
        if not all(name in run.figures for run in runs):
            continue
        row: dict[str, Any] = {"figure": name, "better": figure["better"]}
        for run, shown in zip(runs, names):
            row[shown] = measured(run.figures[name]["value"], run.figures[name]["spread"])
        row["real faces"] = measured(figure["floor"], figure["floor_spread"])
        for run, shown in zip(runs[1:], names[1:]):
            row[f"{shown} - {names[0]}"] = measured(*difference(runs[0], run, name))
        rows.append(row)
    return rows


def difference(one: Evaluated, other: Evaluated, name: str) -> tuple[float, float | None]:
    """Returns the second run's figure minus the first one's, and the standard deviation of that."""
    if name in one.of_pictures and name in other.of_pictures:
        same = np.array_equal(one.of_pictures["picture"], other.of_pictures["picture"])
        if same:
            return mean_estimate(other.of_pictures[name] - one.of_pictures[name])
    a, b = one.figures[name], other.figures[name]
    spreads = [a["spread"], b["spread"]]
    std = None if None in spreads else math.hypot(*spreads)
    return b["value"] - a["value"], std


def _names(workdirs: Sequence[Path]) -> list[str]:
    """Returns the runs' shortest names that differ: of their directories, or whole paths."""
    names = [workdir.absolute().name for workdir in workdirs]
    return names if len(set(names)) == len(names) else [str(workdir) for workdir in workdirs]


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _side_by_side(
    runs: Sequence[Evaluated],
    names: Sequence[str],
    split: str,
    data_path: str | None,
    cache_dir: str | None,
) -> dict[str, UInt8[np.ndarray, "height width channel"]]:
    """Draws the same faces and samples of the same noise, a row for each run."""
    mesh = make_mesh(len(jax.local_devices()), devices=jax.local_devices())
    reconstructed: list[np.ndarray] = []
    sampled: list[np.ndarray] = []
    for run in runs:
        decoder = run.protocol.get("decoder", MODEL)
        trained = load(run.workdir, run.protocol["checkpoint_step"], decoder=decoder)
        generator = Generator(
            trained.config, trained.picture_params, mesh, finished=trained.finished is not None
        )
        faces = measured_faces(open_data(trained, data_path, cache_dir), split, 0)
        rows = faces.rows[:_COLUMNS]
        if not reconstructed:
            reconstructed.append(np.asarray(faces.images[rows]))
        decoded = generator.reconstructions(faces.images, rows)
        reconstructed.append(np.concatenate(list(first(decoded.batches(), len(rows)))))
        prior, temperature = (run.protocol.get(name) for name in ("prior", "temperature"))
        # Evaluations of before did not record a temperature, which was 1.
        spread = 1.0 if temperature is None else temperature
        sampled.append(trained.sample(_COLUMNS, prior=prior, temperature=spread))
    order = ", ".join(names)
    return {
        f"Originals, and reconstructions by {order}": grid(
            np.concatenate(reconstructed), len(rows)
        ),
        f"Samples by {order}": grid(np.concatenate(sampled), _COLUMNS),
    }

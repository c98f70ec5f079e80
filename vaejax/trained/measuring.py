"""Evaluates a trained model, and records the figures together with their protocol."""

import datetime
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax.data.cache.rows import RowCache
from vaejax.data.cache.store import cache_root
from vaejax.errors import UserError
from vaejax.evaluation.choosing import EVERYTHING, Choice, Chosen, chosen_metrics, measurable
from vaejax.evaluation.comparing import observer_for
from vaejax.evaluation.findings import findings
from vaejax.files.atomic import check_writable, replacing
from vaejax.files.strict_json import dumps
from vaejax.models import EXACT
from vaejax.priors.density import density_of
from vaejax.records.progress import say
from vaejax.report import render
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.arguments import Temperature, recorded_temperature
from vaejax.trained.decoder_files import FINISHED, MODEL
from vaejax.trained.factors import of_factors
from vaejax.trained.loading import data_config, open_data
from vaejax.trained.measurements import joined, of_likelihood, of_pairs, of_sets
from vaejax.trained.model import TrainedModel
from vaejax.trained.picture_sets import Measured, measured_faces, sets_of
from vaejax.trained.prior_files import OWN_PRIOR
from vaejax.trained.sheets import sheets
from vaejax.version import __version__

# Number of samples that are measured, unless another is named.
DEFAULT_SAMPLES = 2500
# Of pictures with more pixels a side, none is drawn unless a number is named.
LARGEST_UNASKED = 256


def measure(
    trained: TrainedModel,
    *,
    split: str = "valid",
    pictures: int = 0,
    importance_samples: int | None = None,
    prior: str | None = None,
    temperature: Temperature | None = None,
    samples: int | None = None,
    choice: Choice = EVERYTHING,
    report: Path | None = None,
    data_path: str | None = None,
    cache_dir: str | None = None,
) -> dict:
    """Evaluates `trained`, prints the figures, and writes them as JSON to `evaluations/`.

    Args:
      trained: the model.
      split: `train`, `valid` or `test`.
      pictures: number of pictures of the split, chosen at random but always the same ones; 0 for
        all.
      importance_samples: K of the importance-weighted bound, 0 to leave it out; None means
        `config.eval.importance_samples`, or 0 for `flow_matching`.
      prior: `model`, or the name of a fitted prior. The density of `flow_matching` is estimated,
        which suffices for the ELBO but not for the importance-weighted bound. None for
        `TrainedModel.prior`.
      temperature: temperature of the samples, as in `TrainedModel.sample`; None for those that
        were fitted to a ladder, else 1. Likelihoods do not depend on it.
      samples: number of samples for the metrics of sets of pictures, 0 to leave these out; None
        means 2,500, and 0 for pictures of more than 256 pixels a side.
      choice: the metrics.
      report: an HTML file to write as well; None writes none.
      data_path: path of the data; None means `config.data.path`.
      cache_dir: directory of the cache of decoded pictures; None means `config.data.cache_dir`.

    Returns:
      What was written, a dict with `protocol`, `results`, `figures`, `findings` and `curves`.

    Raises:
      UserError: the data is missing or is not the data of the training, there are fewer than two
        pictures, the prior cannot be used, a temperature is out of its range, `report` cannot be
        written, or a metric that was named lacks what it needs; or, after all figures were printed,
        the JSON cannot be written.
    """
    config, prior = trained.config, prior or trained.prior
    density = None if prior == OWN_PRIOR else density_of(trained.fitted_prior(prior))
    is_estimated = bool(density and density.estimate)
    if importance_samples is None:
        importance_samples = 0 if is_estimated else config.eval.importance_samples
    if samples is None:
        samples = DEFAULT_SAMPLES if max(config.data.image_size) <= LARGEST_UNASKED else 0
    _check(importance_samples, prior, samples, is_estimated)
    if temperature is None:
        temperature = trained.default_temperature(prior)
    spread = recorded_temperature(temperature, trained.model.resolutions())
    chosen = chosen_metrics(choice, *config.data.image_size)
    spread_name = _spread_name(spread) if samples else ""
    path = _path(trained, split, pictures, prior + spread_name, importance_samples, choice)
    if report:
        check_writable(report, "--report")
    unwritable = _unwritable(path)
    if unwritable:
        say(f"the figures will be printed but not saved: {unwritable}")
    for line in chosen.left_out:
        say(line)
    faces = measured_faces(open_data(trained, data_path, cache_dir), split, pictures)
    mesh = make_mesh(len(jax.local_devices()), devices=jax.local_devices())
    generator = Generator(
        config, trained.picture_params, mesh, finished=trained.finished is not None
    )
    sets = sets_of(trained, generator, faces, samples, prior, spread)
    set_metrics = measurable(chosen.of_sets, sets, named=choice.metrics is not None)
    parts = []
    if chosen.likelihood:
        log_prior = density.log_prob if density else None
        parts.append(of_likelihood(trained, faces, importance_samples, log_prior, mesh))
    if chosen.of_pairs:
        parts.append(of_pairs(sets, chosen.of_pairs, mesh, generator.batch_size))
    if set_metrics:
        cache = RowCache(cache_root(data_config(trained, cache_dir=cache_dir)))
        size = generator.batch_size
        observer = observer_for(set_metrics, mesh, batch_size=size, cache=cache)
        parts.append(of_sets(sets, set_metrics, observer))
    if chosen.factors:
        parts.append(of_factors(generator, faces, sets))
    measured = joined(parts)
    evaluation = {
        "protocol": _protocol(trained, faces, importance_samples, prior, samples, chosen)
        | ({"temperature": spread} if samples else {})
        | ({"prior_density": density.estimate} if density and density.estimate else {}),
        "results": measured.results,
        "figures": [figure.as_json() for figure in measured.figures],
        "findings": findings(measured.figures, measured.curves),
        "curves": measured.curves,
    }
    for line in [*(figure.line() for figure in measured.figures), *evaluation["findings"]]:
        say(line)
    if unwritable:
        raise UserError(unwritable)
    _write(path, evaluation, {"picture": faces.rows, **measured.of_pictures})
    if report:
        page = render(evaluation, sheets(generator, faces, sets, measured))
        with replacing(report) as temporary:
            temporary.write_text(page, encoding="utf-8")
        say(f"report: {report}")
    return evaluation


def _check(importance_samples: int, prior: str, samples: int, is_estimated: bool) -> None:
    """Raises UserError if an argument of `measure` is out of its range."""
    if importance_samples < 0:
        raise UserError(f"importance_samples={importance_samples} must be a whole number from 0 on")
    if samples < 0 or samples == 1:
        raise UserError(f"samples={samples} must be 0 or a whole number from 2 on")
    if importance_samples and is_estimated:
        # By Jensen's inequality, the noise of the estimates would raise the bound.
        raise UserError(
            f"importance_samples={importance_samples}: the density of prior {prior!r} is "
            "estimated, and an importance-weighted bound of estimates is no bound; leave it out, "
            "or evaluate under model, gaussian or mixture"
        )


def _path(
    trained: TrainedModel,
    split: str,
    pictures: int,
    prior: str,
    importance_samples: int,
    choice: Choice,
) -> Path:
    """Returns the file of an evaluation; those of other choices have other names."""
    parts = [split, *([str(pictures)] if pictures else []), prior, f"k{importance_samples}"]
    parts += [FINISHED] if trained.finished else []
    parts += choice.metrics or ()
    parts += [] if choice.features == EVERYTHING.features else [choice.features]
    if choice.metrics is None and choice.attributes is not None:
        parts.append("with_attributes")
    return trained.workdir / "evaluations" / f"{'_'.join(parts)}_{trained.step:08d}.json"


def _spread_name(temperature: float | tuple[float, ...]) -> str:
    """Returns what a temperature adds to the name of an evaluation's file.

    Several, of which a ladder may have a hundred, are in the protocol; the name has their digest.
    """
    if isinstance(temperature, float):
        return "" if temperature == 1 else f"_t{temperature!r}"
    return f"_t{zlib.crc32(dumps(temperature).encode()):08x}"


def _unwritable(path: Path) -> str:
    """The reason why `path` cannot be written; empty if it can."""
    try:
        check_writable(path, "the report", "make the run's directory writable, or copy the run")
    except UserError as error:
        return str(error)
    return ""


def _protocol(
    trained: TrainedModel,
    faces: Measured,
    importance_samples: int,
    prior: str,
    samples: int,
    chosen: Chosen,
) -> dict:
    networks = {one.extractor.name: dict(one.extractor.protocol) for one in chosen.of_sets} | {
        one.distance.name: dict(one.distance.protocol) for one in chosen.of_pairs
    }
    return {
        "run": trained.workdir.absolute().name,
        "split": faces.split,
        "pictures": f"{len(faces.rows)} of {len(faces.images)}, by a seeded permutation",
        "crop": trained.config.data.crop,
        "image_size": trained.config.data.image_size,
        "data": faces.dataset.fingerprint,
        "likelihood": trained.config.likelihood.name,
        "bits": trained.config.likelihood.bits,
        "prior": prior,
        "decoder": FINISHED if trained.finished else MODEL,
        "bounds": "ELBO with one sample of z; importance-weighted bound with K samples",
        "importance_samples": importance_samples,
        "samples": samples,
        "parameters": "exponential moving average",
        "activations": EXACT,
        "matmul_precision": "highest",
        "reconstruction": "posterior mean, decoded, rounded to 8 bits",
        "ssim": "7x7 uniform window, scikit-image's defaults",
        "extractors": networks,
        "checkpoint_step": trained.step,
        "vaejax": __version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def _write(path: Path, evaluation: dict, of_pictures: dict[str, Any]) -> None:
    """Writes an evaluation as JSON, and the values of each picture to an `.npz` file beside it."""
    with replacing(path) as temporary:
        temporary.write_text(dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    with replacing(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **of_pictures)
    say(f"written with its protocol: {path}")

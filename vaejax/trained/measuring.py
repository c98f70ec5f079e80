"""Evaluates a trained model, and records the figures together with their protocol."""

import datetime
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from vaejax import data
from vaejax.data.feed import pipeline
from vaejax.data.feed.subsets import random_rows
from vaejax.errors import UserError
from vaejax.files.atomic import check_writable, replacing
from vaejax.files.strict_json import dumps
from vaejax.metrics.frechet import frechet_distance, thumbnail_features
from vaejax.models import EXACT
from vaejax.records.progress import counting, say
from vaejax.runtime.mesh import make_mesh, replicated, round_up
from vaejax.tasks.vae.evaluation import evaluate, make_eval_step, summarize
from vaejax.trained.loading import open_data
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import OWN_PRIOR
from vaejax.version import __version__

# Number of samples, and of training pictures, for the thumbnail Fréchet distance.
FRECHET_SAMPLES = 2500


def measure(
    trained: TrainedModel,
    *,
    split: str = "valid",
    pictures: int = 0,
    importance_samples: int | None = None,
    prior: str = OWN_PRIOR,
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
        `config.eval.importance_samples`.
      prior: `model`, or the name of a fitted prior with a fast density: `gaussian` or `mixture`.
      data_path: path of the data; None means `config.data.path`.
      cache_dir: directory of the cache of decoded pictures; None means `config.data.cache_dir`.

    Returns:
      The report that was written, a dict with `protocol` and `results`.

    Raises:
      UserError: the data is missing or is not the data of the training, there are fewer than two
        pictures, or the prior cannot be used; or, after all figures were printed, the report cannot
        be written.
    """
    config = trained.config
    if importance_samples is None:
        importance_samples = config.eval.importance_samples
    if importance_samples < 0:
        raise UserError(f"importance_samples={importance_samples} must be a whole number from 0 on")
    if prior == "flow_matching" and not trained.config.model.has_groups:
        raise UserError(
            "prior 'flow_matching' has no fast exact density for bits/dim; evaluate under "
            "model, gaussian or mixture"
        )
    log_prior = None if prior == OWN_PRIOR else trained.fitted_prior(prior).log_prob
    name = f"{split}{f'_{pictures}' if pictures else ''}_{prior}_k{importance_samples}"
    path = trained.workdir / "evaluations" / f"{name}_{trained.step:08d}.json"
    unwritable = _unwritable(path)
    if unwritable:
        say(f"the figures will be printed but not saved: {unwritable}")
    dataset = open_data(trained, data_path, cache_dir)
    if split not in dataset.splits:
        raise UserError(
            f"the data has no split {split!r}; it has {', '.join(dataset.splits)}: name one with "
            "--split"
        )
    images = dataset.splits[split].images
    chosen = random_rows(len(images), pictures)
    if len(chosen) < 2:
        raise UserError(
            f"{len(chosen)} of the {len(images)} pictures of the split {split!r} are too few "
            "to measure; at least 2 are needed"
        )
    devices = jax.local_devices()
    mesh = make_mesh(len(devices), devices=devices)
    step = make_eval_step(config, mesh, importance_samples=importance_samples, prior=log_prior)
    batch_size = round_up(config.eval.batch_size, mesh)
    batches = pipeline.eval_batches({"image": images}, batch_size=batch_size, chosen=chosen)
    params = jax.device_put(trained.params, replicated(mesh))
    with counting("evaluating", len(chosen)) as advance:
        totals = evaluate(step, params, _counted(batches, advance), mesh)
    assert totals is not None, "two pictures are at least one batch"
    results = summarize(totals, trained.model, config, importance_samples)
    results |= _thumbnail_frechet(trained, images, chosen, dataset.splits["train"].images, prior)
    protocol = _protocol(trained, dataset, split, importance_samples, prior)
    protocol["pictures"] = f"{len(chosen)} of {len(images)}, by a seeded permutation"
    for name, value in results.items():
        say(f"{name:36s} {value:.4f}")
    if unwritable:
        raise UserError(unwritable)
    report = {"protocol": protocol, "results": results}
    _write(path, report)
    say(f"written with its protocol: {path}")
    return report


def _unwritable(path: Path) -> str:
    """The reason why `path` cannot be written; empty if it can."""
    try:
        check_writable(path, "the report", "make the run's directory writable, or copy the run")
    except UserError as error:
        return str(error)
    return ""


def _thumbnail_frechet(
    trained: TrainedModel, images: np.ndarray, chosen: np.ndarray, train: np.ndarray, prior: str
) -> dict[str, float]:
    """Fréchet distances, times 1000, of 8 x 8 thumbnails to the chosen `images`; a proxy, not FID.

    References for the samples: decoded codes of training pictures show what a perfect prior would
    reach, and the training pictures themselves what a perfect model would.
    """
    size, rows = trained.config.eval.batch_size, random_rows(len(train), FRECHET_SAMPLES)
    real = _thumbnails(_in_batches(images, chosen, size))
    compared = {
        "samples": trained.sample_in_batches(FRECHET_SAMPLES, prior=prior),
        "reconstructions": map(trained.reconstruct, _in_batches(images, chosen, size)),
        "decoded_train_codes": (
            # Each batch has noise of its own.
            trained.reconstruct(batch, seed=seed)
            for seed, batch in enumerate(_in_batches(train, rows, size))
        ),
        "train_pictures": _in_batches(train, rows, size),
    }
    return {
        f"thumbnail_frechet_{name}": 1000 * frechet_distance(_thumbnails(batches), real)
        for name, batches in compared.items()
    }


def _thumbnails(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Features of pictures that come in batches, because all may not fit in memory."""
    return np.concatenate([thumbnail_features(batch) for batch in batches])


def _in_batches(pictures: np.ndarray, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (pictures[rows[start : start + size]] for start in range(0, len(rows), size))


def _counted(batches: Iterable[dict], advance: Callable[[int], None]) -> Iterator[dict]:
    for batch in batches:
        yield batch
        advance(int(batch["mask"].sum()))


def _protocol(
    trained: TrainedModel, dataset: data.Dataset, split: str, samples: int, prior: str
) -> dict:
    return {
        "split": split,
        "crop": trained.config.data.crop,
        "image_size": trained.config.data.image_size,
        "data": dataset.fingerprint,
        "likelihood": trained.config.likelihood.name,
        "bits": trained.config.likelihood.bits,
        "prior": prior,
        "bounds": "ELBO with one sample of z; importance-weighted bound with K samples",
        "importance_samples": samples,
        "parameters": "exponential moving average",
        "activations": EXACT,
        "matmul_precision": "highest",
        "reconstruction": "posterior mean, decoded, rounded to 8 bits",
        "ssim": "7x7 uniform window, scikit-image's defaults",
        "thumbnail_frechet": f"8x8 block means in 0..1, {FRECHET_SAMPLES} pictures "
        "(samples of seed 0, training pictures by a seeded permutation), and reconstructions of "
        "all measured pictures, against the measured pictures, times 1000; not FID",
        "checkpoint_step": trained.step,
        "vaejax": __version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def _write(path: Path, report: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(dumps(report, indent=2) + "\n")

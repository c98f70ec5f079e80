"""Chooses the metrics of an evaluation by name, and loads the networks that they need."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vaejax.errors import UserError
from vaejax.evaluation.metric import Metric
from vaejax.evaluation.metrics.attributes import attributes
from vaejax.evaluation.metrics.faces import faces
from vaejax.evaluation.metrics.frechet import frechet
from vaejax.evaluation.metrics.kid import kid
from vaejax.evaluation.metrics.manifold import manifold
from vaejax.evaluation.metrics.novelty import novelty
from vaejax.evaluation.metrics.spectrum import spectrum
from vaejax.evaluation.pairs import PairMetric, ms_ssim_metric, perceptual_metric
from vaejax.evaluation.picture_sets import REAL_SETS, SAMPLES, PictureSet
from vaejax.features import Extractor
from vaejax.features.attributes import TrainedAttributeNetwork
from vaejax.features.faces import load_face_detector
from vaejax.features.inception import load_inception
from vaejax.features.resnet import load_resnet
from vaejax.features.vgg import load_vgg
from vaejax.metrics.frechet import thumbnail_features
from vaejax.metrics.ms_ssim import WINDOW
from vaejax.records.progress import say

# Metrics of the model itself, which no set of pictures has.
LIKELIHOOD = "likelihood"
OF_FEATURES = {"frechet": frechet, "kid": kid, "manifold": manifold, "novelty": novelty}
OF_SETS = ("thumbnails", "spectrum", *OF_FEATURES, "faces")
"""The names of the metrics of sets of pictures."""
USUAL = (LIKELIHOOD, "ms_ssim", "perceptual", *OF_SETS)
"""The names of the metrics that are measured if none is named."""
IN_TRAINING = ("ms_ssim", "perceptual", *OF_SETS)
"""The names of the metrics that validations can measure too, beside the likelihood."""
ATTRIBUTES, FACTORS = "attributes", "factors"
METRICS = (*USUAL, ATTRIBUTES, FACTORS)
"""The names of all metrics."""
SPACES = ("resnet", "vgg", "inception", "attributes")
"""The names of the feature spaces."""

thumbnails = Extractor(
    "8x8 thumbnails",
    {"resize": "8x8 block means", "scaling": "0..1", "version": 1},
    {},
    lambda params, pictures: thumbnail_features(pictures),
)


class Choice(NamedTuple):
    """What is to be measured, as flags name it.

    Attributes:
      metrics: names of `METRICS`; None for those of `USUAL` for which this machine has what they
        need, and for `attributes` if there is such a network.
      features: the feature space, one of `SPACES`.
      inception: file of FID's Inception; needed by the feature space `inception`.
      fid_protocol: preprocessing of FID: `tf`, `pytorch` or `clean`.
      vgg: file of torchvision's VGG16, for the feature space `vgg` and for LPIPS; None takes the
        weights of a package.
      attributes: a network of attributes; needed by the metric and the feature space of that name.
    """

    metrics: tuple[str, ...] | None = None
    features: str = "resnet"
    inception: str | None = None
    fid_protocol: str = "clean"
    vgg: str | None = None
    attributes: TrainedAttributeNetwork | None = None


EVERYTHING = Choice()


class Chosen(NamedTuple):
    """The metrics of an evaluation.

    Attributes:
      likelihood: whether likelihoods are measured.
      factors: whether the factors of procedural faces are measured.
      of_pairs: metrics of reconstructions beside their originals.
      of_sets: metrics of sets of pictures.
      left_out: why metrics are left out that nobody asked for by name.
    """

    likelihood: bool
    factors: bool
    of_pairs: list[PairMetric]
    of_sets: list[Metric]
    left_out: list[str]


def chosen_metrics(choice: Choice, height: int, width: int) -> Chosen:
    """Loads the metrics of a choice for pictures of `height` x `width` pixels.

    Raises:
      UserError: a name is unknown; or a metric that was named needs a package or a file that is
        missing or damaged. If none was named, such metrics are left out.
    """
    names = choice.metrics
    if names is None:
        names = USUAL if choice.attributes is None else (*USUAL, ATTRIBUTES)
    for name in names:
        if name not in METRICS:
            raise UserError(f"metric {name!r} is unknown; known: {', '.join(METRICS)}")
    left_out: list[str] = []

    def loaded(load, what: str):
        """Returns what `load` returns; None if it may be left out and cannot be had."""
        try:
            return load()
        except UserError as error:
            if choice.metrics is not None:
                raise
            left_out.append(f"{what} left out: {error}")
            return None

    of_pairs: list[PairMetric] = []
    of_sets: list[Metric] = []
    if "ms_ssim" in names:
        if min(height, width) >= WINDOW:
            of_pairs.append(ms_ssim_metric(height, width))
        elif choice.metrics is not None:
            raise UserError(
                f"the metric 'ms_ssim' needs pictures of at least {WINDOW} pixels a side, and "
                f"there are {height}x{width}; leave it out"
            )
    if "perceptual" in names:
        perceptual = loaded(lambda: perceptual_metric(choice.vgg), "the perceptual distance is")
        of_pairs += [perceptual] if perceptual else []
    if "thumbnails" in names:
        of_sets.append(frechet("thumbnails", thumbnails, "thumbnail_frechet", scale=1000.0))
    if "spectrum" in names:
        of_sets.append(spectrum("spectrum", height, width))
    if wanted := [name for name in OF_FEATURES if name in names]:
        extractor = loaded(lambda: _space(choice), f"{', '.join(wanted)} are")
        if extractor:
            for name in wanted:
                of_sets.append(OF_FEATURES[name](name, extractor, _part(name, choice.features)))
    if "faces" in names and (detector := loaded(load_face_detector, "faces are")):
        of_sets.append(faces("faces", detector))
    if ATTRIBUTES in names:
        network = _attributes(choice, "--metrics=attributes")
        of_sets.append(attributes(ATTRIBUTES, network.predictor(), network.attributes))
    return Chosen(LIKELIHOOD in names, FACTORS in names, of_pairs, of_sets, left_out)


def measurable(
    metrics: Sequence[Metric], sets: Mapping[str, PictureSet], *, named: bool
) -> list[Metric]:
    """Returns the metrics for which there are the pictures, and prints which are left out.

    Args:
      metrics: the metrics.
      sets: the sets by name; without samples, none is measurable.
      named: whether the user has named the metrics.

    Raises:
      UserError: there are too few pictures for a metric, or none to compare with, and the user has
        named it.
    """
    found: list[Metric] = []
    if SAMPLES not in sets:
        return found
    for metric in metrics:
        # As many training pictures are taken as samples are wanted: samples are named first.
        names = sorted(sets.keys() & set(metric.sets), key=lambda name: (name != SAMPLES, name))
        small = [name for name in names if sets[name].count < metric.least]
        missing = [name for name in metric.sets if name in REAL_SETS and name not in sets]
        if missing:
            line = (
                f"the metric {metric.name!r} needs {missing[0].replace('_', ' ')} beside those "
                "measured, and there are none"
            )
        elif small:
            line = (
                f"the metric {metric.name!r} needs {metric.least} pictures of each set, and there "
                f"are {sets[small[0]].count} {small[0].replace('_', ' ')}"
            )
        else:
            found.append(metric)
            continue
        if named:
            raise UserError(f"{line}; measure more, or leave it out of --metrics")
        say(f"{line}; it is left out")
    return found


def _space(choice: Choice) -> Extractor:
    if choice.features == "inception":
        if choice.inception is None:
            raise UserError(
                "--features=inception needs the network's file; name it with --inception=FILE"
            )
        return load_inception(choice.inception, choice.fid_protocol)
    if choice.features == "attributes":
        return _attributes(choice, "--features=attributes").feature_space()
    return load_resnet() if choice.features == "resnet" else load_vgg(choice.vgg)


def _attributes(choice: Choice, wanted: str) -> TrainedAttributeNetwork:
    if choice.attributes is None:
        raise UserError(
            f"{wanted} needs a network of attributes; train one with configs/celeba_attributes.py, "
            "and name its work directory with --attributes=DIR"
        )
    return choice.attributes


def _part(name: str, space: str) -> str:
    """Returns what the figures' names begin or end with."""
    return f"{name}_{space}" if name in ("frechet", "kid") else space

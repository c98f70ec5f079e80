"""A network of attributes: its task in the loop, its metrics, what it measures, its mistakes."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribute_runs import attribute_config, attribute_settings, write_faces
from picture_trees import ATTRIBUTES
from states import assert_same, last_carry
from stops import stopping_at
from tiny import metrics

import vaejax
from vaejax.config.settings import resolve
from vaejax.data import Dataset, Split, open_dataset
from vaejax.errors import UserError
from vaejax.evaluation.choosing import Choice, chosen_metrics
from vaejax.evaluation.findings import findings
from vaejax.evaluation.metrics.attributes import CHART, attributes
from vaejax.evaluation.observing import Rows
from vaejax.features import Extractor
from vaejax.features.attributes import fitted
from vaejax.metrics import classification
from vaejax.metrics.moments import moments_of
from vaejax.models import build_model
from vaejax.tasks import build_task
from vaejax.tasks.attributes import AttributeTask
from vaejax.tasks.attributes.labels import check_labels
from vaejax.trained.attribute_network import load_attribute_network
from vaejax.training.loop import Outcome, train
from vaejax.training.task import Task


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("celeba") / "faces")


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    """Returns the work directory of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("attributes")
    assert train(attribute_config(faces), workdir) is Outcome.FINISHED
    return workdir


# The task


def test_the_config_chooses_the_task(faces):
    task = build_task(attribute_config(faces))
    assert isinstance(task, AttributeTask) and isinstance(task, Task)
    assert build_task(attribute_config(faces)) is task


def test_the_network_learns_what_can_be_seen(run):
    lines = metrics(run)
    last = lines[-1]
    assert (last["split"], last["pictures"]) == ("valid", 24.0)
    ranked = np.array(last["average_precision_by_attribute"], float)
    assert np.all(ranked[::2] == 1.0) and np.nanmean(ranked[3::2]) < 0.8
    # No picture has the second, so half of its measures are not defined.
    assert last["accuracy_by_attribute"][1] == 1.0
    assert last["balanced_accuracy_by_attribute"][1] is None
    assert np.isfinite(last["balanced_accuracy"]) and np.isfinite(last["average_precision"])
    assert (run / "pictures" / "attributes_00000024.png").is_file()


def test_it_resumes_exactly(run, faces, tmp_path):
    config = attribute_config(faces)
    with stopping_at(15):
        assert train(config, tmp_path) is Outcome.INTERRUPTED
    assert train(config, tmp_path) is Outcome.FINISHED
    task = build_task(config)
    assert_same(last_carry(run, task), last_carry(tmp_path, task))
    assert metrics(run) == metrics(tmp_path)


def test_the_loss_is_the_mean_cross_entropy_in_nats(faces):
    task = build_task(attribute_config(faces))
    params = task.init(jax.random.key(0))
    head = params["attributes"]["head"]
    head["kernel"] = 0.5 * jax.random.normal(jax.random.key(1), head["kernel"].shape)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, (6, 40), np.uint8)
    batch = {"image": jnp.asarray(images), "attributes": jnp.asarray(labels)}
    keys = jax.random.split(jax.random.key(2), 6)
    loss, sums = task.loss("attributes", params, batch, keys, jnp.int32(0))
    logits = np.asarray(task.network.apply({"params": params["attributes"]}, images), np.float64)
    p = 1 / (1 + np.exp(-logits))
    expected = -np.mean(np.where(labels == 1, np.log(p), np.log(1 - p)))
    assert float(loss) == pytest.approx(expected, rel=1e-5) and abs(expected - np.log(2)) > 1e-3
    values = task.summarize({"attributes": sums}, 1)
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["accuracy"] == pytest.approx(np.mean((logits > 0) == labels), rel=1e-5)
    assert not task.divergence(1, values, np.inf) and task.divergence(1, {"loss": 9.0}, 0.1)


# Its mistakes


def test_no_door_of_a_vae_opens_it(run, faces):
    with pytest.raises(UserError, match="holds a network of attributes and no VAE"):
        vaejax.load(run)
    with pytest.raises(UserError, match=r"config\.model\.name=attributes is no VAE"):
        build_model(attribute_config(faces))


def test_a_vae_is_no_network_of_attributes(run, tmp_path):
    shutil.copy(run / "config.json", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a VAE and no network of attributes"):
        load_attribute_network(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("objective", "beta", 0.5),
        ("prior", "layers", 3),
        ("prior", "name", "standard_normal"),
        ("likelihood", "bits", 5),
        ("eval", "best_by", "ssim"),
        ("model", "latent_size", 8),
    ],
)
def test_settings_of_a_vae_are_refused(faces, section, key, value):
    settings = attribute_settings(faces)
    settings.setdefault(section, {})[key] = value
    with pytest.raises(UserError, match=re.escape(f"config.{section}.{key}={value!r} is of")):
        resolve(settings)


def dataset_with(labels: dict) -> Dataset:
    images = np.zeros((4, 16, 16, 3), np.uint8)
    return Dataset({"train": Split(images, labels)}, {}, {})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"yaw": np.zeros(4)}, "has no such label (it has: yaw)"),
        ({"attributes": np.zeros((4, 3))}, "config.model.attributes=40 is not the number"),
        ({"attributes": np.full((4, 40), -1)}, "has other values than 0 and 1"),
        ({"attributes": np.full((4, 40), "x")}, "has other values than 0 and 1"),
    ],
)
def test_data_without_such_attributes_is_refused_in_one_line(labels, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        check_labels(dataset_with(labels), 40)
    assert "\n" not in str(error.value)


# Metrics


@pytest.fixture
def predicted():
    """Returns logits with many ties, and labels of which the last two attributes do not vary."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (200, 6))
    labels[:, 4], labels[:, 5] = 0, 1
    logits = np.round(random.normal(size=(200, 6)) + labels, 1).astype(np.float32)
    return logits, labels


def test_the_metrics_are_those_of_scikit_learn(predicted):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, labels = predicted
    truth, scores = labels[:, :4].T, logits[:, :4].T
    pairs = list(zip(truth, scores))
    for name, expected in {
        "cross_entropy": [sklearn.log_loss(t, 1 / (1 + np.exp(-np.float64(s)))) for t, s in pairs],
        "accuracy": [sklearn.accuracy_score(t, s > 0) for t, s in pairs],
        "balanced_accuracy": [sklearn.balanced_accuracy_score(t, s > 0) for t, s in pairs],
        "average_precision": [sklearn.average_precision_score(t, s) for t, s in pairs],
    }.items():
        found = getattr(classification, name)(logits, labels)
        np.testing.assert_allclose(found[:4], expected, rtol=1e-6, err_msg=name)
        assert np.isnan(found[4:]).all() == (name in ("balanced_accuracy", "average_precision"))


def test_means_leave_out_what_is_not_defined(predicted):
    found = classification.average_precision(*predicted)
    assert classification.mean_of_known(found) == pytest.approx(found[:4].mean())
    assert np.isnan(classification.mean_of_known(found[4:]))
    share = predicted[1].mean(axis=0)
    majority = classification.majority_accuracy(predicted[1])
    np.testing.assert_allclose(majority, np.maximum(share, 1 - share))


# What it measures


def rows(*shares: float, count: int = 400) -> Rows:
    """Returns logits of pictures of which each attribute's share is as given."""
    place = (np.arange(count)[:, None] + 0.5) / count
    logits = np.where(place < np.asarray(shares)[None], 2.0, -2.0).astype(np.float32)
    return Rows(moments_of([logits]), logits)


NAMES = ("Eyeglasses", "Wearing_Hat", "Smiling")
METRIC = attributes("attributes", Extractor("a network", {}, {}, lambda params, x: x), NAMES)


def test_the_metric_compares_shares():
    sets = {
        "real": rows(0.06, 0.05, 0.5),
        "other_real_pictures": rows(0.07, 0.05, 0.5),
        "samples": rows(0.01, 0.05, 0.8),
    }
    (figure,) = METRIC.figures(sets)
    assert figure.name == "attribute_gap_samples" and figure.unit == "%"
    assert figure.estimate.value == pytest.approx((5 + 0 + 30) / 3)
    assert figure.floor.value == pytest.approx(1 / 3)
    assert 0 < figure.estimate.std < 3
    chart = METRIC.curves(sets)[CHART]
    assert chart["x"] == ["Eyeglasses", "Wearing Hat", "Smiling"]
    assert chart["lines"]["samples"] == pytest.approx([1, 5, 80])
    spread = 100 * np.sqrt(0.06 * 0.94 / 400)
    assert chart["spreads"]["real held-out faces"][0] == pytest.approx(spread)


def test_a_finding_names_what_is_missing():
    sets = {"real": rows(0.1, 0.05, 0.5), "other_real_pictures": rows(0.1, 0.05, 0.5)}
    for shares, words in (
        ((0.01, 0.05, 0.8), "samples lack attributes: Eyeglasses 1% against 10% of real faces"),
        ((0.1, 0.05, 0.8), "samples have attributes too often: Smiling 80% against 50%"),
    ):
        of = sets | {"samples": rows(*shares)}
        (sentence,) = findings(METRIC.figures(of), METRIC.curves(of))
        assert words in sentence and "Hat" not in sentence
    same = sets | {"samples": rows(0.1, 0.05, 0.5)}
    assert findings(METRIC.figures(same), METRIC.curves(same)) == []


def test_the_loaded_network_predicts_what_the_run_has_learned(run, faces):
    network = load_attribute_network(run)
    assert network.attributes == tuple(ATTRIBUTES) and network.shape == (16, 16, 3)
    valid = open_dataset(attribute_config(faces).data, progress=False).splits["valid"]
    logits = network.predictor()
    found = np.asarray(logits.apply(logits.params, valid.images))
    best = min((line for line in metrics(run) if "pictures" in line), key=lambda one: one["loss"])
    expected = best["loss_by_attribute"]
    loss = classification.cross_entropy(found, valid.labels["attributes"])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    space = network.feature_space()
    assert space.apply(space.params, valid.images[:3]).shape == (3, 8)
    assert re.fullmatch(r"attribute network \(digest [0-9a-f]{8}\)", space.name)
    assert space.digest() != logits.digest()


def test_pictures_are_fitted_to_the_network():
    grey = np.arange(0, 256, 4, dtype=np.uint8).reshape(1, 8, 8, 1)
    assert fitted(grey, (8, 8, 3)).shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(fitted(grey, (8, 8, 1)), grey)
    colour = np.broadcast_to(np.uint8([200, 100, 50]), (1, 16, 16, 3))
    one = fitted(colour, (8, 8, 1))
    assert one.shape == (1, 8, 8, 1)
    np.testing.assert_allclose(one, 0.299 * 200 + 0.587 * 100 + 0.114 * 50, rtol=1e-5)


def test_the_choice_of_metrics(run):
    network = load_attribute_network(run)
    chosen = chosen_metrics(Choice(("attributes",), attributes=network), 16, 16)
    assert [metric.name for metric in chosen.of_sets] == ["attributes"]
    space = chosen_metrics(Choice(("frechet",), "attributes", attributes=network), 16, 16)
    assert space.of_sets[0].extractor.name == network.name
    for choice in (Choice(("attributes",)), Choice(("frechet",), "attributes")):
        with pytest.raises(UserError, match="name its work directory with --attributes=DIR"):
            chosen_metrics(choice, 16, 16)

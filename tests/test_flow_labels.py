"""The flow prior conditioned on labels: what it learns, guidance, hidden labels, bad labels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flows import no_picture, train_flow
from tiny import tiny, without

from vaejax.config.settings import resolve
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.models.noise import picture_keys
from vaejax.priors import FlowMatching
from vaejax.priors.flow_matching import velocity
from vaejax.priors.labels import Label, condition_of, fit_labels, scaled
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.tasks.flow_prior.hiding import with_hidden

COUNT = 1600
log_prob = jax.jit(FlowMatching.log_prob)
sample = jax.jit(FlowMatching.sample, static_argnums=2)
KEY = jax.random.key(3)
SIDES, HEIGHTS = Label("right", 0.0, 1.0, 0.5, 0.5), Label("height", -3.5, 5.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def toy():
    """Returns codes around (-1, height) and (1, height) with unit noise, and their labels.

    The label `right` says around which; `height` is uniform between -3 and 5.
    """
    rng = np.random.default_rng(0)
    right, height = rng.integers(0, 2, 4000), rng.uniform(-3, 5, 4000)
    centres = np.stack([2.0 * right - 1, height], axis=1)
    return centres + rng.normal(size=(4000, 2)), {"right": right, "height": height}


@pytest.fixture(scope="module")
def prior(toy):
    codes, labels = toy
    return train_flow(codes, 1200, labels=labels)


def moments(prior):
    draws = np.asarray(sample(prior, KEY, COUNT, 1.0))
    return draws.mean(axis=0), draws.std(axis=0)


# What it learns


def test_samples_given_labels_have_their_distribution(prior):
    for right, height in ((0, 4.0), (1, -2.0)):
        mean, spread = moments(prior.given({"right": right, "height": height}))
        np.testing.assert_allclose(mean, [2 * right - 1, height], atol=0.25)
        np.testing.assert_allclose(spread, 1, atol=0.15)


def test_a_label_that_is_not_given_is_averaged_over(prior):
    mean, spread = moments(prior.given({"right": 1}))
    np.testing.assert_allclose(mean, [1, 1], atol=0.25)
    np.testing.assert_allclose(spread, [1, np.sqrt(1 + 64 / 12)], atol=0.2)
    mean, spread = moments(prior.given({"height": 3}))
    np.testing.assert_allclose(mean, [0, 3], atol=0.25)
    np.testing.assert_allclose(spread, [np.sqrt(2), 1], atol=0.2)


def test_without_labels_it_is_the_unconditional_prior(prior, toy):
    mean, spread = moments(prior)
    codes, _ = toy
    np.testing.assert_allclose(mean, codes.mean(axis=0), atol=0.25)
    np.testing.assert_allclose(spread, codes.std(axis=0), atol=0.2)
    for same in (prior.given({}), prior.given({"right": 1}, guidance=0.0)):
        np.testing.assert_allclose(
            sample(same, KEY, COUNT, 1.0), sample(prior, KEY, COUNT, 1.0), atol=1e-4
        )


def test_guidance_moves_samples_further_and_closer_together(prior):
    given = {"right": 1}
    found = [moments(prior.given(given, guidance=weight)) for weight in (1.0, 2.0, 4.0)]
    means = [mean[0] for mean, _ in found]
    assert means[0] + 0.2 < means[1] < means[2] - 0.2
    assert found[2][1][0] < found[0][1][0] - 0.1


def test_the_density_is_that_of_the_labels_that_are_given(prior):
    z = np.random.default_rng(1).normal([1.0, 2.0], 1.0, (COUNT, 2)).astype(np.float32)
    true = scipy.stats.norm([1.0, 2.0]).logpdf(z).sum(axis=1).mean()
    given, free = (
        np.asarray(log_prob(one, z)).mean()
        for one in (prior.given({"right": 1, "height": 2}), prior)
    )
    assert -0.02 < true - given < 0.15 < true - free


def test_guidance_extrapolates_the_velocity(prior):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(5, 2)), jnp.float32)
    given = {"right": 0, "height": 3}
    known = jnp.broadcast_to(jnp.asarray(condition_of(prior.labels, given)), (5, 2, 2))
    times = jnp.full(5, 0.4)
    none, one = (velocity(prior.network, prior.params, x, times, some)
                 for some in (jnp.zeros((5, 2, 2)), known))  # fmt: skip
    guided = prior.given(given, guidance=2.5)
    np.testing.assert_allclose(
        guided._velocity(x, jnp.float32(0.4)), none + 2.5 * (one - none), atol=1e-5
    )


def test_maps_are_conditioned_too():
    """For a few updates: the mean of the maps of a label moves towards theirs."""
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, 1000)
    maps = rng.normal(size=(1000, 8)) + 4 * bright[:, None]
    prior = train_flow(
        maps, 200, latent_shape=(2, 2, 2), batch_size=128, width=16, blocks=1, head_size=8,
        labels={"bright": bright},
    )  # fmt: skip
    dark, light = (moments(prior.given({"bright": of}))[0] for of in (0, 1))
    np.testing.assert_allclose(dark, 0, atol=0.6)
    np.testing.assert_allclose(light, 4, atol=0.6)


# Without labels nothing changes


@pytest.mark.parametrize(
    ("shape", "sizes", "expected"),
    [((4,), {"width": 32, "blocks": 2}, 451.7583708),
     ((2, 2, 2), {"width": 16, "blocks": 2, "head_size": 8}, 1327.5092675)],
)  # fmt: skip
def test_without_labels_training_is_what_it_was_before_there_were_labels(shape, sizes, expected):
    """The expected sums were computed by the version before; rounding may differ."""
    codes = np.random.default_rng(0).normal(size=(64, int(np.prod(shape))))
    prior = train_flow(codes, 10, latent_shape=shape, batch_size=16, **sizes)
    assert prior.labels == () and "labels" not in prior.params
    found = sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(prior.params))
    assert found == pytest.approx(expected, rel=1e-5)


# Hidden labels


def test_labels_are_hidden_all_at_once_or_each_on_its_own():
    count, dropout = 20_000, 0.2
    labels = jnp.asarray(np.random.default_rng(0).normal(size=(count, 3)), jnp.float32)
    keys = picture_keys(KEY, jnp.arange(count))
    hidden = jax.jit(with_hidden, static_argnums=2)
    found = np.asarray(hidden(keys, labels, dropout))
    known = found[..., 1] == 1
    np.testing.assert_array_equal(found[..., 0], np.where(known, labels, 0))
    np.testing.assert_array_equal(found[..., 1], known)
    # Of those that are not hidden at once, half show each number of labels equally often.
    shares = np.bincount(known.sum(axis=1), minlength=4) / count
    expected = 0.8 * (0.5 * np.array([0, 0, 0, 1]) + 0.5 / 4) + 0.2 * np.array([1, 0, 0, 0])
    np.testing.assert_allclose(shares, expected, atol=0.015)
    np.testing.assert_allclose(known.mean(axis=0), 0.8 * 0.75, atol=0.015)
    # They do not depend on the batch.
    np.testing.assert_array_equal(hidden(keys[5:9], labels[5:9], dropout), found[5:9])


# Mirror images


def test_labels_are_mirrored_together_with_their_codes():
    codes = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    yaw = np.linspace(10, 30, 400, dtype=np.float32)[:, None]
    config = without(tiny(), "flow", labels=("yaw",))
    task = FlowPriorTask(
        config,
        {"train": codes, "valid": codes[:5]},
        no_picture,
        {},
        latent_shape=(3,),
        mirrored=codes + 100,
        labels={"train": yaw, "valid": yaw[:5], "mirrored": -yaw},
    )
    examples = task.examples(Dataset({}, {}, {}))
    assert examples["valid"].keys() == {"code", "labels"}
    train = jax.tree.map(jnp.asarray, examples["train"])
    # Scaled by the moments of both.
    both = np.concatenate([train["labels"], train["mirrored_labels"]])
    np.testing.assert_allclose([both.mean(), both.std()], [0, 1], atol=1e-5)
    batch = jax.jit(task.augment)(train, jax.random.key(0))
    assert batch.keys() == {"code", "labels"}
    is_mirrored = np.all(batch["code"] == train["mirrored"], axis=1)
    assert 150 < is_mirrored.sum() < 250
    np.testing.assert_array_equal(is_mirrored, np.asarray(batch["labels"])[:, 0] < 0)


# Values of labels


def test_labels_are_scaled_by_their_kind():
    values = np.array([[0, 10], [1, 20], [1, 30]], np.float32)
    labels = fit_labels(["male", "age"], [values[:1], values[1:]])
    assert labels[0] == Label("male", 0, 1, 0.5, 0.5) and labels[0].is_binary
    assert labels[1] == pytest.approx(("age", 8, 32, 20, np.std([10, 20, 30])))
    found = scaled(labels, values)
    np.testing.assert_array_equal(found[:, 0], [-1, 1, 1])
    np.testing.assert_allclose([found[:, 1].mean(), found[:, 1].std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(condition_of(labels, {"age": 20}), [[0, 0], [0, 1]])
    for no in (0, False, np.False_):
        np.testing.assert_allclose(condition_of(labels, {"male": no}), [[-1, 1], [0, 0]])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"righ": 1}, "no label 'righ'; it has: right, height; did you mean right?"),
     ({"right": 0.5}, "label right=0.5 must be 0 or 1"),
     ({"right": float("nan")}, "label right=nan must be 0 or 1"),
     ({"height": 6}, "label height=6 must be a number from -3.5 to 5.5, about as in the training"),
     ({"height": float("inf")}, "label height=inf must be a number from"),
     ({"height": float("nan")}, "label height=nan must be a number from")],
)  # fmt: skip
def test_a_bad_label_is_one_line(given, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        condition_of([SIDES, HEIGHTS], given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("flow", "message"),
    [({"labels": ("smile", "smile")}, "names a label twice"),
     ({"label_dropout": 0.2}, "config.flow.label_dropout=0.2 hides config.flow.labels"),
     ({"labels": ("smile",), "label_dropout": 1.0}, "must be at least 0 and at most 0.9")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(flow, message):
    with pytest.raises(UserError, match=re.escape(message)):
        resolve({"flow": flow})

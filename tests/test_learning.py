"""Every likelihood trains and samples, and a short run reaches its recorded validation loss."""

import numpy as np
import pytest
from tiny import least, metrics, tiny

import vaejax
from vaejax.data import open_dataset
from vaejax.training.loop import Outcome, train

# Validation loss in bits/dim that `test_a_short_run_reaches_its_recorded_loss` expects. The
# tolerance covers other versions of JAX and other machines: seeds 0, 1 and 2 reach 7.07, 7.08 and
# 7.05. A change that costs 0.1 bits/dim fails: with half the learning rate the run reaches 7.15,
# with codes that carry nothing (beta=100) 7.61.
EXPECTED, TOLERANCE = 7.07, 0.05


@pytest.fixture(scope="module")
def dataset():
    return open_dataset(tiny().data)


# `tiny.py` has a logistic likelihood with one scale for each position, and eight bits.
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("logistic", {"scale": "predicted", "bits": 5}),
        ("logistic", {"scale": "fixed"}),
        ("gaussian", {"scale": "shared"}),
        ("bernoulli", {}),
        ("mixture", {"components": 2, "bits": 5}),
    ],
)
def test_every_likelihood_trains_and_samples(name, settings, dataset, tmp_path):
    """The loaded model gives the validation pictures the likelihood that training logged."""
    config = least(
        likelihood={"name": name, **settings},
        model={"widths": (8,), "blocks": (0,)},
        train={"steps": 1, "log_every": 1, "eval_every": 1, "save_every": 1},
    )
    assert train(config, tmp_path, dataset=dataset) is Outcome.FINISHED
    *_, valid = metrics(tmp_path)
    bits = config.likelihood.bits
    assert valid["split"] == "valid" and 0.5 * bits < valid["elbo_bits_per_dim"] < 2.5 * bits
    model = vaejax.load(tmp_path)
    faces = model.sample(2)
    assert faces.dtype == np.uint8 and faces.shape == (2, 28, 28, 3)
    bound = model.log_likelihood(dataset.splits["valid"].images, samples=2)
    assert np.mean(bound) == pytest.approx(valid["elbo_nats"], rel=0.02)


def test_a_short_run_reaches_its_recorded_loss(tmp_path):
    config = tiny(
        data={"synthetic_counts": (256, 64, 0)},
        model={"latent_size": 8},
        optimizer={"warmup_steps": 10, "learning_rate": 1e-2, "ema_decay": 0.9},
        train={"steps": 80, "batch_size": 16, "log_every": 80, "eval_every": 80, "save_every": 80},
    )
    assert train(config, tmp_path) is Outcome.FINISHED
    *_, valid = metrics(tmp_path)
    assert valid["elbo_bits_per_dim"] == pytest.approx(EXPECTED, abs=TOLERANCE)

"""Every likelihood trains and samples, and a short run reaches its recorded validation loss."""

import numpy as np
import pytest
from tiny import metrics, tiny

import vaejax
from vaejax.training.loop import Outcome, train

# Validation loss in bits/dim that `test_a_short_run_learns_what_it_did` expects. The tolerance
# covers other versions of JAX and other machines; a change that costs 0.1 bits/dim fails.
EXPECTED, TOLERANCE = 6.63, 0.05


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("logistic", {"scale": "shared"}), ("logistic", {"scale": "position"}),
        ("logistic", {"scale": "predicted", "bits": 5}),
        ("logistic", {"scale": "fixed", "bits": 5}),
        ("gaussian", {"scale": "shared"}), ("gaussian", {"scale": "predicted"}), ("bernoulli", {}),
        ("mixture", {"components": 2}), ("mixture", {"components": 2, "bits": 5}),
    ],
)  # fmt: skip
def test_every_likelihood_trains_and_draws(name, own, tmp_path):
    config = tiny(
        likelihood={"name": name, **own},
        model={"widths": (8,), "blocks": (1,)},
        train={"steps": 2, "log_every": 1, "eval_every": 2},
        prior={"fitted": ()},
    )
    assert train(config, tmp_path) is Outcome.FINISHED
    *_, valid = metrics(tmp_path)
    bits = config.likelihood.bits
    assert valid["split"] == "valid" and 0.5 * bits < valid["elbo_bits_per_dim"] < 2.5 * bits
    model = vaejax.load(tmp_path)
    faces = model.sample(2)
    assert faces.dtype == np.uint8 and faces.shape == (2, 28, 28, 3)
    bound = model.log_likelihood(faces, samples=2)
    assert np.all(np.isfinite(bound)) and np.all(bound < 0)


def test_a_short_run_learns_what_it_did(tmp_path):
    config = tiny(
        data={"synthetic_counts": (512, 128, 0)},
        model={"widths": (16, 32), "latent_size": 16},
        optimizer={"warmup_steps": 20, "learning_rate": 3e-3, "ema_decay": 0.95},
        train={"steps": 300, "batch_size": 16, "log_every": 100, "eval_every": 300,
               "save_every": 300},
        prior={"fitted": ()},
    )  # fmt: skip
    assert train(config, tmp_path) is Outcome.FINISHED
    *_, valid = metrics(tmp_path)
    assert valid["elbo_bits_per_dim"] == pytest.approx(EXPECTED, abs=TOLERANCE)

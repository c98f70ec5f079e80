"""One update: its loss under the objective's settings, the learning rate, the mirroring."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ladders import pictures
from parameters import away_from_start, start
from tiny import least, tiny, tiny_ladder

from vaejax.likelihoods import build_likelihood
from vaejax.models import build_model
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.augmentation import mirror
from vaejax.tasks.vae import NET, task, vae_task
from vaejax.tasks.vae.evidence import evidence
from vaejax.tasks.vae.task import beta_at
from vaejax.training.state import Carry, shapes
from vaejax.training.step import make_train_step, step_keys


def test_beta_grows_linearly():
    config = tiny(objective={"beta": 0.5, "warmup_steps": 4})
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        np.testing.assert_allclose(beta_at(config.objective, jnp.int32(step)), 0.5 * share)
    assert beta_at(tiny().objective, jnp.int32(0)) == 1.0, "no warm-up: beta is at its full value"


def test_the_loss_follows_the_objective_and_a_rate_of_zero_changes_no_parameter():
    """Half of the KL warm-up is over; the free bits are the median KL per latent of the groups."""
    small = {
        "data": {"image_size": (20, 16), "channels": 1, "flip": False},
        "model": {"widths": (4, 6), "blocks": (2, 1)},
    }
    plain = tiny_ladder(**small)
    model, params = build_model(plain), away_from_start(build_model(plain), plain)
    images, at = pictures(plain, 8), jnp.int32(1)
    keys = jax.random.split(step_keys(jax.random.key(0), at)[1], 8)
    look = jax.jit(functools.partial(evidence, model), static_argnums=1)
    terms = jax.device_get(look(params, build_likelihood(plain), images, keys))
    kl, sizes = np.mean(terms.inference.kl, axis=0, dtype=np.float64), np.array(model.factors())
    free = float(np.median(kl / sizes))
    objective = {"beta": 0.5, "warmup_steps": 4, "free_bits": free, "balance": True}
    config = tiny_ladder(**small, objective=objective)
    weights = 0.5 + 0.5 * (kl / sizes) / np.mean(kl / sizes)
    pressed = np.sum(weights * np.maximum(kl, free * sizes))
    expected = 0.5 * 0.5 * pressed - np.mean(terms.log_likelihood, dtype=np.float64)

    task = vae_task(config)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes(task))
    net = zeros.state.nets[NET].replace(params=params)
    key = jax.random.key_data(jax.random.key(0))
    state = zeros.state.replace(nets={NET: net}, step=at, key=key)
    assert state.learning_rate_scale == 0.0
    before = jax.device_get(params)
    train_step = make_train_step(task, config.train, single_device_mesh())
    (state, _), loss = train_step(Carry(state, zeros.window), {"image": images[None]})
    np.testing.assert_allclose(loss, expected / (20 * 16), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.nets[NET].params, before)
    assert state.skipped() == 0


def test_without_free_bits_the_loss_is_the_negative_elbo_whatever_the_sign_of_the_kl(monkeypatch):
    """Under a learned prior, the KL is estimated from samples, which may be negative."""
    vae = vae_task(least())
    images, keys = pictures(vae.config, 2), jax.random.split(jax.random.key(1), 2)
    params = {NET: start(vae.model, vae.config)}
    look = jax.jit(functools.partial(evidence, vae.model), static_argnums=1)
    terms = look(params[NET], build_likelihood(vae.config), images, keys)
    below = terms._replace(inference=terms.inference._replace(kl=-terms.inference.kl))
    for each in (terms, below):
        monkeypatch.setattr(task, "evidence", lambda *_, found=each, **__: found)
        loss, _ = vae.loss(NET, params, {"image": images}, keys, jnp.int32(0))
        np.testing.assert_allclose(loss, -np.mean(each.elbo()) / images[0].size, rtol=1e-5)


def test_half_of_the_pictures_are_mirrored_with_the_labels_that_have_a_side():
    images, degrees = pictures(tiny(), 200), jnp.linspace(1.0, 30.0, 200)
    batch = {"image": images, "yaw": degrees, "smile": degrees, "index": jnp.arange(200)}
    mirrored = mirror(batch, jax.random.key(0), sided=["yaw"])
    same = np.all(mirrored["image"] == images, axis=(1, 2, 3))
    turned = np.all(mirrored["image"] == images[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(same ^ turned) and 70 < np.sum(turned) < 130
    np.testing.assert_array_equal(mirrored["yaw"], np.where(turned, -degrees, degrees))
    for name in ("smile", "index"):
        np.testing.assert_array_equal(mirrored[name], batch[name])

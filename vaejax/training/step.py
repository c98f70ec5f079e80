"""What happens on the devices: the training state and one update of it."""

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from vaejax import objectives
from vaejax.config import Config
from vaejax.likelihoods import Images, Likelihood, build_likelihood
from vaejax.models import init_params
from vaejax.runtime.compiling import jit
from vaejax.runtime.mesh import replicated, split_batch, state_shardings
from vaejax.training.evidence import Evidence, Sums, empty_sums, evidence, sums_of
from vaejax.training.optimizer import learning_rate, no_moments, shortening, typical_norm, update

# Purposes folded into the key of a step; each random number has one.
FLIP, POSTERIOR = 0, 1


class Window(NamedTuple):
    """Sums over the updates since the last log, kept on the devices.

    They are part of the state, so nothing is read back between two logs and a run that
    resumes in the middle of a window logs the same line as one that never stopped.
    """

    updates: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    sums: Sums


class TrainState(struct.PyTreeNode):
    """What an update changes or draws from. With the data it determines the rest of a run.

    The fields carry no array types: JAX and Orbax rebuild the state with shapes, shardings and
    placeholders in their places.

    Attributes:
      step: int32, updates tried so far, applied or skipped.
      key: uint32[2], the root of all random numbers. In the state and not in the program, so that
        runs from several seeds share what was compiled once.
      params, ema_params: float32, of the model and their running average.
      moments: of the gradients, as `optimizer.update` keeps them.
      skipped: int32, updates skipped because loss or gradient was not finite.
      skipped_in_row: int32, those since the last applied update.
      typical_norm: float32, of the gradient; 0 before the first update.
      rollbacks: int32, so far.
      learning_rate_scale: float32, lowered at each rollback.
      window: the sums since the last log.
    """

    step: PyTree
    key: PyTree
    params: PyTree
    ema_params: PyTree
    moments: PyTree
    skipped: PyTree
    skipped_in_row: PyTree
    typical_norm: PyTree
    rollbacks: PyTree
    learning_rate_scale: PyTree
    window: Window


def warmth_at(config: Config, step: Int[Array, ""]) -> Float[Array, ""]:
    """The share of the KL term's warm-up that is over."""
    warmup = max(config.objective.warmup_steps, 1)
    return jnp.minimum(1.0, (step.astype(jnp.float32) + 1.0) / warmup)


def beta_at(config: Config, step: Int[Array, ""]) -> Float[Array, ""]:
    """The weight of the KL term, grown linearly from 0 over the warm-up."""
    return config.objective.beta * warmth_at(config, step)


def init_state(model: nn.Module, config: Config, key: PRNGKeyArray) -> TrainState:
    """The state before the first update."""
    params = init_params(model, config, key)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        step=zero,
        key=jax.random.key_data(key),
        params=params,
        ema_params=params,
        moments=no_moments(params),
        skipped=zero,
        skipped_in_row=zero,
        typical_norm=jnp.zeros((), jnp.float32),
        rollbacks=zero,
        learning_rate_scale=jnp.ones((), jnp.float32),
        window=empty_window(model),
    )
    # An update donates every buffer, so no two fields may share one.
    return jax.tree.map(jnp.copy, state)


@runtime_checkable
class TrainStep(Protocol):
    """What `make_train_step` compiles."""

    def __call__(
        self, state: TrainState, batches: Array, *pictures: Images
    ) -> tuple[TrainState, Float[Array, ""]]:
        """The state after the updates, and the last loss."""

    def trace(self, *inputs: PyTree) -> jax.stages.Traced:
        """The program for inputs of these shapes, not yet compiled."""


@functools.cache
def starting(model: nn.Module, config: Config) -> Callable[[PRNGKeyArray], TrainState]:
    """`init_state` of a key; one function for each model, which JAX then traces only once."""
    return functools.partial(init_state, model, config)


def state_shapes(model: nn.Module, config: Config) -> TrainState:
    """The state as shapes and types; nothing is computed."""
    return jax.eval_shape(starting(model, config), jax.random.key(0))


def empty_window(model: nn.Module) -> Window:
    """A window over no updates."""
    zero = jnp.zeros((), jnp.float32)
    return Window(zero, zero, empty_sums(len(model.factors()), model.code_size()))


def step_keys(root: PRNGKeyArray, step: Int[Array, ""]) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """The keys of one step: (flips, posterior noise).

    Threefry is partitionable, so an example's numbers do not depend on the devices.
    """
    key = jax.random.fold_in(root, step)
    return jax.random.fold_in(key, FLIP), jax.random.fold_in(key, POSTERIOR)


def mirror(images: Images, key: PRNGKeyArray) -> Images:
    """Mirrors half of the pictures at random."""
    mirrored = jax.random.bernoulli(key, 0.5, images.shape[:1])
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def make_train_step(
    model: nn.Module, config: Config, mesh: Mesh, *, on_device: bool = False
) -> TrainStep:
    """Compiles lazily: (state, images [dispatch, batch, ...]) -> (state, last loss).

    One call makes `config.train.steps_per_dispatch` updates. The state is donated. The loss,
    in nats per dimension, is what the loop waits on to keep one call ahead of the devices.

    Args:
      model: the VAE.
      config: of its run.
      mesh: the devices.
      on_device: every device holds all training pictures: the function takes (state, index
        [dispatch, batch], pictures), and picks each batch out of `pictures` itself.
    """
    likelihood = build_likelihood(config)
    parts = config.train.accumulate
    sizes = jnp.asarray(model.factors(), jnp.float32)
    everywhere, split = replicated(mesh), split_batch(mesh, leading_axes=1)
    placed = state_shardings(mesh, state_shapes(model, config))

    def loss_of(params, images, keys, at):
        # Shards of parameters are put together for their use, never activations in their place.
        params = jax.lax.with_sharding_constraint(params, everywhere)
        terms = evidence(model, params, likelihood, images, keys, dropout=keys)
        kl = jnp.mean(terms.inference.kl, axis=0)
        pressed = objectives.free_bits(kl, config.objective.free_bits * sizes)
        if config.objective.balance:
            pressed = pressed * objectives.balance(kl, sizes, warmth_at(config, at))
        loss = beta_at(config, at) * jnp.sum(pressed) - jnp.mean(terms.log_likelihood)
        # In nats per dimension, so that one learning rate and one clipping norm serve every
        # picture size.
        loss = loss / images[0].size
        return loss, _window_of(terms, images, likelihood)

    def gradients_of(params, images, keys, at):
        """Mean loss, window and gradient over the equal parts of a batch, one at a time."""
        value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
        if parts == 1:
            return value_and_grad(params, images, keys, at)

        def add(total, part):
            return jax.tree.map(jnp.add, total, value_and_grad(params, *part, at)), None

        # Part i takes every parts-th example, so that no example changes its device.
        split = [x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for x in (images, keys)]
        shapes = jax.eval_shape(value_and_grad, params, split[0][0], split[1][0], at)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        ((loss, window), gradients), _ = jax.lax.scan(add, zeros, tuple(split))
        # Sums stay sums; the loss and the gradients are averaged.
        window = window._replace(updates=window.updates / parts)
        mean = jax.tree.map(lambda leaf: leaf / parts, (loss, gradients))
        return (mean[0], window), mean[1]

    def advance(state: TrainState, images: Images) -> tuple[TrainState, Float[Array, ""]]:
        flip_key, noise_key = step_keys(jax.random.wrap_key_data(state.key), state.step)
        if config.data.flip:
            images = mirror(images, flip_key)
        keys = jax.random.split(noise_key, images.shape[0])
        (loss, window), gradients = gradients_of(state.params, images, keys, state.step)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        params, moments, ema_params = update(
            config.optimizer,
            state.params,
            state.moments,
            state.ema_params,
            gradients,
            shorten=shortening(config.optimizer, norm, state.typical_norm),
            count=state.step - state.skipped,
            rate=learning_rate(config, state.step) * state.learning_rate_scale,
            apply=finite,
        )
        old_window = _restarted(state.window, state.step % config.train.log_every == 0)
        new_window = jax.tree.map(jnp.add, old_window, window._replace(gradient_norm=norm))
        skip = (~finite).astype(jnp.int32)
        return TrainState(
            step=state.step + 1,
            key=state.key,
            params=params,
            ema_params=ema_params,
            moments=moments,
            skipped=state.skipped + skip,
            skipped_in_row=(state.skipped_in_row + skip) * skip,
            typical_norm=jnp.where(
                finite, typical_norm(config.optimizer, norm, state.typical_norm), state.typical_norm
            ),
            rollbacks=state.rollbacks,
            learning_rate_scale=state.learning_rate_scale,
            window=_where(finite, new_window, old_window),
        ), loss

    def dispatch(
        state: TrainState, batches: Array, *pictures: Images
    ) -> tuple[TrainState, Float[Array, ""]]:
        def one(state: TrainState, batch: Array) -> tuple[TrainState, Float[Array, ""]]:
            if on_device:
                batch = pictures[0].at[batch].get(mode="promise_in_bounds")
            return advance(state, batch)

        if batches.shape[0] == 1:
            return one(state, batches[0])
        state, losses = jax.lax.scan(one, state, batches)
        return state, losses[-1]

    return jit(
        dispatch,
        mesh=mesh,
        donate_argnums=0,
        in_shardings=(placed, split, *[everywhere] * on_device),
        out_shardings=(placed, everywhere),
    )


def _where(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _restarted(window: Window, restart: Bool[Array, ""]) -> Window:
    return _where(restart, jax.tree.map(jnp.zeros_like, window), window)


def _window_of(terms: Evidence, images: Images, likelihood: Likelihood) -> Window:
    everyone = jnp.ones(images.shape[0], jnp.float32)
    return Window(
        updates=jnp.ones((), jnp.float32),
        gradient_norm=jnp.zeros((), jnp.float32),
        sums=sums_of(jax.lax.stop_gradient(terms), likelihood, images, everyone),
    )

"""The training step: updates of any task's networks on the devices."""

import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from vaejax.config import OptimizerConfig, TrainConfig
from vaejax.runtime.compiling import jit
from vaejax.runtime.mesh import replicated, split_batch
from vaejax.runtime.shards import computing_on, gathered_params, state_shardings
from vaejax.training.optimizer import gradient_norm_ema, gradient_scale, learning_rate, update
from vaejax.training.state import Carry, Net, Window, shapes
from vaejax.training.task import Batch, Task

# Folded into the key of a step, one for each purpose of its random numbers.
AUGMENT, NOISE = 0, 1


def step_keys(root: PRNGKeyArray, step: Int[Array, ""]) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Returns the random keys of one step: (augmentation, noise).

    Threefry is partitionable, so an example's numbers do not depend on the devices.
    """
    key = jax.random.fold_in(root, step)
    return jax.random.fold_in(key, AUGMENT), jax.random.fold_in(key, NOISE)


@runtime_checkable
class TrainStep(Protocol):
    """The jitted training step that `make_train_step` returns."""

    def __call__(
        self, carry: Carry, batches: Batch, *resident: Batch
    ) -> tuple[Carry, Float[Array, ""]]:
        """Makes the updates; returns the new carry, and the loss of the last update."""

    def trace(self, *inputs: PyTree) -> jax.stages.Traced:
        """Traces the program for inputs of these shapes, without compiling it."""


def make_train_step(
    task: Task, settings: TrainConfig, mesh: Mesh, *, on_device: bool = False
) -> TrainStep:
    """Returns the jitted step: (carry, batches [dispatch, batch, ...]) -> (carry, last loss).

    It is compiled when it is called first. One call makes `settings.steps_per_dispatch` updates of
    every network that is trained, and donates the carry. The loss is the sum of the networks'
    losses in the last update; the loop waits for it, to stay one call ahead of the devices.

    Args:
      task: what is trained.
      settings: settings of the loop.
      mesh: the devices.
      on_device: whether every device holds the whole training split. The function then takes
        (carry, batches, split), where the batches have only `index`, [dispatch, batch], and picks
        the examples out of `split`.
    """
    everywhere, split = replicated(mesh), split_batch(mesh, leading_axes=1)
    placed = state_shardings(mesh, shapes(task))
    trained = {name: own for name, own in task.optimizers.items() if own is not None}

    def gradients_of(
        net: str, params: dict[str, PyTree], batch: Batch, keys: Array, step: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, ""], PyTree], PyTree]:
        """Returns ((mean loss, sums), gradient) over the equal parts of a batch, one at a time."""

        def loss_of(own: PyTree, batch: Batch, keys: Array) -> tuple[Float[Array, ""], PyTree]:
            # Gathers the shards of parameters here; otherwise XLA might gather activations instead.
            every = {**params, net: own}
            whole = {name: gathered_params(some, mesh) for name, some in every.items()}
            with computing_on(mesh):
                return task.loss(net, whole, batch, keys, step)

        def value_and_grad(
            own: PyTree, batch: Batch, keys: Array
        ) -> tuple[tuple[Float[Array, ""], PyTree], PyTree]:
            found, gradients = jax.value_and_grad(loss_of, has_aux=True)(own, batch, keys)
            # Sharded as the parameters are, as soon as they are summed over the devices.
            own_shards = placed.state.nets[net].params
            return found, jax.lax.with_sharding_constraint(gradients, own_shards)

        return _accumulated(value_and_grad, params[net], (batch, keys), settings.accumulate)

    def advance(carry: Carry, batch: Batch) -> tuple[Carry, Float[Array, ""]]:
        state, window = carry
        augment_key, noise_key = step_keys(jax.random.wrap_key_data(state.key), state.step)
        batch = task.augment(batch, augment_key)
        keys = jax.random.split(noise_key, len(jax.tree.leaves(batch)[0]))
        params = {name: net.params for name, net in state.nets.items()}
        nets, norms, sums, losses, applied = dict(state.nets), {}, {}, [], jnp.array(True)
        for name, own in trained.items():
            (loss, sums[name]), gradients = gradients_of(name, params, batch, keys, state.step)
            rate = learning_rate(own, settings.steps, state.step) * state.learning_rate_scale
            nets[name], norms[name], finite = _updated(
                own, nets[name], gradients, loss, step=state.step, rate=rate
            )
            losses.append(loss)
            applied &= finite
        old = _restarted(window, state.step % settings.log_every == 0)
        new = jax.tree.map(jnp.add, old, Window(jnp.ones((), jnp.float32), norms, sums))
        state = state.replace(step=state.step + 1, nets=nets)
        return Carry(state, _where(applied, new, old)), functools.reduce(jnp.add, losses)

    def dispatch(carry: Carry, batches: Batch, *resident: Batch) -> tuple[Carry, Float[Array, ""]]:
        def one(carry: Carry, batch: Batch) -> tuple[Carry, Float[Array, ""]]:
            if on_device:
                rows = batch["index"]
                examples = jax.tree.map(
                    lambda split: split.at[rows].get(mode="promise_in_bounds"), resident[0]
                )
                batch = {**examples, **batch}
            return advance(carry, batch)

        if settings.steps_per_dispatch == 1:
            return one(carry, jax.tree.map(lambda leaf: leaf[0], batches))
        carry, losses = jax.lax.scan(one, carry, batches)
        return carry, losses[-1]

    return jit(
        dispatch,
        mesh=mesh,
        donate_argnums=0,
        in_shardings=(placed, split, *[everywhere] * on_device),
        out_shardings=(placed, everywhere),
    )


def _accumulated(
    value_and_grad: Callable, params: PyTree, inputs: PyTree, parts: int
) -> tuple[tuple[Float[Array, ""], PyTree], PyTree]:
    """Computes `value_and_grad(params, *inputs)` in equal parts of the inputs' first axis.

    Losses and gradients are averaged, sums are summed.
    """
    if parts == 1:
        return value_and_grad(params, *inputs)

    def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(params, *part)), None

    # Part i takes every parts-th example, so that no example moves to another device.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), inputs)
    first = jax.tree.map(lambda leaf: leaf[0], split)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(value_and_grad, params, *first),
    )
    ((loss, sums), gradients), _ = jax.lax.scan(add, zeros, split)
    loss, gradients = jax.tree.map(lambda leaf: leaf / parts, (loss, gradients))
    return (loss, sums), gradients


def _updated(
    settings: OptimizerConfig,
    net: Net,
    gradients: PyTree,
    loss: Float[Array, ""],
    *,
    step: Int[Array, ""],
    rate: Float[Array, ""],
) -> tuple[Net, Float[Array, ""], Bool[Array, ""]]:
    """Returns the network after an update, the gradient's norm, and whether it was applied.

    Where the loss or the norm is NaN or infinite the update is skipped: parameters, moments and
    average stay as they are, and the counters of skipped updates grow.
    """
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    params, moments, average = update(
        settings,
        net.params,
        net.moments,
        net.average,
        gradients,
        scale=gradient_scale(settings, norm, net.gradient_norm_ema),
        count=step - net.skipped,
        rate=rate,
        apply=finite,
    )
    skip = (~finite).astype(jnp.int32)
    ema = gradient_norm_ema(settings, norm, net.gradient_norm_ema)
    return (
        Net(
            params=params,
            average=average,
            moments=moments,
            gradient_norm_ema=jnp.where(finite, ema, net.gradient_norm_ema),
            skipped=net.skipped + skip,
            skipped_in_row=(net.skipped_in_row + skip) * skip,
        ),
        norm,
        finite,
    )


def _where(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _restarted(window: Window, restart: Bool[Array, ""]) -> Window:
    return _where(restart, jax.tree.map(jnp.zeros_like, window), window)

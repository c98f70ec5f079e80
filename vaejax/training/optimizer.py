"""AdamW, Adamax and the exponential moving average of the parameters.

The arithmetic is that of Optax. Here the coefficients skip an update (the old values weigh 1, the
learning rate is 0), and every result overwrites what it replaces before the next one reads it.
Composed of Optax's parts, XLA copies parameters and moments first, which makes the whole update
1.7 times as long (14.5 ms instead of 8.5 for 4 M parameters on two CPU cores).
"""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from vaejax.config import OptimizerConfig

_EPSILON, _TINY = 1e-8, 1e-20
# Decay of the running mean of the gradient norm, which averages over some fifty updates.
_NORM_DECAY = 0.98


class Moments(NamedTuple):
    """Running means of the gradient and of its square, float32, in the shape of the parameters.

    For Adamax, `second` is a decaying maximum of the absolute gradient instead.
    """

    first: PyTree
    second: PyTree


def no_moments(params: PyTree) -> Moments:
    """Returns the moments before the first update, which are zero."""
    return Moments(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))


def learning_rate(
    settings: OptimizerConfig, total: int, step: Int[Array, ""] | int, xp: ModuleType = jnp
) -> Float[Array | np.ndarray, ""]:
    """Returns the learning rate of one update: linear warm-up, then cosine decay.

    The cosine (Loshchilov and Hutter 2017, without restarts) reaches `final_fraction` of the peak
    after `total` updates.

    Args:
      settings: its `learning_rate` (the peak), `warmup_steps` and `final_fraction`.
      total: number of updates of the run.
      step: number of updates before this one.
      xp: the array library, `jax.numpy` or NumPy. Use NumPy outside a jitted function, where JAX
        would compile each operation on its own.
    """
    warmup = min(settings.warmup_steps, total)
    done = xp.asarray(step, xp.float32)
    rise = xp.minimum(1.0, (done + 1.0) / max(warmup, 1))
    share = xp.clip((done - warmup) / max(total - warmup, 1), 0.0, 1.0)
    fraction = settings.final_fraction
    fall = fraction + (1.0 - fraction) * 0.5 * (1.0 + xp.cos(np.float32(np.pi) * share))
    return xp.asarray(settings.learning_rate * rise * fall, xp.float32)


def gradient_scale(
    settings: OptimizerConfig, norm: Float[Array, ""], average: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns the factor that a gradient of this norm is multiplied by.

    Let `limit` be `guard` times the running geometric mean of the norms. A gradient whose norm is
    above the limit is multiplied by (limit / norm)^2: the larger the outlier, the smaller its
    update (a redescending influence function, Hampel 1974). `clip_norm` then limits the norm of
    the result. No update is skipped and the mean adapts, so training cannot stall as it can where
    a fixed threshold decides which updates are skipped (as in VDVAE, Child 2021).

    Args:
      settings: its `guard` and `clip_norm`; 0 turns either off.
      norm: the L2 norm over all of the gradient's arrays.
      average: the running mean (`gradient_norm_ema`) before this update; 0 before the first.
    """
    norm = jnp.maximum(norm, _TINY)
    fading = (_allowed(settings, norm, average) / norm) ** 2
    return jnp.minimum(fading, (settings.clip_norm or jnp.inf) / norm)


def gradient_norm_ema(
    settings: OptimizerConfig, norm: Float[Array, ""], average: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns the updated running geometric mean of the gradient norms.

    Each norm is cut to the limit that `gradient_scale` has. One outlier therefore changes the mean
    little, while gradients that stay large raise it until they are within the limit.

    Args:
      settings: its `guard`; 0 for no limit.
      norm: the L2 norm of this update's gradient.
      average: the running mean before this update; 0 before the first.
    """
    allowed = jnp.maximum(_allowed(settings, norm, average), _TINY)
    mean = allowed * (jnp.maximum(average, _TINY) / allowed) ** _NORM_DECAY
    # A norm of zero is left out, because a geometric mean has no place for it.
    return jnp.where(norm > 0, jnp.where(average > 0, mean, allowed), average)


def _allowed(
    settings: OptimizerConfig, norm: Float[Array, ""], average: Float[Array, ""]
) -> Float[Array, ""]:
    if not settings.guard:
        return norm
    return jnp.where(average > 0, jnp.minimum(norm, settings.guard * average), norm)


def update(
    settings: OptimizerConfig,
    params: PyTree,
    moments: Moments,
    average: PyTree,
    gradients: PyTree,
    *,
    scale: Float[Array, ""],
    count: Int[Array, ""],
    rate: Float[Array, ""],
    apply: Bool[Array, ""],
) -> tuple[PyTree, Moments, PyTree]:
    """Makes one step of AdamW or Adamax, and updates the average of the parameters.

    AdamW is that of Loshchilov and Hutter 2019, Adamax that of Kingma and Ba 2015 (section 7.1).
    Both have decoupled weight decay, which applies to parameters named `kernel` alone.

    Args:
      settings: name, betas, weight decay of the kernels, decay of the average.
      params: the parameters before the step, float32.
      moments: their moments before the step.
      average: their exponential moving average before the step.
      gradients: in the shape of the parameters.
      scale: factor for all gradients, as `gradient_scale` returns it.
      count: number of steps applied before this one, for the bias corrections.
      rate: the learning rate.
      apply: False leaves every number as it is, whatever the gradient.

    Returns:
      (params, moments, average) after the step.
    """
    age = count.astype(jnp.float32)
    corrections = [1.0 - b ** (age + 1.0) for b in (settings.b1, settings.b2)]
    # A young average forgets faster, so that early pictures do not show the initial parameters.
    decay = jnp.minimum(settings.ema_decay, (1.0 + age) / (10.0 + age))
    # An update that is not applied: the old values have all the weight, and the rate is zero.
    b1, b2, decay = (jnp.where(apply, keep, 1.0) for keep in (settings.b1, settings.b2, decay))
    rate = jnp.where(apply, rate, 0.0)

    def one(path, param, first, second, mean, gradient):
        gradient = jnp.where(apply, scale * gradient, 0.0)
        first = b1 * first + (1.0 - b1) * gradient
        if settings.name == "adamax":
            second = jnp.maximum(b2 * second, jnp.abs(gradient))
        else:
            second = b2 * second + (1.0 - b2) * gradient**2
        first, second = jax.lax.optimization_barrier((first, second))
        root = second if settings.name == "adamax" else jnp.sqrt(second / corrections[1])
        direction = (first / corrections[0]) / (root + _EPSILON)
        if path[-1].key == "kernel":
            direction = direction + settings.weight_decay * param
        param = jax.lax.optimization_barrier(param - rate * direction)
        return param, first, second, decay * mean + (1.0 - decay) * param

    changed = jax.tree_util.tree_map_with_path(one, params, *moments, average, gradients)
    four = jax.tree.structure((0, 0, 0, 0))
    params, first, second, average = jax.tree.transpose(jax.tree.structure(params), four, changed)
    return params, Moments(first, second), average

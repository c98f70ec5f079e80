"""The compiled training step, ready to be timed: pictures and state lie on the device."""

import time

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from vaejax.config import Config
from vaejax.cost.estimates import pictures_shape, traced_step
from vaejax.cost.flops import matmul_flops
from vaejax.runtime.mesh import device_memory, fitting_fsdp, make_mesh, split_batch, state_shardings
from vaejax.training import step


class Step:
    """A model's compiled training step and the state it works on.

    Attributes:
      pictures: in one call.
      parameters: numbers that are learned.
      flops: of the matrix products and convolutions of one call.
      compile_seconds: without help from programs kept on disk.
    """

    def __init__(self, model: nn.Module, config: Config):
        """Compiles it."""
        jax.config.update("jax_enable_compilation_cache", False)
        self.config = config
        self.pictures = config.train.batch_size * config.train.steps_per_dispatch
        mesh, shapes = mesh_of(model, config), step.state_shapes(model, config)
        start = jax.jit(step.starting(model, config), out_shardings=state_shardings(mesh, shapes))
        self.state = start(jax.random.key(0))
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        self.images = jax.device_put(some_pictures(config), split_batch(mesh, leading_axes=1))
        traced = traced_step(model, config, mesh)
        self.flops = matmul_flops(traced.jaxpr)
        lowered = traced.lower()
        begin = time.perf_counter()
        self.program = lowered.compile()
        self.compile_seconds = time.perf_counter() - begin

    def __call__(self) -> jax.Array:
        """One call of the step; the loss to wait for."""
        self.state, loss = self.program(self.state, self.images)
        return loss


def mesh_of(model: nn.Module, config: Config) -> Mesh:
    """The devices at hand, sharing the state as they would in training."""
    shapes = step.state_shapes(model, config)
    fsdp = config.train.fsdp or fitting_fsdp(shapes, device_memory(), jax.local_device_count())
    return make_mesh(config.train.batch_size, fsdp, accumulate=config.train.accumulate)


def some_pictures(config: Config) -> np.ndarray:
    """Noise in the shape of what one call takes, [dispatch, batch, height, width, channel]."""
    return np.random.default_rng(0).integers(0, 256, pictures_shape(config), np.uint8)


def step_flops(model: nn.Module, config: Config) -> int:
    """Of the matrix products and convolutions of one call; compiles nothing."""
    return matmul_flops(traced_step(model, config, mesh_of(model, config)).jaxpr)

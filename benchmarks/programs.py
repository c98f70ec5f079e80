"""The compiled training step, ready to be timed: pictures and state lie on the device."""

import time

import jax
import numpy as np
from jax.sharding import Mesh

from vaejax.config import Config
from vaejax.cost.compiled_step import pictures_shape, traced_step
from vaejax.cost.flops import matmul_flops
from vaejax.runtime.mesh import device_memory, make_mesh, split_batch
from vaejax.runtime.shards import fitting_fsdp, state_shardings
from vaejax.training.state import shapes, starting
from vaejax.training.task import Task


class Step:
    """A task's compiled training step and the state it works on.

    Attributes:
      pictures: in one call.
      parameters: numbers that are learned.
      flops: flops of the matrix products and convolutions of one call.
      compile_seconds: without help from programs kept on disk.
    """

    def __init__(self, task: Task, config: Config):
        """Compiles it."""
        jax.config.update("jax_enable_compilation_cache", False)
        self.config = config
        self.pictures = config.train.batch_size * config.train.steps_per_dispatch
        mesh = mesh_of(task, config)
        start = jax.jit(starting(task), out_shardings=state_shardings(mesh, shapes(task)))
        self.carry = start(jax.random.key(0))
        self.parameters = self.carry.state.parameters()
        split = split_batch(mesh, leading_axes=1)
        self.batch = {"image": jax.device_put(some_pictures(config), split)}
        traced = traced_step(task, config, mesh)
        self.flops = matmul_flops(traced.jaxpr)
        lowered = traced.lower()
        begin = time.perf_counter()
        self.program = lowered.compile()
        self.compile_seconds = time.perf_counter() - begin

    def __call__(self) -> jax.Array:
        """One call of the step; the loss to wait for."""
        self.carry, loss = self.program(self.carry, self.batch)
        return loss


def mesh_of(task: Task, config: Config) -> Mesh:
    """The devices at hand, sharing the state as they would in training."""
    carry = shapes(task)
    fsdp = config.train.fsdp or fitting_fsdp(carry, device_memory(), jax.local_device_count())
    return make_mesh(config.train.batch_size, fsdp, accumulate=config.train.accumulate)


def some_pictures(config: Config) -> np.ndarray:
    """Noise in the shape of what one call takes, [dispatch, batch, height, width, channel]."""
    return np.random.default_rng(0).integers(0, 256, pictures_shape(config), np.uint8)


def step_flops(task: Task, config: Config) -> int:
    """Of the matrix products and convolutions of one call; compiles nothing."""
    return matmul_flops(traced_step(task, config, mesh_of(task, config)).jaxpr)

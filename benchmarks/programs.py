"""The compiled training step, ready to be timed, with pictures and state on the device."""

import time

import jax
import numpy as np
from jax.sharding import Mesh

from vaejax.config import Config
from vaejax.cost.flops import matmul_flops
from vaejax.cost.steps import model_step
from vaejax.runtime.mesh import device_memory, make_mesh, split_batch
from vaejax.runtime.shards import fitting_fsdp, state_shardings
from vaejax.training.state import shapes, starting
from vaejax.training.task import Task


class Step:
    """A task's compiled training step and the state it works on.

    Attributes:
      pictures: number of pictures that one call takes.
      parameters: number of parameters that are learned.
      flops: floating-point operations of the matrix products and convolutions of one call.
      compile_seconds: time to compile it without the compilation cache on disk.
    """

    def __init__(self, task: Task, config: Config):
        """Compiles the step; turns JAX's compilation cache off for the whole process."""
        jax.config.update("jax_enable_compilation_cache", False)
        self.config = config
        self.pictures = config.train.batch_size * config.train.steps_per_dispatch
        mesh = mesh_of(task, config)
        start = jax.jit(starting(task), out_shardings=state_shardings(mesh, shapes(task)))
        self.carry = start(jax.random.key(0))
        self.parameters = self.carry.state.parameters()
        split = split_batch(mesh, leading_axes=1)
        step = model_step(config, task)
        pictures = np.random.default_rng(0).integers(0, 256, step.batch["image"].shape, np.uint8)
        self.batch = {"image": jax.device_put(pictures, split)}
        traced = step.trace(mesh)
        self.flops = matmul_flops(traced.jaxpr)
        lowered = traced.lower()
        begin = time.perf_counter()
        self.program = lowered.compile()
        self.compile_seconds = time.perf_counter() - begin

    def __call__(self) -> jax.Array:
        """Makes one call of the step; returns the loss, to wait for."""
        self.carry, loss = self.program(self.carry, self.batch)
        return loss


def mesh_of(task: Task, config: Config) -> Mesh:
    """Returns the mesh of the devices at hand, which share the state as in training."""
    carry = shapes(task)
    fsdp = config.train.fsdp or fitting_fsdp(carry, device_memory(), jax.local_device_count())
    return make_mesh(config.train.batch_size, fsdp, accumulate=config.train.accumulate)


def step_flops(task: Task, config: Config) -> int:
    """Counts the FLOPs of one call's matrix products and convolutions; compiles nothing."""
    return matmul_flops(model_step(config, task).trace(mesh_of(task, config)).jaxpr)

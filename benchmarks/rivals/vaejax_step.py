"""Takes turns with vaejax's own training step."""

import jax

from benchmarks.programs import Step
from benchmarks.rivals import worker
from vaejax.tasks.vae import VAETask


def serve_step(step: Step) -> None:
    """Takes turns with a compiled training step of JAX."""
    facts = {"parameters": step.parameters, "mflop_per_image": step.flops / step.pictures / 1e6}
    worker.serve(lambda: jax.block_until_ready(step()), worker.Turns(step.pictures, **facts))


if __name__ == "__main__":
    config = worker.settings()
    serve_step(Step(VAETask(config), config))

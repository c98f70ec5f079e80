"""An evaluation rounds nothing that it need not."""

import jax.numpy as jnp
import pytest
from ladders import pictures
from tiny import tiny, tiny_ladder

from vaejax.evaluation import make_eval_step
from vaejax.models import build_model
from vaejax.parallel import single_device_mesh
from vaejax.step import state_shapes


@pytest.mark.parametrize("of", [tiny, tiny_ladder])
def test_it_is_of_the_highest_precision_whatever_training_computes_in(of):
    config = of(model={"dtype": "bfloat16", "widths": (4, 6), "blocks": (1, 1)})
    params = state_shapes(build_model(config), config).ema_params
    step = make_eval_step(config, single_device_mesh(), importance_samples=2)
    arrays = pictures(config, 4), jnp.arange(4), jnp.ones(4, bool)
    lines = step.lower(params, *arrays).as_text().splitlines()
    products = [line for line in lines if "dot_general" in line or "convolution" in line]
    assert len(products) > 10
    assert not [line for line in products if line.count("HIGHEST") != 2]
    assert not [line for line in lines if "bf16" in line]

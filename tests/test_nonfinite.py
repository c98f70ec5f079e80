"""Where numbers stopped being finite is told, and why."""

import jax
import numpy as np
import pytest
from ladders import pictures
from parameters import away_from_start
from tiny import tiny_ladder

from vaejax.tasks.vae import NET, vae_task
from vaejax.training.replay import explain_not_finite


@pytest.mark.parametrize(
    ("stack", "branch", "block", "named"),
    [
        ("bottom_up_0", "Bottleneck_0", 1, "encoder['bottom_up_0']['Bottleneck_0']"),
        ("top_down_0", "out", 0, "decoder and prior['top_down_0']"),
        ("top_down_2", "posterior", 1, "decoder and prior['top_down_2']"),
    ],
)
def test_the_block_where_numbers_overflow_is_named(stack, branch, block, named):
    config = tiny_ladder()
    task = vae_task(config)
    params = away_from_start(task.model, config)
    # Three layers, one after the other.
    enlarged = jax.tree.map(lambda leaf: leaf.at[block].multiply(1e15), params[stack][branch])
    params[stack][branch] = enlarged
    images = np.asarray(pictures(config, 30))
    why = explain_not_finite(task, config.train, {NET: params}, {"image": images}, at=0)
    assert f"tensor that is not finite: {named}" in why and f", block {block};" in why

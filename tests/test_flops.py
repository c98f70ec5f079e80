"""Tests the count of FLOPs against formulas and against the cost analysis of XLA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.lax import while_loop
from tiny import tiny

from vaejax.cost.flops import matmul_flops
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.vae import vae_task
from vaejax.training.state import shapes
from vaejax.training.step import make_train_step


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=20)
def test_products_cost_two_operations_for_each_multiply_add(rows, inner, columns, batch):
    left, right = jnp.ones((batch, rows, inner)), jnp.ones((batch, inner, columns))
    needed = 2 * batch * rows * inner * columns
    assert matmul_flops(jax.make_jaxpr(jnp.matmul)(left, right)) == needed


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["SAME", "VALID"]))
@settings(max_examples=20)
def test_convolutions_cost_what_a_loop_over_their_taps_does(side, kernel, stride, padding):
    if padding == "VALID" and kernel > side:
        return
    images, weights = jnp.ones((2, side, side, 3)), jnp.ones((kernel, kernel, 3, 5))

    def convolve(images, weights):
        return jax.lax.conv_general_dilated(
            images, weights, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    # All inputs are ones, so the sum of the output is the number of products.
    products = int(jnp.sum(convolve(images, weights)))
    assert matmul_flops(jax.make_jaxpr(convolve)(images, weights)) == 2 * products


def test_loops_count_as_often_as_they_run():
    matrix = jnp.ones((8, 8))

    def looped(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=10)[0]

    def unknown(x):
        return while_loop(lambda y: y[0, 0] < 9, lambda y: y @ x, x)

    assert matmul_flops(jax.make_jaxpr(looped)(matrix)) == 10 * 2 * 8**3
    with pytest.raises(ValueError, match="while loop"):
        matmul_flops(jax.make_jaxpr(unknown)(matrix))


def test_a_branch_counts_as_its_costliest_side():
    matrix = jnp.ones((8, 8))
    branched = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x)  # noqa: E731
    assert matmul_flops(jax.make_jaxpr(branched)(matrix)) == 2 * 2 * 8**3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_whole_step_costs_what_xla_says(accumulate):
    """XLA's count is of the step without accumulation, because it counts a loop's body once.

    It is larger than the count of `matmul_flops`, because XLA also counts elementwise operations.
    """
    config = tiny(model={"widths": (32, 64)}, train={"accumulate": accumulate}, prior={"width": 64})
    task, mesh = vae_task(config), single_device_mesh()
    inputs = shapes(task), {"image": jax.ShapeDtypeStruct((1, 8, 28, 28, 3), np.uint8)}
    counted = matmul_flops(make_train_step(task, config.train, mesh).trace(*inputs).jaxpr)
    unrolled = make_train_step(task, dataclasses.replace(config.train, accumulate=1), mesh)
    by_xla = unrolled.lower(*inputs).compile().cost_analysis()["flops"]
    assert 0.9 * by_xla < counted <= by_xla

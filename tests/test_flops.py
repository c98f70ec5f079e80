"""Tests the count of FLOPs against formulas and against the cost analysis of XLA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.lax import while_loop
from tiny import tiny

from vaejax.cost.flops import matmul_flops
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.vae import vae_task
from vaejax.training.state import shapes
from vaejax.training.step import make_train_step


def of_shape(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=20)
def test_products_cost_two_operations_for_each_multiply_add(rows, inner, columns, batch):
    left, right = of_shape(batch, rows, inner), of_shape(batch, inner, columns)
    needed = 2 * batch * rows * inner * columns
    assert matmul_flops(jax.make_jaxpr(jnp.matmul)(left, right)) == needed


@given(
    side=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 3),
    kernel_dilation=st.integers(1, 2),
)
@settings(max_examples=30)
def test_convolutions_cost_what_a_loop_over_their_taps_does(
    side, kernel, stride, padding, dilation, kernel_dilation
):
    """Only products of a weight and a pixel count, not those with padding or between pixels."""
    # Ones where a row of pixels and a row of the kernel have numbers: each product is one.
    row, taps = np.zeros(dilation * (side - 1) + 1), np.zeros(kernel_dilation * (kernel - 1) + 1)
    row[::dilation], taps[::kernel_dilation] = 1, 1
    row = np.pad(row, padding)
    assume(len(taps) <= len(row))
    products = int(np.correlate(row, taps, "valid")[::stride].sum())

    def convolve(images, weights):
        return jax.lax.conv_general_dilated(
            images, weights, (stride, stride), (padding, padding), (dilation, dilation),
            (kernel_dilation, kernel_dilation), dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    jaxpr = jax.make_jaxpr(convolve)(of_shape(2, side, side, 3), of_shape(kernel, kernel, 3, 5))
    assert matmul_flops(jaxpr) == 2 * (2 * products**2 * 3 * 5)


def test_a_loop_counts_as_often_as_it_runs():
    def looped(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=10)[0]

    def unknown(x):
        return while_loop(lambda y: y[0, 0] < 9, lambda y: y @ x, x)

    assert matmul_flops(jax.make_jaxpr(looped)(of_shape(8, 8))) == 10 * 2 * 8**3
    with pytest.raises(ValueError, match="while loop"):
        matmul_flops(jax.make_jaxpr(unknown)(of_shape(8, 8)))


def test_the_sides_of_a_branch_count_by_how_often_they_are_taken():
    branched = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)  # noqa: E731
    program = jax.make_jaxpr(branched)(of_shape(8, 8))
    assert matmul_flops(program) == 2 * 2 * 8**3
    assert matmul_flops(program, costlier=0.25) == 1.25 * 2 * 8**3


def test_a_step_costs_what_xla_counts_with_and_without_accumulation():
    """XLA counts a loop's body once, so its count is of the step without accumulation.

    It is larger than the count of `matmul_flops`, because XLA also counts elementwise operations.
    """
    config = tiny(model={"widths": (32, 64)}, prior={"width": 64})
    task, mesh = vae_task(config), single_device_mesh()
    images = {"image": jax.ShapeDtypeStruct((1, 8, 28, 28, 3), np.uint8)}
    steps = [
        make_train_step(task, dataclasses.replace(config.train, accumulate=accumulate), mesh).trace(
            shapes(task), images
        )
        for accumulate in (1, 2)
    ]
    by_xla = steps[0].lower().compile().cost_analysis()["flops"]
    for step in steps:
        assert 0.9 * by_xla < matmul_flops(step.jaxpr) <= by_xla

"""Floating-point operations of a program, counted from its jaxpr.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs, so a step with
gradient accumulation or several updates in one call would seem to cost a fraction of the truth.
"""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var


def matmul_flops(program: ClosedJaxpr, costlier: float = 1.0) -> int:
    """Counts the operations of a program's matrix products and convolutions, 2 per multiply-add.

    Elementwise operations are left out, as is usual for a model's FLOPs: they are bound by memory,
    not by arithmetic. A while loop of unknown length cannot be counted.

    Args:
      program: the jaxpr of `jax.make_jaxpr(function)(...)`, or `jitted.trace(...).jaxpr`.
      costlier: share of the runs in which a branch takes its costliest side; in the others it takes
        its cheapest.

    Raises:
      ValueError: there are matrix products or convolutions in a while loop.

    >>> import jax, jax.numpy as jnp
    >>> matmul_flops(jax.make_jaxpr(lambda x, y: x @ y)(jnp.ones((3, 5)), jnp.ones((5, 7))))
    210
    """
    return round(_of_jaxpr(program.jaxpr, costlier))


def _of_jaxpr(jaxpr: Jaxpr, costlier: float) -> int | float:
    return sum(_of_equation(equation, costlier) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn, costlier: float) -> int | float:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = _shape(equation.invars[0])
        summed = math.prod(left[axis] for axis in contracted)
        return 2 * summed * math.prod(_shape(equation.outvars[0]))
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inner = [_of_jaxpr(jaxpr, costlier) for jaxpr in _inner_jaxprs(equation)]
    if name == "scan":
        return equation.params["length"] * sum(inner)
    if name == "cond":
        return costlier * max(inner) + (1 - costlier) * min(inner)
    if name == "while" and any(inner):
        raise ValueError("matrix products in a while loop of an unknown number of iterations")
    return sum(inner)


def _of_convolution(equation: JaxprEqn) -> int:
    """Counts the operations, except for products with padding or with the gaps of a dilation."""
    numbers = equation.params["dimension_numbers"]
    left, right = map(_shape, equation.invars)
    out = _shape(equation.outvars[0])
    pairs = 1
    for axis, (stride, padding, gap, kernel_gap) in enumerate(
        zip(
            equation.params["window_strides"],
            equation.params["padding"],
            equation.params["lhs_dilation"],
            equation.params["rhs_dilation"],
        )
    ):
        size = left[numbers.lhs_spec[2 + axis]]
        kernel = right[numbers.rhs_spec[2 + axis]]
        places = out[numbers.out_spec[2 + axis]]
        pairs *= sum(
            1
            for place in range(places)
            for tap in range(kernel)
            if (at := place * stride + tap * kernel_gap - padding[0]) >= 0
            and at % gap == 0
            and at // gap < size
        )
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    # The kernel's input features are those of one group already.
    return 2 * pairs * batch * features * right[numbers.rhs_spec[1]]


def _shape(variable: Var | Literal) -> tuple[int, ...]:
    """Returns the shape of an operand or result; those of matrix products are always arrays."""
    assert isinstance(variable.aval, jax.core.ShapedArray)
    return variable.aval.shape


def _inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(item, ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                found.append(item)
    return found

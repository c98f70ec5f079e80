"""Reads traced programs, which takes no compilation."""

import re
from collections import Counter
from collections.abc import Callable

import jax
from jaxtyping import PyTree

_PRODUCT = re.compile(r":(\w+)\[[\d,]*\] = (conv_general_dilated|dot_general)\[")
_NAMES = {"f32": "float32", "bf16": "bfloat16"}


def dtypes_of_products(function: Callable, *inputs: PyTree) -> Counter[str]:
    """Counts the matrix products and convolutions of a program by the dtype of their results."""
    program = str(jax.make_jaxpr(function)(*inputs))
    return Counter(_NAMES.get(dtype, dtype) for dtype, _ in _PRODUCT.findall(program))

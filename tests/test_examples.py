"""Runs the examples in the docstrings of the package as doctests."""

import doctest
import importlib
import pathlib

import pytest

import vaejax

PACKAGE = pathlib.Path(vaejax.__file__).parent
WITH_EXAMPLES = sorted(
    path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples_give_the_results_shown(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0

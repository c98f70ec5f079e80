"""Tests of mutation testing: which faults are made, and which tests are run for each."""

import ast
import shutil

import pytest
from shown import REPOSITORY

from benchmarks import faults

pytestmark = pytest.mark.slow


def test_a_fault_changes_one_place_and_the_same_seed_draws_the_same():
    chosen = faults.drawn(30, seed=1)
    assert chosen == faults.drawn(30, seed=1)
    drawn_from = [fault.subpackage for fault in chosen]
    assert {"commands", "models", "training"} <= set(drawn_from)
    assert max(map(drawn_from.count, drawn_from)) - min(map(drawn_from.count, drawn_from)) <= 1
    for fault in chosen:
        path = faults.PACKAGE.joinpath(*fault.module.split(".")).with_suffix(".py")
        before = ast.unparse(ast.parse(path.read_text())).splitlines()
        after = fault.source().splitlines()
        assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
        assert fault.before != fault.after


def test_only_the_block_for_type_checkers_is_left_out():
    changed = list(faults.faults(faults.PACKAGE / "main.py"))
    assert any("group.index" in fault.before for fault in changed)
    assert all(fault.before != "TYPE_CHECKING" for fault in changed)


def test_the_nearest_tests_come_first():
    assert faults.nearest_tests("data.feed.subsets")[0] == "tests/test_subsets.py"
    assert "tests/test_mixture_likelihood.py" in faults.nearest_tests("likelihoods.mixture")[:3]


def test_a_fault_is_caught_where_a_test_fails(tmp_path):
    for folder in ("vaejax", "tests"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    for file in ("pyproject.toml", "setup.cfg"):
        shutil.copy(REPOSITORY / file, tmp_path)
    path = faults.PACKAGE / "data" / "feed" / "subsets.py"
    fault = next(one for one in faults.faults(path) if one.before == "0 < count < size")
    how = {"files": 1, "timeout": 300.0}
    caught, test = faults.is_caught(fault.module, fault.source(), tmp_path, **how)
    assert caught and test.startswith("test_")
    assert (tmp_path / "vaejax/data/feed/subsets.py").read_text() == path.read_text()

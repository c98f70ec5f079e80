"""Tests of mutation testing: which faults are made, and which tests are run for each."""

import ast
import shutil
from collections import Counter

import pytest

from benchmarks import faults

pytestmark = pytest.mark.slow


# Two modules of each of two subpackages, a command, and a module in which no faults are made.
SOME = ("main.py", "models/blocks.py", "models/heads.py", "training/feeding.py",
        "training/recovery.py", "data/synthetic/faces.py")  # fmt: skip


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Replaces the package by some of its modules, in which all faults are soon found."""
    for name in SOME:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faults.PACKAGE / name, tmp_path / name)
    monkeypatch.setattr(faults, "PACKAGE", tmp_path)
    return tmp_path


def test_a_fault_changes_one_place_and_the_same_seed_draws_the_same(package):
    chosen = faults.drawn(12, seed=1)
    assert chosen == faults.drawn(12, seed=1) != faults.drawn(12, seed=2)
    assert Counter(fault.subpackage for fault in chosen) == dict.fromkeys(
        ("commands", "models", "training"), 4
    )
    for fault in chosen:
        before = ast.unparse(ast.parse(faults.path_of(package, fault.module).read_text()))
        pairs = zip(before.splitlines(), fault.source().splitlines(), strict=True)
        assert sum(one != other for one, other in pairs) == 1
        assert fault.before != fault.after


def test_code_for_type_checkers_gets_no_fault():
    changed = list(faults.faults(faults.PACKAGE / "main.py"))
    assert any("group.index" in fault.before for fault in changed)
    assert all(fault.before != "TYPE_CHECKING" for fault in changed)


def test_the_nearest_tests_come_first():
    assert faults.nearest_tests("data.feed.subsets")[0] == "tests/test_subsets.py"
    assert "tests/test_mixture_likelihood.py" in faults.nearest_tests("likelihoods.mixture")[:3]


SOURCE = "def is_part(count, size):\n    return 0 < count < size\n"
TEST = """from vaejax.data.feed.subsets import is_part


def test_all_is_no_part():
    assert is_part(2, 3) and not is_part(3, 3)
"""


@pytest.fixture
def tree(tmp_path):
    """Returns a repository with one module, named like one of the package's, and its test."""
    for folder in ("vaejax", "vaejax/data", "vaejax/data/feed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "vaejax/data/feed/subsets.py").write_text(SOURCE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_subsets.py").write_text(TEST)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "timeout", "expected"),
    [
        (SOURCE, 300.0, (False, "")),
        (SOURCE.replace("count < size", "count <= size"), 300.0, (True, "test_all_is_no_part")),
        (f"import time\ntime.sleep(300)\n{SOURCE}", 0.1, (True, "timed out")),
    ],
    ids=["no fault", "fault", "endless"],
)
def test_a_fault_is_caught_where_a_test_fails_or_does_not_end(tree, source, timeout, expected):
    module = "data.feed.subsets"
    assert faults.is_caught(module, source, tree, files=1, timeout=timeout) == expected
    assert faults.path_of(tree / "vaejax", module).read_text() == SOURCE

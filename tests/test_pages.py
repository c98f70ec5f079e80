"""Tests that commands ask for huge memory pages, and respect a setting of the user."""

import os
import subprocess
import sys

import pytest

from vaejax.runtime import huge_pages

CONFIG = """
import os
raise ValueError(os.environ.get("GLIBC_TUNABLES"))
"""


def tunables_of_a_command(directory, **environment: str) -> str:
    """Returns the value of GLIBC_TUNABLES at the time when a command reads its config."""
    config = directory / "config.py"
    config.write_text(CONFIG)
    inherited = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    result = subprocess.run(
        [sys.executable, "-m", "vaejax.main", f"--config={config}"],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    return result.stderr.strip().split("ValueError: ")[-1]


@pytest.mark.skipif(not huge_pages._offered(), reason="this system has no large pages to ask for")
@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.perturb=0"},
         "glibc.malloc.perturb=0:glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
    ],
)  # fmt: skip
def test_a_command_asks_for_them(tmp_path, given, becomes):
    assert tunables_of_a_command(tmp_path, **given) == becomes


def test_nothing_is_done_where_they_are_not_offered(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(huge_pages, "_OFFERED", tmp_path / "absent")
    huge_pages.use_huge_pages()
    assert "GLIBC_TUNABLES" not in os.environ

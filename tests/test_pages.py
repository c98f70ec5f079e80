"""Commands ask for huge memory pages, and respect a setting of the user."""

import os
import subprocess
import sys

import pytest

from vaejax.runtime import huge_pages

CONFIG = """
import os
raise ValueError(os.environ.get("GLIBC_TUNABLES"))
"""


@pytest.mark.parametrize(
    ("offered", "given", "expected", "restarts"),
    [
        ("[madvise]", "", "glibc.malloc.hugetlb=1", 1),
        ("[madvise]", "a.b=0", "a.b=0:glibc.malloc.hugetlb=1", 1),
        ("[madvise]", "glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0", 0),
        ("[always] madvise", "", "", 0),
        (None, "", "", 0),
    ],
)
def test_a_program_restarts_with_huge_pages_where_the_kernel_gives_them_on_request(
    offered, given, expected, restarts, tmp_path, monkeypatch
):
    """`offered` is the content of the kernel's file, None for a kernel without it."""
    file = tmp_path / "enabled"
    if offered:
        file.write_text(f"{offered} never\n")
    calls: list[tuple] = []
    monkeypatch.setattr(os, "execv", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(huge_pages, "_OFFERED", file)
    monkeypatch.setenv("GLIBC_TUNABLES", given)
    huge_pages.use_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == expected
    assert calls == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])] * restarts


@pytest.mark.skipif(not huge_pages._offered(), reason="this system gives no huge pages on request")
def test_a_command_restarts_with_the_same_flags(tmp_path):
    """The config file raises an error that has the variable as it was after the restart."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
    result = subprocess.run(
        [sys.executable, "-m", "vaejax.main", f"--config={config}"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.strip().endswith(
        "ValueError: glibc.malloc.perturb=0:glibc.malloc.hugetlb=1"
    )

"""Uses huge memory pages, where the system gives them on request."""

import os
import sys
from pathlib import Path

from vaejax.runtime.streams import flush

_OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# glibc reads it when a program starts; other C libraries ignore it.
_VARIABLE, _ASK = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Restarts this program with an allocator that asks for huge pages, unless it already does.

    XLA allocates the memory for a CPU's step anew each time, and the kernel clears every page that
    it gives: in the step of a ladder this took over a quarter of the CPU time with pages of 4 KiB,
    and takes a tenth with 2 MiB (benchmarks/README.md). `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`
    turns it off.
    """
    given = os.environ.get(_VARIABLE, "")
    if _ASK in given or not sys.executable or not _offered():
        return
    os.environ[_VARIABLE] = ":".join(filter(None, (given, f"{_ASK}=1")))
    flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _offered() -> bool:
    """Whether the kernel gives huge pages to programs that ask, and only to them (Linux)."""
    try:
        return "[madvise]" in _OFFERED.read_text()
    except OSError:
        return False

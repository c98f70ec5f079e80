"""Memory in huge pages, where the system gives them to who asks."""

import os
import sys
from pathlib import Path

from vaejax.runtime.streams import flush

_OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# glibc reads it when a program begins, and other libraries of C not at all.
_VARIABLE, _ASK = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Starts this program again with an allocator that asks for huge pages, if it does not yet.

    XLA takes the memory for a CPU's step anew each time, and the kernel gives it page by page, each
    one cleared: of a ladder's step that was over a quarter of the CPU time with pages of 4 KiB, and
    is a tenth with 2 MiB (benchmarks/README.md). `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` leaves it
    as it is.
    """
    given = os.environ.get(_VARIABLE, "")
    if _ASK in given or not sys.executable or not _offered():
        return
    os.environ[_VARIABLE] = ":".join(filter(None, (given, f"{_ASK}=1")))
    flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _offered() -> bool:
    """Whether huge pages go to those, and only those, who ask for them (Linux)."""
    try:
        return "[madvise]" in _OFFERED.read_text()
    except OSError:
        return False

"""Output that cannot be written is dropped, and the work goes on."""

import os
import pathlib
import sys
from typing import TextIO

import pytest

from vaejax.runtime.streams import flush, print_line

FULL = pathlib.Path("/dev/full")


def full_device() -> TextIO:
    return FULL.open("w")


def pipe_without_reader() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


UNWRITABLE = [
    pytest.param(full_device, marks=pytest.mark.skipif(not FULL.exists(), reason=f"no {FULL}")),
    pipe_without_reader,
]


@pytest.mark.parametrize("unwritable", UNWRITABLE)
def test_a_line_that_cannot_be_printed_is_dropped(unwritable, monkeypatch):
    with unwritable() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        for line in ("first", "second"):
            print_line(line)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("unwritable", UNWRITABLE)
def test_a_buffer_that_cannot_be_flushed_is_dropped(unwritable, name, monkeypatch):
    with unwritable() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, name, stream)
        stream.write("buffered")
        flush()

"""Files are replaced atomically: they have their old content or their new one."""

import os
import socket
import subprocess
import sys

import pytest

from vaejax.files.atomic import replacing


def test_a_file_takes_its_place_when_it_is_written(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for words in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(words)
        assert path.read_text() == words
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("whole")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("ha")
        raise KeyError
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_a_dead_process_of_this_machine_left_is_removed(tmp_path):
    path = tmp_path / "file.txt"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left, own, other, named = (
        tmp_path / f".file.txt.{name}"
        for name in (f"{host}.{ended.pid}", f"{host}.{os.getppid()}", "elsewhere.1", f"{host}.bak")
    )
    for leftover in (left, own, other, named):
        leftover.touch()
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([own, other, named, path])

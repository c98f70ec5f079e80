"""Files are replaced atomically: they have their old content or their new one."""

import os
import socket
import subprocess
import sys

import pytest

from vaejax.files.atomic import replacing


def test_a_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for words in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(words)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == words
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old content")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old content"
    assert list(tmp_path.iterdir()) == [path]


def test_only_files_of_ended_processes_of_this_machine_are_removed(tmp_path):
    path = tmp_path / "file.txt"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left, alive, other, named = (
        tmp_path / f".file.txt.{name}"
        for name in (f"{host}.{ended.pid}", f"{host}.{os.getppid()}", "elsewhere.1", f"{host}.bak")
    )
    for leftover in (left, alive, other, named):
        leftover.touch()
    with replacing(path) as temporary:
        temporary.write_text("content")
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, named, path])

"""Files that are there whole or not at all."""

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

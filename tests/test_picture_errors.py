"""Errors of zipfile, Pillow, NumPy and `os` while pictures are listed or read.

The pictures are set aside, or a message of one line names the reason.
"""

import errno
import functools
import io
import os
import zipfile

import numpy as np
import pytest
from picture_trees import celeba_records, jpeg, opened, write_celeba
from PIL import Image

from vaejax.data.cache import store
from vaejax.data.sources.file_tree import Unreadable, cannot
from vaejax.data.sources.zip_tree import Zip
from vaejax.errors import UserError


class UnforeseenError(Exception):
    """An error that no `except` clause of the package can name."""


# Each error, and the reason that a message gives for it.
ERRORS = {
    "with an errno": (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    "without memory": (MemoryError(), "MemoryError"),
    "of two lines": (ValueError("line one\nline two"), "line one line two"),
    "without words": (AssertionError(), "AssertionError"),
    "unforeseen": (UnforeseenError("out of order"), "out of order"),
}
# Library functions that the package calls while it reads a picture, and while it lists a zip.
READING_BYTES = [(zipfile.ZipFile, "open"), (zipfile.ZipExtFile, "read")]
READING = [
    *READING_BYTES,
    (Image, "open"),
    (Image.Image, "resize"),
    (Image.Image, "crop"),
]
LISTING = [(zipfile, "ZipFile"), (zipfile.ZipFile, "infolist"), (zipfile, "is_zipfile")]

by_name = pytest.mark.parametrize(("error", "reason"), ERRORS.values(), ids=ERRORS)


def by_function(functions):
    names = [f"{owner.__name__}.{name}" for owner, name in functions]
    return pytest.mark.parametrize("function", functions, ids=names)


def failing(error):
    def fail(*arguments, **options):
        raise error.with_traceback(None)

    return fail


@functools.cache
def zip_of_three() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", jpeg(number))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Returns the path of a zip of three pictures."""
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of_three())
    return path


def open_folder(path):
    return opened(path.parent, source="folder", path=str(path), crop="center")


@by_name
@by_function(READING)
def test_pictures_that_cannot_be_read_are_set_aside(archive, monkeypatch, function, error, reason):
    monkeypatch.setattr(*function, failing(error))
    message = rf"all 3 pictures had to be set aside \(3 × .*{reason}\)"
    if isinstance(error, MemoryError) and function in READING_BYTES:
        message = "cannot be read now"
    with pytest.raises(UserError, match=message) as caught:
        open_folder(archive)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()], ids=["EMFILE", "memory"]
)
def test_a_limit_of_the_system_sets_no_picture_aside(archive, monkeypatch, error):
    """A cache without that picture would be used from then on."""
    with monkeypatch.context() as patched:
        patched.setattr(*READING[0], failing(error))
        with pytest.raises(UserError, match=r"cannot be read now \(.*raise the limit") as caught:
            open_folder(archive)
    assert "\n" not in str(caught.value)
    assert len(open_folder(archive).splits["train"].images) == 3


def test_a_picture_that_can_be_read_again_is_used(archive, monkeypatch):
    """A cache without it is used only as long as it cannot be read."""
    read = Zip.read

    def read_two(self, name, limit):
        if name == "1.jpg":
            raise Unreadable(cannot(PermissionError(errno.EACCES, "Permission denied")))
        return read(self, name, limit)

    with monkeypatch.context() as patched:
        patched.setattr(Zip, "read", read_two)
        assert len(open_folder(archive).splits["train"].images) == 2
        patched.setattr(store, "build", lambda *_: pytest.fail("the cache was built again"))
        assert open_folder(archive).report["set_aside"] == {
            "1.jpg": "cannot be read: Permission denied"
        }
    dataset = open_folder(archive)
    assert len(dataset.splits["train"].images) == 3 and not dataset.report["set_aside"]


@by_name
@by_function(LISTING)
def test_a_zip_that_cannot_be_listed_is_an_error(archive, monkeypatch, function, error, reason):
    if function == (zipfile, "is_zipfile"):
        archive.write_bytes(b"no zip")
    monkeypatch.setattr(*function, failing(error))
    with pytest.raises(UserError, match=rf"cannot be listed \({reason}\).*unpack it") as caught:
        open_folder(archive)
    assert "\n" not in str(caught.value)


@by_name
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_an_array_that_cannot_be_read_is_an_error(tmp_path, monkeypatch, name, error, reason):
    images = np.zeros((9, 32, 32), np.uint8)
    save = np.save if name == "a.npy" else np.savez
    save(tmp_path / name, images)
    monkeypatch.setattr(np, "load", failing(error))
    # The first line of an error is its reason.
    first = reason.replace(" line two", "")
    message = rf"cannot be read \(.*{first}\): save plain .* numpy.savez"
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path, source="array", path=str(tmp_path / name), crop="none", channels=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["folder", "celeba"])
def test_a_directory_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch, source):
    root = write_celeba(tmp_path / "data", celeba_records(), pictures="folder")
    error = PermissionError(errno.EACCES, "Permission denied")
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, failing(error))
    with pytest.raises(UserError, match=r"cannot be read.*Permission denied") as caught:
        opened(tmp_path, source=source, path=str(root), crop="center")
    assert "\n" not in str(caught.value)

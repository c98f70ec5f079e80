"""Errors of zipfile, Pillow, NumPy and `os` while pictures are listed or read.

The pictures are set aside, or a message of one line names the reason.
"""

import errno
import lzma
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from picture_trees import celeba_records, jpeg, opened, write_celeba
from PIL import Image

from vaejax.errors import UserError

ERRORS = [
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"),
    MemoryError(),
    RecursionError("too deep"),
    NotImplementedError("later version"),
    RuntimeError("password required"),
    zipfile.BadZipFile("bad"),
    zipfile.LargeZipFile("large"),
    zlib.error("Error -3"),
    lzma.LZMAError("corrupt"),
    struct.error("unpack requires"),
    EOFError("ended"),
    ValueError("line one\nline two"),
    KeyError("missing"),
    IndexError("beyond"),
    TypeError("wrong"),
    OverflowError("too large"),
    AssertionError(),
    SystemError("returned NULL"),
    Image.DecompressionBombError("bomb"),
    SyntaxError("not a PNG file"),
]
# Library functions that the package calls while it reads a picture, and while it lists a zip.
READING_BYTES = [(zipfile.ZipFile, "open"), (zipfile.ZipExtFile, "read")]
READING = [
    *READING_BYTES,
    (Image, "open"),
    (Image.Image, "resize"),
    (Image.Image, "crop"),
]
LISTING = [(zipfile, "ZipFile"), (zipfile.ZipFile, "infolist"), (zipfile, "is_zipfile")]

by_name = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def failing(error):
    def fail(*arguments, **options):
        raise error.with_traceback(None)

    return fail


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", jpeg(number))
    return path


def settings_of(path):
    return {"source": "folder", "path": str(path), "crop": "center"}


@by_name
@pytest.mark.parametrize("entry", READING, ids=lambda entry: f"{entry[0].__name__}.{entry[1]}")
def test_reading(tmp_path, monkeypatch, entry, error):
    path = write_zip(tmp_path / "a.zip")
    monkeypatch.setattr(*entry, failing(error))
    says = r"all 3 pictures had to be set aside \(3 × "
    if isinstance(error, MemoryError) and entry in READING_BYTES:
        says = "cannot be read now"
    with pytest.raises(UserError, match=says) as caught:
        opened(tmp_path, **settings_of(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()], ids=["EMFILE", "memory"]
)
def test_a_limit_of_the_system_sets_no_picture_aside(tmp_path, monkeypatch, error):
    """A cache without that picture would be used from then on."""
    path = write_zip(tmp_path / "a.zip")
    with monkeypatch.context() as patched:
        patched.setattr(*READING[0], failing(error))
        with pytest.raises(UserError, match=r"cannot be read now \(.*raise the limit") as caught:
            opened(tmp_path, **settings_of(path))
    assert "\n" not in str(caught.value)
    assert len(opened(tmp_path, **settings_of(path)).splits["train"].images) == 3


@by_name
@pytest.mark.parametrize("entry", LISTING, ids=lambda entry: f"{entry[0].__name__}.{entry[1]}")
def test_listing(tmp_path, monkeypatch, entry, error):
    path = write_zip(tmp_path / "a.zip")
    if entry[1] == "is_zipfile":
        path.write_bytes(b"no zip")
    monkeypatch.setattr(*entry, failing(error))
    with pytest.raises(UserError, match=r"cannot be listed .*unpack it") as caught:
        opened(tmp_path, **settings_of(path))
    assert "\n" not in str(caught.value)


@by_name
def test_arrays(tmp_path, monkeypatch, error):
    np.save(tmp_path / "a.npy", np.zeros((9, 32, 32), np.uint8))
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 32, 32), np.uint8))
    monkeypatch.setattr(np, "load", failing(error))
    for name in ("a.npy", "a.npz"):
        path = str(tmp_path / name)
        with pytest.raises(UserError, match=r"cannot be read .*numpy.savez") as caught:
            opened(tmp_path, source="array", path=path, crop="none", channels=1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", ERRORS[:2], ids=["EIO", "EACCES"])
@pytest.mark.parametrize("source", ["folder", "celeba"])
def test_directories(tmp_path, monkeypatch, source, error):
    root = write_celeba(tmp_path / "data", celeba_records(), pictures="folder")
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, failing(error))
    with pytest.raises(UserError, match=f"cannot be read.*{error.strerror}") as caught:
        opened(tmp_path, source=source, path=str(root), crop="center")
    assert "\n" not in str(caught.value)

"""Damaged, unusual and hostile zips are read, read in part, or refused with a one-line message."""

import functools
import io
import re
import struct
import tracemalloc
import warnings
import zipfile

import pytest
from picture_trees import jpeg, opened

from vaejax.data.sources.file_tree import Unreadable
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.errors import UserError

COUNT = 6
# Offsets of fields in a member's entry of the central directory (.ZIP specification 4.3.12), and in
# its local header (4.3.7).
CENTRAL, LOCAL = b"PK\1\2", b"PK\3\4"
VERSION, FLAGS, METHOD = {CENTRAL: 6, LOCAL: 4}, {CENTRAL: 8, LOCAL: 6}, {CENTRAL: 10, LOCAL: 8}
CRC, SIZE, NAME = {CENTRAL: 16, LOCAL: 14}, {CENTRAL: 24, LOCAL: 22}, {CENTRAL: 46, LOCAL: 30}


@functools.cache
def plain_zip(**members: bytes) -> bytes:
    """Returns a zip of `COUNT` pictures and of further members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(COUNT):
            archive.writestr(f"p{number}.jpg", jpeg(number))
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def patched(archive: bytes, field: dict[bytes, int], value: bytes, count: int = 99) -> bytes:
    """Returns a zip with one field overwritten in the last `count` of its members."""
    changed = bytearray(archive)
    for mark, offset in field.items():
        starts = [match.start() for match in re.finditer(re.escape(mark), archive)]
        for start in starts[-count:]:
            changed[start + offset : start + offset + len(value)] = value
    return bytes(changed)


@pytest.mark.parametrize("name", ["config.json", "CACHEDIR.TAG"])
def test_a_folder_named_like_a_mark_of_a_run_is_listed(tmp_path, name):
    (tmp_path / "faces.zip").write_bytes(plain_zip(**{f"inner/{name}/p.jpg": jpeg(20)}))
    names = PictureFiles(tmp_path / "faces.zip", 10**8).names
    assert f"inner/{name}/p.jpg" in names and len(names) == COUNT + 1


UNLISTABLE = {
    "declared as UTF-8": (
        patched(patched(plain_zip(), NAME, b"\xe9"), FLAGS, b"\0\x08"),
        "cannot be listed .*codec can't decode",
    ),
    "of a later version": (
        patched(plain_zip(), VERSION, b"\xff\0"),
        r"cannot be listed \(zip file version 25\.5\)",
    ),
    "cut off": (plain_zip()[:-100], "cannot be listed .*not a zip file"),
    "damaged directory": (
        patched(plain_zip(), {CENTRAL: 0}, b"XXXX", 3),
        "cannot be listed .*central directory",
    ),
    "encrypted": (
        patched(plain_zip(), FLAGS, b"\1\0"),
        r"holds no pictures, but 6 × encrypted \(unpack the zip and name the folder\)",
    ),
    "empty": (b"PK\5\6" + bytes(18), "holds no pictures: put"),
    "nothing": (b"", "neither a directory nor a readable zip"),
}


def open_zip(tmp_path, content: bytes):
    path = tmp_path / "faces.zip"
    path.write_bytes(content)
    return opened(tmp_path, source="folder", path=str(path), crop="center", holdout=(0.0, 0.0))


@pytest.mark.parametrize("kind", UNLISTABLE)
def test_a_zip_that_cannot_be_listed_is_an_error_of_one_line(tmp_path, kind):
    content, message = UNLISTABLE[kind]
    with pytest.raises(UserError, match=message) as caught:
        open_zip(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "faces.zip") in str(caught.value)


MEMBERS = {
    "encrypted": (FLAGS, b"\1\0", "encrypted"),
    "unknown method": (METHOD, struct.pack("<H", 77), "compression method is not supported"),
    "wrong sum": (CRC, b"\0\1\2\3", "Bad CRC-32"),
    "huge": (SIZE, struct.pack("<I", 3 * 10**9), r"3,000,000,000 bytes, more than config.*max_p"),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_a_bad_member_is_set_aside_and_the_others_are_used(tmp_path, kind):
    field, value, reason = MEMBERS[kind]
    dataset = open_zip(tmp_path, patched(plain_zip(), field, value, count=1))
    assert list(dataset.splits["train"].names) == [f"p{number}.jpg" for number in range(COUNT - 1)]
    (name,) = dataset.report["set_aside"]
    assert name == f"p{COUNT - 1}.jpg"
    assert re.search(reason, dataset.report["set_aside"][name])


# Bytes of zeros. LZMA makes 4 KiB, the smallest piece that is unpacked, of about 30 MB of them.
BOMB = 96 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_never_more_than_the_stated_size_is_unpacked(tmp_path, method):
    stated = struct.pack("<I", 100_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("bomb.jpg", bytes(BOMB))
    (tmp_path / "a.zip").write_bytes(patched(buffer.getvalue(), SIZE, stated))
    files = PictureFiles(tmp_path / "a.zip", 10**8)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="cannot be read: Bad CRC-32"):
            files.read("bomb.jpg")
        assert tracemalloc.get_traced_memory()[1] < BOMB * 4 // 5
    finally:
        tracemalloc.stop()


def test_names_are_normalised_as_other_programs_write_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("./train/a.jpg", jpeg(1))
        archive.writestr("/train/b.jpg", jpeg(2))
        archive.writestr("val\\c.jpg", jpeg(3))
        archive.writestr("../train/.//d.jpg", jpeg(4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns about repeated names
            archive.writestr("train/b.jpg", jpeg(5))
            archive.writestr("train/b.jpg", jpeg(6))
        archive.writestr("a/" * 30_000 + "deep.jpg", jpeg(7))
        link = zipfile.ZipInfo("train/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "a.jpg")
    files = PictureFiles(tmp_path / "faces.zip", 10**8)
    assert files.names == ["train/a.jpg", "train/b.jpg", "train/d.jpg", "val/c.jpg"]
    assert files.read("train/b.jpg") == jpeg(6)
    assert files.left_out.pop("a/" * 30_000 + "deep.jpg") == "in too many folders"
    assert files.left_out == {
        "train/b.jpg (copy 1)": "overwritten by a later member of its name",
        "train/b.jpg (copy 2)": "overwritten by a later member of its name",
        "train/link.jpg": "link in a zip (not followed)",
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_read_with_each_compression_method(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w", method) as archive:
        for name in ("a.jpg", "b"):
            archive.writestr(name, jpeg(1))
    files = PictureFiles(tmp_path / "faces.zip", 10**8)
    assert files.names == ["a.jpg", "b"]
    assert files.read("a.jpg") == jpeg(1)

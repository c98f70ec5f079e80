"""Each file in a folder or zip is either used or reported with exactly one reason."""

import importlib.util
import io
import json
import os
import pathlib
import posixpath
import socket
import tempfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from picture_trees import jpeg, opened
from PIL import Image
from tiny import tiny

from vaejax.config import DataConfig
from vaejax.config.saved import to_json
from vaejax.data import open_dataset
from vaejax.data.pictures.formats import readers
from vaejax.data.sources.folder import Folder
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.data.sources.picture_filter import CACHE_TAG, CACHE_TAG_CONTENT
from vaejax.errors import UserError
from vaejax.records import pictures

# File contents and their expected outcomes

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
HEIC_REASON = "HEIC picture (to read it: pip install 'vaejax[heic]')"


def picture(form: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(buffer, form, **options)
    return buffer.getvalue()


CONTENTS = {  # kind -> (content, the reason why it is not used; "" if it is used)
    "jpeg": (picture("JPEG"), ""),
    "png": (picture("PNG"), ""),
    "webp": (picture("WEBP"), ""),
    "gif": (picture("GIF"), ""),
    "jpeg2000": (picture("JPEG2000"), ""),
    "letter": (b"Dear Sir or Madam,", "not a picture"),
    "bitmap's letters": (b"BMW and other makes of cars", "not a picture"),
    "array": (b"\x93NUMPY\1\0v\0{'descr'", "not a picture"),
    "empty": (b"", "empty file"),
    "drawn": (picture("PNG", **pictures.mark("PNG")), "drawn by vaejax"),
}
if "AVIF" in readers():
    CONTENTS["avif"] = (picture("AVIF"), "")
if importlib.util.find_spec("pillow_heif") is None:
    CONTENTS["heic"] = (HEIC, HEIC_REASON)


# A tree is a dict: path -> kind. Names in SYSTEM and HIDDEN are left out whatever their content;
# a file in MARKERS causes its folder to be left out, unless that is the root.

SYSTEM = [
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
    ".Trash-1",
]
HIDDEN = [".git", ".hidden.jpg"]
MARKERS = {  # file name -> (content, the reason why its folder is left out)
    "config.json": (to_json(tiny()).encode(), "vaejax run"),
    ".vaejax": (b"", "vaejax run"),
    CACHE_TAG: (CACHE_TAG_CONTENT.encode() + b"# made by a test", "cache folder"),
}
PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\."),
    min_size=1,
    max_size=6,
)
FOLDERS = st.one_of(PLAIN, st.sampled_from([*SYSTEM, *HIDDEN, "train", "Val", "TEST", "faces"]))
SUFFIXES = st.sampled_from(["", ".jpg", ".PNG", ".txt", ".jpg?w=1080", ".heic", ".tar.xy"])
FILES = st.one_of(st.builds(str.__add__, PLAIN, SUFFIXES), st.sampled_from(HIDDEN))


@st.composite
def trees(draw) -> dict[str, str]:
    tree: dict[str, str] = {}
    folders = draw(st.lists(st.lists(FOLDERS, max_size=3).map(tuple), min_size=1, max_size=5))
    for folder in folders:
        for name in draw(st.lists(FILES, max_size=4)):
            tree["/".join([*folder, name])] = draw(st.sampled_from(sorted(CONTENTS)))
        marker = draw(st.sampled_from([""] * 6 + sorted(MARKERS)))
        if marker:
            tree["/".join([*folder, marker])] = marker
    # A path cannot be both a file and a folder, so such files are dropped.
    taken = {path.rpartition("/")[0] for path in tree}
    taken |= {"/".join(folder.split("/")[:n]) for folder in taken for n in range(1, 9)}
    return {path: kind for path, kind in tree.items() if path not in taken}


def content_of(kind: str) -> bytes:
    return (CONTENTS.get(kind) or MARKERS[kind])[0]


def write_folder(root: pathlib.Path, tree: dict[str, str]) -> pathlib.Path:
    root.mkdir()
    for path, kind in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content_of(kind))
    return root


def write_zip(path: pathlib.Path, tree: dict[str, str], start: str = "") -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in tree.items():
            archive.writestr(start + name, content_of(kind))
    return path


# The expected outcomes, computed in another way than in the package: it walks the tree from the
# root, while these functions start from each file and look at its folders.


def outcome(tree: dict[str, str], path: str) -> tuple[str, str, bool]:
    """Returns the expected outcome of a file: (name that is reported, reason, whether listed).

    The reported name is the file's own, or that of the folder with which it is left out. The reason
    is "" if the file is used. A listed file counts as a picture, but decoding may still reject it.
    """
    parts = path.split("/")
    for depth in range(1, len(parts)):
        folder = "/".join(parts[:depth]) + "/"
        name = parts[depth - 1]
        if name in SYSTEM:
            return folder, "system folder", False
        if name.startswith("."):
            return folder, "hidden folder", False
        found = [MARKERS[marker][1] for marker in MARKERS if tree.get(folder + marker) == marker]
        if found:
            return folder, "vaejax run" if "vaejax run" in found else found[0], False
    if parts[-1].startswith("."):
        return path, "hidden file", False
    reason = CONTENTS[tree[path]][1] if tree[path] in CONTENTS else "not a picture"
    listed = path.lower().endswith((".jpg", ".png")) or reason in ("", "drawn by vaejax")
    return path, reason, listed


def expected(tree: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns the expected names by split, and the expected reasons by name.

    Names are relative to the innermost folder that all listed files share.
    """
    outcomes = {path: outcome(tree, path) for path in tree}
    listed = [path for path, (_, _, is_listed) in outcomes.items() if is_listed]
    start = posixpath.commonpath([posixpath.dirname("/" + path) for path in listed] or ["/"])

    def short(name: str) -> str:
        return posixpath.relpath("/" + name, start) + ("/" if name.endswith("/") else "")

    tops = {short(path).split("/")[0] for path in listed if "/" in short(path)}
    meaning = {"train": "train", "Val": "valid", "TEST": "test"}
    official = "train" in tops and tops <= meaning.keys()
    official = official and all("/" in short(path) for path in listed)
    splits: dict[str, list[str]] = {}
    for path, (_, reason, is_listed) in outcomes.items():
        if is_listed and not reason:
            top = short(path).split("/")[0]
            splits.setdefault(meaning[top] if official else "train", []).append(short(path))
    reasons = {short(by): reason for by, reason, _ in outcomes.values() if reason}
    return {split: sorted(names) for split, names in splits.items()}, reasons


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
@example({"train/a": "png", "Val/b.jpg": "jpeg", "TEST/c": "drawn", "notes": "letter"})
@example({"faces/a.jpg": "png", "faces/run/config.json": "config.json", "faces/run/b": "jpeg"})
@example({"faces/a.jpg": "png", "x.txt": "letter", "faces/b.txt": "array", "y/.vaejax": ".vaejax"})
def test_every_file_is_used_or_told_by_one_reason(tree):
    splits, reasons = expected(tree)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        places = [write_folder(root / "tree", tree)]
        places += [write_zip(root / "a.zip", tree), write_zip(root / "b.zip", tree, "./")]
        for place in places:
            config = {"source": "folder", "path": str(place), "holdout": (0.0, 0.0)}
            if "train" not in splits:
                with pytest.raises(UserError) as caught:
                    opened(root, crop="center", **config)
                assert "\n" not in str(caught.value)
                continue
            dataset = opened(root, crop="center", **config)
            used = {name: list(split.names) for name, split in dataset.splits.items()}
            assert used == splits, place
            assert dataset.report["set_aside"] == reasons, place
            assert json.loads(pathlib.Path(dataset.report["file"]).read_text()) == reasons


@pytest.mark.parametrize("form", readers())
def test_whatever_pillow_reads_is_used_whatever_it_is_called(tmp_path, form):
    if form not in Image.SAVE:
        pytest.skip(f"Pillow does not write {form}")
    root = write_pictures(tmp_path / "faces", 1)
    # PCX and TGA files have no signature: they are recognised by their suffix.
    name = f"picture.{form.lower()}" if form in ("PCX", "TGA") else "picture"
    (root / name).write_bytes(picture(form))
    dataset = opened(tmp_path, source="folder", path=str(root), crop="center", holdout=(0.0, 0.0))
    assert list(dataset.splits["train"].names) == ["0.jpg", name]
    assert np.abs(dataset.splits["train"].images[1].astype(int) - 90).max() < 5


# Directories: links, special files, unreadable folders, and messages


def write_pictures(root: pathlib.Path, count: int = 3) -> pathlib.Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(jpeg(number))
    return root


def test_what_is_no_regular_file_is_told_and_never_waited_for(tmp_path):
    root = write_pictures(tmp_path / "faces")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "pipe.jpg")
    (root / "dangling.png").symlink_to("nothing")
    (root / "round").symlink_to("round")
    (root / "up").symlink_to("..")
    (root / "linked.jpg").symlink_to("0.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.png"))
    (root / "zero.jpg").symlink_to("/dev/zero")
    files = PictureFiles(root, 10**8)
    assert files.names == ["0.jpg", "1.jpg", "2.jpg", "linked.jpg"]
    assert files.left_out == {
        "dangling.png": "dangling link",
        "pipe": "no regular file",
        "pipe.jpg": "no regular file",
        "round": "dangling link",
        "socket.png": "no regular file",
        "up/": "linked folder (not followed: name it in config.data.path, or copy it)",
        "zero.jpg": "no regular file",
    }


def test_a_file_that_becomes_a_pipe_after_it_was_listed_is_set_aside(tmp_path):
    root = write_pictures(tmp_path / "faces")
    files = PictureFiles(root, 10**8)
    (root / "1.jpg").unlink()
    os.mkfifo(root / "1.jpg")
    with pytest.raises(Exception, match="no regular file"):
        files.read("1.jpg")


def test_a_folder_that_cannot_be_read_does_not_refuse_the_rest(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "faces")
    write_pictures(root / "bad")
    scandir = os.scandir

    def failing(path):
        if pathlib.Path(path).name == "bad":
            raise OSError(5, "Input/output error", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    files = PictureFiles(root, 10**8)
    assert len(files.names) == 3
    assert files.left_out == {"bad/": "cannot be read: Input/output error"}
    with pytest.raises(UserError, match="bad' cannot be read: Input/output error: name another"):
        PictureFiles(root / "bad", 10**8)


def test_names_that_are_no_text_are_names(tmp_path):
    root = write_pictures(tmp_path / "faces")
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(7))
    (root / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"hello")
    dataset = opened(tmp_path, source="folder", path=str(root), crop="center", holdout=(0.0, 0.0))
    assert os.fsdecode(b"caf\xe9.jpg") in dataset.splits["train"].names
    assert dataset.report["set_aside"] == {os.fsdecode(b"caf\xe9.txt"): "not a picture"}


@pytest.mark.parametrize("name", ["linked", "hidden", "recycled", "packed", "empty"])
def test_a_place_without_pictures_says_what_it_holds(tmp_path, name):
    root = tmp_path / name
    root.mkdir()
    faces = write_pictures(tmp_path / "faces")
    if name == "linked":
        (root / "set1").symlink_to(faces)
        said = (
            r", but 1 × linked folder \(not followed: name it in config.data.path, or copy it\): "
        )
    elif name == "hidden":
        (root / ".photos").mkdir()
        (root / "notes.txt").write_text("hello")
        said = ", but 1 × .*; 1 × .*: "
    elif name == "recycled":
        write_pictures(root / "$Recycle.Bin")
        said = ", but 1 × system folder: "
    elif name == "packed":
        write_zip(root / "faces.zip", {"a.jpg": "jpeg"})
        said = r", but 1 × archive \(unpack it, or name a zip in config.data.path\): "
    else:
        said = ": "
    with pytest.raises(UserError, match=f"holds no pictures{said}put JPEG, PNG or other"):
        opened(tmp_path, source="folder", path=str(root), crop="center")


def test_reasons_are_told_in_one_line_the_most_frequent_first(tmp_path, capsys):
    root = write_pictures(tmp_path / "faces")
    for number in range(9):
        (root / f"{number}.txt").write_text("hello")
        (root / f"cut{number}.jpg").write_bytes(jpeg(number)[: 900 + number])
    for name in ("a", "b"):
        (root / f".{name}").write_bytes(b"")
        (root / name).write_bytes(b"")
        (root / f"{name}.dng").write_bytes(b"II*\0")
        (root / f"d{name}.png").symlink_to("nothing")
        (root / f"{name}.jxl").write_bytes(b"\xff\x0a")
    config = DataConfig(
        source="folder", path=str(root), crop="center", cache_dir=str(tmp_path / "c")
    )
    dataset = open_dataset(config)
    assert len(dataset.report["set_aside"]) == 28
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not used")]
    assert len(lines) == 1
    assert "9 × not a picture" in lines[0]
    assert "9 × image file is truncated (… bytes not processed)" in lines[0]
    assert "4 × other reasons; their names are in " in lines[0]


def test_a_text_beside_the_pictures_does_not_change_the_cache(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "faces")
    config = {"source": "folder", "path": str(root), "crop": "center", "holdout": (0.0, 0.0)}
    first = opened(tmp_path, **config)
    (root / "notes.txt").write_text("hello")
    second = opened(tmp_path, **config)
    assert second.report["file"] == first.report["file"]
    assert second.report["set_aside"] == {"notes.txt": "not a picture"}
    assert json.loads(pathlib.Path(second.report["file"]).read_text()) == {
        "notes.txt": "not a picture"
    }


def test_splits_by_folder_are_said_and_win_over_holdout(tmp_path, capsys):
    root = tmp_path / "data"
    for count, folder in ((9, "Training"), (3, "dev"), (2, "Testing")):
        write_pictures(root / folder, count)
    config = DataConfig(
        source="folder",
        path=str(root),
        crop="center",
        holdout=(0.5, 0.4),
        cache_dir=str(tmp_path / "cache"),
    )
    for _ in range(2):  # the second time, the cache is not built again
        dataset = open_dataset(config)
        sizes = {name: len(split.images) for name, split in dataset.splits.items()}
        assert sizes == {"train": 9, "valid": 3, "test": 2}
        said = "the folders Testing, Training, dev are the splits (9 train, 3 valid, 2 test)"
        assert f"{said}; config.data.holdout is not used" in capsys.readouterr().err
    write_pictures(root / "more", 1)
    one_pool = open_dataset(config)
    assert "are the splits" not in capsys.readouterr().err
    assert sum(len(split.images) for split in one_pool.splits.values()) == 15


def test_folders_called_like_splits_that_are_not_taken_are_told(tmp_path):
    for name in ("train/a.png", "val/b.png", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    (note,) = Folder(tmp_path, 10**8).notes
    assert note.startswith("the folders train, val are named like splits, but other")
    (tmp_path / "loose.png").unlink()
    assert "are the splits" in Folder(tmp_path, 10**8).notes[0]

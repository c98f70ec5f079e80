"""Folders of pictures: links, special files, unreadable folders, splits by folder, and messages."""

import json
import os
import pathlib
import socket
import zipfile

import pytest
from picture_trees import jpeg, opened
from PIL import Image

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.sources.file_tree import Unreadable
from vaejax.data.sources.folder import Folder
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.errors import UserError


def write_pictures(root: pathlib.Path, count: int = 3) -> pathlib.Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(jpeg(number))
    return root


def test_files_that_are_not_regular_are_left_out_unread(tmp_path):
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


def test_a_file_that_became_a_pipe_after_it_was_listed_is_unreadable(tmp_path):
    root = write_pictures(tmp_path / "faces")
    files = PictureFiles(root, 10**8)
    (root / "1.jpg").unlink()
    os.mkfifo(root / "1.jpg")
    with pytest.raises(Unreadable, match=r"^no regular file$"):
        files.read("1.jpg")


def test_a_folder_that_cannot_be_read_is_left_out(tmp_path, monkeypatch):
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


def test_names_that_are_not_utf8_are_kept(tmp_path):
    root = write_pictures(tmp_path / "faces")
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(7))
    (root / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"hello")
    dataset = opened(tmp_path, source="folder", path=str(root), crop="center", holdout=(0.0, 0.0))
    assert os.fsdecode(b"caf\xe9.jpg") in dataset.splits["train"].names
    assert dataset.report["set_aside"] == {os.fsdecode(b"caf\xe9.txt"): "not a picture"}


LINKED = r"linked folder \(not followed: name it in config.data.path, or copy it\)"


def make_linked(root):
    (root / "set1").symlink_to(write_pictures(root.parent / "faces"))


def make_hidden(root):
    (root / ".photos").mkdir()
    (root / "notes.txt").write_text("hello")


def make_archive(root):
    with zipfile.ZipFile(root / "faces.zip", "w") as archive:
        archive.writestr("a.jpg", jpeg(0))


@pytest.mark.parametrize(
    ("fill", "reasons"),
    [
        (make_linked, f", but 1 × {LINKED}"),
        (make_hidden, ", but 1 × hidden folder; 1 × not a picture"),
        (lambda root: write_pictures(root / "$Recycle.Bin"), ", but 1 × system folder"),
        (make_archive, r", but 1 × archive \(unpack it, or name a zip in config.data.path\)"),
        (lambda root: None, ""),
    ],
    ids=["linked", "hidden", "recycled", "packed", "empty"],
)
def test_a_folder_without_pictures_is_an_error_with_its_contents(tmp_path, fill, reasons):
    root = tmp_path / "root"
    root.mkdir()
    fill(root)
    with pytest.raises(UserError, match=f"holds no pictures{reasons}: put JPEG, PNG or other"):
        opened(tmp_path, source="folder", path=str(root), crop="center")


def test_reasons_are_counted_in_one_line_the_most_frequent_first(tmp_path, capsys):
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
    frequent = ("9 × not a picture", "9 × image file is truncated (… bytes not processed)")
    assert all(0 < lines[0].index(reason) < lines[0].index("; 2 × ") for reason in frequent)
    assert "4 × other reasons; their names are in " in lines[0]


def test_a_text_beside_the_pictures_does_not_change_the_cache(tmp_path):
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


def test_splits_by_folder_are_reported_and_replace_the_holdout(tmp_path, capsys):
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
        message = "the folders Testing, Training, dev are the splits (9 train, 3 valid, 2 test)"
        assert f"{message}; config.data.holdout is not used" in capsys.readouterr().err
    write_pictures(root / "more", 1)
    one_pool = open_dataset(config)
    assert "are the splits" not in capsys.readouterr().err
    assert sum(len(split.images) for split in one_pool.splits.values()) == 15


def test_folders_named_like_splits_beside_other_pictures_are_reported(tmp_path):
    for name in ("train/a.png", "val/b.png", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    (note,) = Folder(tmp_path, 10**8).notes
    assert note.startswith("the folders train, val are named like splits, but other")
    (tmp_path / "loose.png").unlink()
    assert "are the splits" in Folder(tmp_path, 10**8).notes[0]

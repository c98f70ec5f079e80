"""Each file in a folder or zip is either used or reported with exactly one reason."""

import importlib.util
import json
import pathlib
import posixpath
import tempfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from picture_trees import encoded, opened
from PIL import Image
from tiny import tiny

from vaejax.config.saved import to_json
from vaejax.data.pictures.formats import readers
from vaejax.data.sources.picture_filter import CACHE_TAG, CACHE_TAG_CONTENT
from vaejax.errors import UserError
from vaejax.records import pictures

# File contents and their expected outcomes

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
HEIC_REASON = "HEIC picture (to read it: pip install 'vaejax[heic]')"


def picture(form: str, **options) -> bytes:
    return encoded(Image.fromarray(np.full((20, 20, 3), 90, np.uint8)), form, **options)


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


def write_zip(path: pathlib.Path, tree: dict[str, str]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in tree.items():
            archive.writestr(name, content_of(kind))
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
@example({"train/a": "png", "Val/b.jpg": "jpeg", "TEST/c": "drawn", "notes": "letter"})
@example({"faces/a.jpg": "png", "faces/run/config.json": "config.json", "faces/run/b": "jpeg"})
@example({"faces/a.jpg": "png", "x.txt": "letter", "faces/b.txt": "array", "y/.vaejax": ".vaejax"})
def test_each_file_is_used_or_reported_with_one_reason(tree):
    splits, reasons = expected(tree)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for place in (write_folder(root / "tree", tree), write_zip(root / "a.zip", tree)):
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
def test_each_format_of_pillow_is_used_without_a_suffix(tmp_path, form):
    if form not in Image.SAVE:
        pytest.skip(f"Pillow does not write {form}")
    # PCX and TGA files have no signature: they are recognised by their suffix.
    name = f"picture.{form.lower()}" if form in ("PCX", "TGA") else "picture"
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / name).write_bytes(picture(form))
    dataset = opened(
        tmp_path, source="folder", path=str(tmp_path / "faces"), crop="center", holdout=(0.0, 0.0)
    )
    assert list(dataset.splits["train"].names) == [name]
    assert np.abs(dataset.splits["train"].images[0].astype(int) - 90).max() < 5

"""Finds out which files of a tree are pictures, and why the others are left out.

Besides files that are not pictures, it leaves out hidden files, system folders, cache folders
and what vaejax has written.
"""

import contextlib
import json
from typing import Any, NamedTuple

from vaejax.data.pictures.formats import HEAD_BYTES, SUFFIXES, refusal
from vaejax.data.sources.file_tree import Entry, Tree, Unreadable
from vaejax.files.paths import RUN_MARK

CACHE_TAG = "CACHEDIR.TAG"
"""Name of the file that marks a folder of files that can be made again
(https://bford.info/cachedir/)."""
CACHE_TAG_CONTENT = "Signature: 8a477f597d28d172789f06886806bc55\n"

# In lower case: recycle bins, thumbnails and snapshots of Windows, macOS and network storage.
_SYSTEM_FOLDERS = {
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "found.000",
    "lost+found",
    "__macosx",
    "network trash folder",
    "temporary items",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@__thumb",
    "@tmp",
    "@sharebin",
}
_CONFIG_BYTES = 1 << 20


class Listing(NamedTuple):
    """The files of a tree.

    Attributes:
      found: the pictures: name -> mark (see `Entry`).
      sizes: the pictures: name -> size in bytes.
      left_out: everything else: name -> reason; a folder stands for everything in it.
    """

    found: dict[str, Any]
    sizes: dict[str, int]
    left_out: dict[str, str]


def list_pictures(tree: Tree) -> Listing:
    """Lists the pictures of a tree. Files with the suffix of a picture are not opened.

    Raises:
      Unreadable: the root cannot be listed; any other such folder is left out.
    """
    listing = Listing({}, {}, {})
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = tree.entries(folder)
        except Unreadable as error:
            if not folder:
                raise
            listing.left_out[folder] = str(error)
            continue
        # The root is what the user has named: it is listed, whatever it is.
        if folder and (reason := _folder_refusal(tree, folder, {entry.name for entry in entries})):
            listing.left_out[folder] = reason
            continue
        for entry in entries:
            name = folder + entry.name + ("/" if entry.is_folder else "")
            reason = entry.refusal or _name_refusal(entry) or _content_refusal(tree, name, entry)
            if reason:
                listing.left_out[name] = reason
            elif entry.is_folder:
                pending.append(name)
            else:
                listing.found[name] = entry.mark
                listing.sizes[name] = entry.size
    return listing


def _name_refusal(entry: Entry) -> str:
    name = entry.name.lower()
    if entry.is_folder and (name in _SYSTEM_FOLDERS or name.startswith(".trash")):
        return "system folder"
    if name.startswith("."):
        return "hidden folder" if entry.is_folder else "hidden file"
    return ""


def _content_refusal(tree: Tree, name: str, entry: Entry) -> str:
    if entry.is_folder or name.lower().endswith(SUFFIXES):
        return ""
    try:
        return refusal(name, tree.read(name, HEAD_BYTES)) or ""
    except Unreadable as error:
        return str(error)


def _folder_refusal(tree: Tree, folder: str, names: set[str]) -> str:
    """Returns why a folder is left out (a vaejax run or a tagged cache), or "" if it is not."""
    if RUN_MARK in names or ("checkpoints" in names and {".lock", "metrics.jsonl"} & names):
        return "vaejax run"
    with contextlib.suppress(Unreadable):
        if "config.json" in names and _is_config(tree.read(folder + "config.json", _CONFIG_BYTES)):
            return "vaejax run"
        tag = CACHE_TAG_CONTENT.strip().encode()
        if CACHE_TAG in names and tree.read(folder + CACHE_TAG, len(tag)) == tag:
            return "cache folder"
    return ""


def _is_config(content: bytes) -> bool:
    """Whether a file is a run's config; only the sections that all versions share are checked."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(values, dict)
        and {"data", "model", "train"} <= values.keys()
        and all(isinstance(section, dict) for section in values.values())
        and {"source", "image_size"} <= values["data"].keys()
    )

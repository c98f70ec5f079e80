"""Which files of a tree are pictures, and why the others are not.

Left out, beside what is no picture: hidden files, folders that systems keep for themselves, and
what vaejax has written.
"""

import contextlib
import json
from typing import Any, NamedTuple

from vaejax.data.pictures.formats import HEAD_BYTES, SUFFIXES, refusal
from vaejax.data.sources.file_tree import Entry, Tree, Unreadable
from vaejax.files.paths import RUN_MARK

CACHE_TAG = "CACHEDIR.TAG"
"""Marks a folder that can be made again (https://bford.info/cachedir/)."""
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
    """A tree, listed.

    Attributes:
      found: pictures: name -> mark.
      sizes: pictures: name -> bytes.
      left_out: everything else: name -> reason; a folder stands for all that lies in it.
    """

    found: dict[str, Any]
    sizes: dict[str, int]
    left_out: dict[str, str]


def list_pictures(tree: Tree) -> Listing:
    """Lists a tree. No file that is called like a picture is opened.

    Raises:
      Unreadable: the root cannot be read; any other folder is left out.
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
        # What the user has named is looked into, whatever it is.
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
    """Why a folder is not looked into: vaejax has written it, or its owner can make it again."""
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
    """Whether a file holds a run's settings; other versions have other sections."""
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

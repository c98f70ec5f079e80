"""Picture files by name, from a directory or a zip: the same names in the same order."""

import itertools
import pathlib
import posixpath

from vaejax.data.sources.directory_tree import Directory
from vaejax.data.sources.file_tree import Tree, Unreadable
from vaejax.data.sources.picture_filter import list_pictures
from vaejax.data.sources.zip_tree import Zip
from vaejax.errors import UserError

# 16 bits in four channels, uncompressed; and 64 MiB for whatever else a picture file carries.
_BYTES_PER_PIXEL, _LEAST_BYTES = 8, 64 << 20


class PictureFiles:
    """The pictures of a directory or a zip, recursively.

    Names are relative, with forward slashes, sorted, and without the folders that all of them
    share: a zip of a folder and the folder itself give the same names.

    Attributes:
      names: sorted list of names.
      marks: name -> value that changes with the file: size and modification time, or size and CRC.
      left_out: everything else there: name -> reason. A folder's name ends in a slash and stands
        for everything in it.
    """

    def __init__(self, path: pathlib.Path, max_pixels: int):
        """Lists the pictures.

        Args:
          path: the directory or zip.
          max_pixels: largest number of pixels of a picture; `read` refuses files that are larger
            than such a picture uncompressed (and than 64 MiB).

        Raises:
          UserError: the path is neither a directory nor a zip, or cannot be listed.
        """
        self._tree: Tree = Directory(path) if path.is_dir() else Zip(path)
        self._max_pixels = max_pixels
        try:
            found, sizes, left_out = list_pictures(self._tree)
        except Unreadable as error:
            raise UserError(
                f"config.data.path={str(path)!r} {error}: name another folder or zip"
            ) from error
        prefix = _shared_folder(list(found))
        self._full = {name[len(prefix) :]: name for name in sorted(found)}
        self._sizes = sizes
        self.names = list(self._full)
        self.marks = {short: found[full] for short, full in self._full.items()}
        self.left_out = {relative(name, prefix): left_out[name] for name in sorted(left_out)}

    def read(self, name: str) -> bytes:
        """Reads the bytes of one file; may be called from several threads.

        Raises:
          Unreadable: the file is too large or cannot be read; the message is the reason.
        """
        full = self._full[name]
        limit = max(_LEAST_BYTES, _BYTES_PER_PIXEL * self._max_pixels)
        if self._sizes[full] > limit:
            raise Unreadable(
                f"{self._sizes[full]:,} bytes, more than"
                f" config.data.max_pixels={self._max_pixels} can take"
            )
        return self._tree.read(full, limit)


def _shared_folder(names: list[str]) -> str:
    if not names:
        return ""
    # Folders shared by the first and the last name in string order are shared by all.
    folders = [name.split("/")[:-1] for name in (min(names), max(names))]
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*folders))
    return "".join(f"{part}/" for part, _ in shared)


def relative(name: str, prefix: str) -> str:
    """Makes a name relative to the folder `prefix`; folders keep their final slash.

    >>> relative("faces/a.jpg", "faces/"), relative("notes/", "faces/")
    ('a.jpg', '../notes/')
    """
    if not prefix:
        return name
    seen = posixpath.relpath("/" + name, "/" + prefix)
    return seen + "/" if name.endswith("/") else seen

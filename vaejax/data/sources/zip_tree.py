"""The files of a zip, as a `Tree`."""

import bz2
import copy
import pathlib
import stat
import zipfile
import zlib
from collections import Counter

from vaejax.data.sources.file_tree import Entry, Unreadable, cannot, reason_of
from vaejax.errors import UserError

# Most parts of a member's name: folders nested as deep as a zip can name them would fill memory.
_DEEPEST = 256


class Zip:
    """A zip. At most the stated size of a member is read, even if it decompresses to more."""

    def __init__(self, path: pathlib.Path):
        """Opens and lists the zip.

        Raises:
          UserError: it is not a zip, or Python cannot list it.
        """
        self._archive, members = _open_zip(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._copies: Counter[str] = Counter()
        self._folders: dict[str, dict[str, Entry]] = {"": {}}
        for member in members:
            self._add(member)

    def _add(self, member: zipfile.ZipInfo) -> None:
        # Windows' own tools have written backslashes; a leading ./ is not a hidden folder.
        written = member.filename.replace("\\", "/")
        parts = [part for part in written.split("/") if part not in ("", ".", "..")]
        if not parts:
            return
        if len(parts) > _DEEPEST:
            self._folders[""][written] = Entry(written, refusal="in too many folders")
            return
        folder = ""
        for part in parts if written.endswith("/") else parts[:-1]:
            self._folders[folder].setdefault(part + "/", Entry(part, True))
            folder += part + "/"
            self._folders.setdefault(folder, {})
        if written.endswith("/"):
            return
        self._put(folder, parts[-1], member)

    def _put(self, folder: str, name: str, member: zipfile.ZipInfo) -> None:
        beside = self._folders[folder]
        if name in beside:
            # The last member of a name replaces the others, as in unpacking.
            self._copies[folder + name] += 1
            earlier = f"{name} (copy {self._copies[folder + name]})"
            beside[earlier] = Entry(earlier, refusal="overwritten by a later member of its name")
        mark = [member.file_size, member.CRC]
        beside[name] = Entry(name, False, member.file_size, mark, _member_refusal(member))
        self._members[folder + name] = member

    def entries(self, folder: str) -> list[Entry]:
        """Lists the entries of a folder."""
        return list(self._folders[folder].values())

    def read(self, name: str, limit: int) -> bytes:
        """Reads a member's first `limit` bytes.

        Raises:
          Unreadable: the member is damaged or cannot be read.
        """
        try:
            member = self._members[name]
            wanted = min(limit, member.file_size)
            if member.compress_type == zipfile.ZIP_BZIP2:
                return self._read_bzip2(member, wanted)
            # zipfile limits the output of deflate to what is asked for. With other methods it
            # decompresses each piece of input whole, which is bounded if the pieces are small.
            bounded = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            content = bytearray()
            with self._archive.open(member) as file:
                left = wanted
                while piece := file.read(left if bounded else min(4096, left)):
                    content += piece
                    left -= len(piece)
            return bytes(content)
        except Exception as error:  # a damaged member makes zipfile raise nearly anything
            raise Unreadable(cannot(error, name)) from error

    def _read_bzip2(self, member: zipfile.ZipInfo, wanted: int) -> bytes:
        """Reads the first `wanted` bytes of a bzip2 member with bounded memory.

        zipfile decompresses bzip2 in pieces that may grow to gigabytes.
        """
        packed = copy.copy(member)
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, member.compress_size
        del packed.CRC  # it is the CRC of the decompressed content
        with self._archive.open(packed) as file:
            content = bz2.BZ2Decompressor().decompress(file.read(), wanted)
        if wanted == member.file_size and zlib.crc32(content) != member.CRC:
            raise zipfile.BadZipFile("Bad CRC-32")
        return content


def _member_refusal(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & 1:
        return "encrypted (unpack the zip and name the folder)"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "link in a zip (not followed)"
    return "" if kind in (0, stat.S_IFREG) else "no regular file"


def _open_zip(path: pathlib.Path) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    setting = f"config.data.path={str(path)!r}"
    try:
        if not path.is_file():
            raise UserError(
                f"{setting} is neither a directory nor a file: name a folder or zip of pictures"
            )
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK" or zipfile.is_zipfile(path)
        if not is_zip:
            raise UserError(
                f"{setting} is neither a directory nor a readable zip: give a folder or zip of"
                " pictures"
            )
        archive = zipfile.ZipFile(path)
        return archive, archive.infolist()
    except UserError:
        raise
    except Exception as error:  # zipfile does not wrap what its codecs and `struct` raise
        raise UserError(
            f"{setting} is a zip that cannot be listed ({reason_of(error)}): get it again, or"
            " unpack it with another program and name the folder"
        ) from error

"""Writes small picture collections with Pillow, and opens them as data sets."""

import functools
import io
import pathlib
import zipfile
import zlib

import numpy as np
from PIL import Image

from vaejax.config import DataConfig
from vaejax.data import open_dataset

ATTRIBUTES = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]
"""CelebA's forty, in the order of the official file."""


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    """Returns a picture as a file in a format of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@functools.cache
def jpeg(seed: int, width: int = 178, height: int = 218) -> bytes:
    """Returns a smooth random picture as a JPEG file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), np.uint8)
    return encoded(Image.fromarray(coarse).resize((width, height)), "JPEG", quality=90)


def header_only(width: int, height: int) -> bytes:
    """Returns a PNG whose header declares a size that its pixel data does not have."""
    picture = bytearray(encoded(Image.new("L", (8, 8))))
    picture[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    picture[29:33] = zlib.crc32(bytes(picture[12:29])).to_bytes(4, "big")
    return bytes(picture)


def celeba_records(count: int = 12) -> dict[str, tuple[bytes, int, np.ndarray]]:
    """Returns (JPEG bytes, partition 0 to 2, attributes 0 or 1) for each file name."""
    random = np.random.default_rng(1)
    return {
        f"{number:06d}.jpg": (
            jpeg(number),
            (0, 0, 1, 2)[number % 4],
            random.integers(0, 2, len(ATTRIBUTES), np.uint8),
        )
        for number in range(1, count + 1)
    }


def write_celeba(
    root: pathlib.Path, records: dict, *, pictures: str = "zip", tables: str = "txt"
) -> pathlib.Path:
    """Writes records in CelebA's layout.

    Args:
      root: directory to create.
      records: records as `celeba_records` returns them.
      pictures: `zip`, `folder`, or `nested` for a folder in a folder of the same name.
      tables: `txt` for the official format, or `csv` for Kaggle's.

    Returns:
      `root`.
    """
    root.mkdir(parents=True)
    if pictures == "zip":
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            archive.writestr("img_align_celeba/", "")
            for name in reversed(records):  # the order in the archive must not matter
                archive.writestr(f"img_align_celeba/{name}", records[name][0])
            archive.writestr("__MACOSX/img_align_celeba/._000001.jpg", b"junk")
    else:
        folder = root / "img_align_celeba"
        if pictures == "nested":
            folder = folder / "img_align_celeba"
        folder.mkdir(parents=True)
        for name, (content, _, _) in records.items():
            (folder / name).write_bytes(content)
    separator = "," if tables == "csv" else " "
    partition = [f"{name}{separator}{part}" for name, (_, part, _) in records.items()]
    attributes = [
        separator.join([name, *(str(2 * int(bit) - 1) for bit in bits)])
        for name, (_, _, bits) in records.items()
    ]
    if tables == "csv":
        partition.insert(0, "image_id,partition")
        attributes.insert(0, ",".join(["image_id", *ATTRIBUTES]))
    else:
        attributes[:0] = [str(len(records)), " ".join(ATTRIBUTES) + " "]
        attributes[2:] = [line.replace(" 1", "  1") for line in attributes[2:]]
    (root / f"list_eval_partition.{tables}").write_text("\n".join(partition) + "\n")
    (root / f"list_attr_celeba.{tables}").write_text("\n".join(attributes) + "\n")
    return root


def opened(tmp_path, **settings):
    """Opens a data set, by default at 32x32 with its cache in `tmp_path`."""
    settings = {"cache_dir": str(tmp_path / "cache"), "image_size": (32, 32)} | settings
    return open_dataset(DataConfig(**settings), progress=False)


def rgb(content, box, size=(32, 32)):
    """Returns the expected pixels of a picture file cropped to `box` and resized."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(image.crop(box).resize(size, Image.Resampling.BILINEAR))

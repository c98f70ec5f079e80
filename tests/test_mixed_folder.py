"""A folder of usual, unusual and damaged pictures: each is decoded exactly, or set aside."""

import re

import numpy as np
from picture_trees import encoded, header_only
from PIL import Image

from vaejax.config import DataConfig
from vaejax.data import open_dataset

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 40), np.uint8)
COLOUR = RNG.integers(0, 256, (40, 40, 3), np.uint8)


def upside_down() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(Image.fromarray(COLOUR), exif=exif)


def half_clear() -> bytes:
    alpha = np.full((40, 40), 128, np.uint8)
    return encoded(Image.fromarray(np.dstack([COLOUR * 0, alpha])))


def damaged(picture: bytes) -> bytes:
    middle = len(picture) // 2
    return picture[:middle] + b"\xff" * 200 + picture[middle + 200 :]


RED = Image.new("RGB", (40, 40), "red")
FOLDER = {  # file name -> (content, expected pixels or a pattern of the reason for refusal)
    "plain.png": (encoded(Image.fromarray(COLOUR)), COLOUR),
    "wrong_suffix.jpg": (encoded(Image.fromarray(COLOUR)), COLOUR),
    "upper.PNG": (encoded(Image.fromarray(COLOUR)), COLOUR),
    "grey.png": (encoded(Image.fromarray(GREY)), np.dstack([GREY] * 3)),
    "sixteen.png": (
        encoded(Image.fromarray(GREY.astype(np.uint16) * 257)),
        np.dstack([GREY] * 3),
    ),
    "one_bit.png": (encoded(Image.new("1", (40, 40), 1)), [255, 255, 255]),
    "palette.gif": (encoded(RED.quantize(2), "GIF"), [255, 0, 0]),
    "moving.gif": (
        encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 40), "blue")]),
        [255, 0, 0],
    ),
    "cmyk.tif": (encoded(RED.convert("CMYK"), "TIFF"), [255, 0, 0]),
    "clear.png": (encoded(Image.new("RGBA", (40, 40), (9, 9, 9, 0))), [255, 255, 255]),
    "half_clear.png": (half_clear(), [127, 127, 127]),
    "upside_down.png": (upside_down(), np.rot90(COLOUR, 2)),
    "lossless.webp": (encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
    "bitmap.bmp": (encoded(Image.fromarray(COLOUR), "BMP"), COLOUR),
    "portable.ppm": (encoded(Image.fromarray(COLOUR), "PPM"), COLOUR),
    "small.png": (encoded(Image.new("RGB", (3, 3), "red")), [255, 0, 0]),
    "empty.jpg": (b"", "empty file"),
    "letter.jpg": (b"Dear Sir or Madam,", "not a picture"),
    "page.jpg": (b"<html><body>404 not found</body></html>", "not a picture"),
    "short.jpg": (encoded(Image.fromarray(COLOUR), "JPEG", quality=95)[:1500], "truncated"),
    "damaged.png": (damaged(encoded(Image.fromarray(COLOUR))), "data stream"),
    "dot.png": (encoded(Image.new("L", (1, 1))), "1x1 pixels.*too small"),
    "enormous.png": (header_only(60_000, 60_000), "60000x60000 pixels, more than"),
    "float.tiff": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point"),
}


def test_each_file_of_a_mixed_folder_is_decoded_or_set_aside(tmp_path, capsys):
    """Each file of `FOLDER` is used with the expected pixels, or set aside and reported."""
    root = tmp_path / "faces"
    root.mkdir()
    for name, (content, _) in FOLDER.items():
        (root / name).write_bytes(content)
    (root / "locked.png").symlink_to(root / "nothing")
    config = DataConfig(
        source="folder",
        path=str(root),
        crop="center",
        image_size=(40, 40),
        holdout=(0.0, 0.0),
        cache_dir=str(tmp_path / "cache"),
    )
    dataset = open_dataset(config)
    train = dataset.splits["train"]
    used = dict(zip(train.names, train.images))
    set_aside = dataset.report["set_aside"]
    assert set_aside.pop("locked.png") == "dangling link"
    assert used.keys() | set_aside.keys() == FOLDER.keys()
    for name, (_, outcome) in FOLDER.items():
        if isinstance(outcome, str):
            assert re.search(outcome, set_aside[name]), (name, set_aside[name])
        else:
            want = np.broadcast_to(np.asarray(outcome, np.uint8), (40, 40, 3))
            np.testing.assert_array_equal(used[name], want, err_msg=name)
    stderr = capsys.readouterr().err
    assert "not used: 2 × not a picture; 1 × dangling link; " in stderr
    assert f"; {len(set_aside) - 5} × other reasons; their names are in " in stderr
    assert dataset.report["file"] in stderr

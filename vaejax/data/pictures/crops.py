"""Named crops: which part of a picture is kept, and the filter that resizes it.

The CelebA presets are the boxes published models were trained with. A score computed on one
of them cannot be compared with a score on another, so the preset's name, box and filter are
part of every data fingerprint.

================  ==================================  ========  ==================================
preset            box (left, top, right, bottom)      filter    used by
================  ==================================  ========  ==================================
`wae140`          19, 39, 159, 179                    Lanczos   WAE "closecrop", RAE,
                                                                TwoStageVAE's celeba140, score_sde
`2svae128`        25, 45, 153, 173                    bilinear  TwoStageVAE's default
`ddim128`         25, 57, 153, 185                    bilinear  DDIM and most diffusion models
`ptvae148`        15, 35, 163, 183                    bilinear  PyTorch-VAE
`nvae148`         15, 40, 163, 188                    bilinear  NVAE, after Larsen's VAE-GAN
`wae_resizecrop`  shrunk to the target's width, then  Lanczos   ALI, AGE
                  its middle rows
`stretch`         the whole picture, any size         bilinear  disentangling-vae, ADM's reference
                                                                batch
`center`          the largest centred box of the      bilinear  folders of pictures
                  target's aspect
`none`            the picture already has the                   arrays, synthetic faces
                  target's size
================  ==================================  ========  ==================================

Pillow does the resampling. Its filters' support grows with the reduction: they antialias.
"""

import dataclasses
from typing import Literal

from PIL import Image

from vaejax.errors import UserError

CELEBA_SIZE = (178, 218)
"""Width and height of an aligned CelebA photograph."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}


@dataclasses.dataclass(frozen=True)
class Crop:
    """One preset: a rule for the box, and the filter of the resize.

    Attributes:
      rule: how the box is found, as in the table above; "box" is a fixed one.
      filter: Pillow's filter for resizing; None for no resize.
      box: left, top, right and bottom in pixels, for the rule "box" only.
    """

    rule: Literal["box", "shrink", "whole", "center", "none"]
    filter: Literal["bilinear", "lanczos"] | None
    box: tuple[int, int, int, int] | None = None

    @property
    def celeba_only(self) -> bool:
        """Whether the preset is defined only for 178x218 pictures and square targets."""
        return self.rule in ("box", "shrink")


PRESETS = {
    "wae140": Crop("box", "lanczos", (19, 39, 159, 179)),
    "2svae128": Crop("box", "bilinear", (25, 45, 153, 173)),
    "ddim128": Crop("box", "bilinear", (25, 57, 153, 185)),
    "ptvae148": Crop("box", "bilinear", (15, 35, 163, 183)),
    "nvae148": Crop("box", "bilinear", (15, 40, 163, 188)),
    "wae_resizecrop": Crop("shrink", "lanczos"),
    "stretch": Crop("whole", "bilinear"),
    "center": Crop("center", "bilinear"),
    "none": Crop("none", None),
}


def check_preset(preset: str, image_size: tuple[int, int]) -> None:
    """Raises `UserError` when `preset` is unknown or cannot give `image_size` (height, width)."""
    if preset not in PRESETS:
        raise UserError(
            f"config.data.crop={preset!r} is not a preset: use one of {', '.join(PRESETS)}"
        )
    height, width = image_size
    if PRESETS[preset].celeba_only and height != width:
        raise UserError(
            f"config.data.crop={preset!r} gives square pictures, but"
            f" config.data.image_size is {height}x{width}:"
            " use crop='stretch' or 'center', or a square image_size"
        )


def describe(preset: str) -> dict:
    """Describes a preset for the fingerprint: its name, box (or rule) and filter; JSON-able."""
    crop = PRESETS[preset]
    return {
        "preset": preset,
        "box": list(crop.box) if crop.box else crop.rule,
        "filter": crop.filter,
    }


def crop_and_resize(image: Image.Image, preset: str, image_size: tuple[int, int]) -> Image.Image:
    """Crops a picture with a preset and resizes it.

    Args:
      image: a picture in mode "RGB" or "L".
      preset: a name in `PRESETS`.
      image_size: height and width of the result in pixels.

    Raises:
      ValueError: the preset does not fit the picture; the message is the reason to set it aside.
    """
    crop = PRESETS[preset]
    height, width = image_size
    size = f"{image.width}x{image.height} pixels (width x height)"
    remedy = "(config.data.crop=center takes any size)"
    if crop.celeba_only and image.size != CELEBA_SIZE:
        raise ValueError(f"{size}, but crop '{preset}' is for 178x218 pictures {remedy}")
    if crop.filter is None:
        if image.size != (width, height):
            raise ValueError(f"{size}, but crop 'none' needs {width}x{height} {remedy}")
        return image
    resample = _FILTERS[crop.filter]
    if crop.rule == "shrink":
        # 64x78 and rows 7 to 71 for a 64-pixel target, as in ALI's code.
        shrunk = width * CELEBA_SIZE[1] // CELEBA_SIZE[0]
        top = (shrunk - height) // 2
        return image.resize((width, shrunk), resample).crop((0, top, width, top + height))
    box = crop.box
    if box is None:
        whole = crop.rule == "whole"
        box = (0, 0, *image.size) if whole else center_box(image.size, (width, height))
    if min(box[2] - box[0], box[3] - box[1]) < 2:
        raise ValueError(f"{size}: too small to show anything")
    return image.crop(box).resize((width, height), resample)


def center_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Computes the largest centred box with the aspect ratio of `target` in a picture of `size`.

    Args:
      size: width and height of the picture in pixels.
      target: width and height of the target; only their ratio matters.

    Returns:
      Left, top, right and bottom of the box in pixels.

    >>> center_box((178, 218), (64, 64))
    (0, 20, 178, 198)
    """
    scale = min(size[0] / target[0], size[1] / target[1])
    # Rounding must not push a side past the picture's edge.
    width, height = (min(have, round(want * scale)) for have, want in zip(size, target))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height

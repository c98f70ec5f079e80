"""Who sits for the portrait: the colours, the hair cut and the pose of one procedural face."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from vaejax.data.synthetic.shapes import Colour, Plane, hue_colour, mix, scale

Factors = dict[str, Shaped[Array, ""]]
"""The factors of one face, by the names in FACTORS."""

# Fair to deep, and the colours of `hair_colour` and `iris_colour` in the order of FACTORS.
SKINS = np.array(
    [[252, 222, 202], [246, 203, 172], [226, 173, 135], [192, 136, 98], [143, 94, 66], [96, 62, 47]]
)
HAIRS = np.array(
    [
        [34, 30, 34],
        [62, 41, 32],
        [102, 66, 42],
        [128, 56, 34],
        [200, 101, 44],
        [158, 119, 72],
        [228, 190, 116],
        [172, 172, 178],
    ]
)
IRISES = np.array(
    [[60, 36, 24], [112, 66, 32], [134, 104, 48], [72, 128, 76], [66, 124, 180], [124, 142, 154]]
)


SIZE = 1.5  # of a person whose factor scale is 1
EYES_Y = 0.0  # in the picture
NAPE = 0.45
TURN_RADIUS = 0.48


class Cut(NamedTuple):
    """A hair style. Lengths are in half short sides, heights y relative to the eyes."""

    opacity: Plane  # 0 bald
    top: Plane  # volume above the skull
    side: Plane  # volume beside it
    back: Plane  # where the hair behind the head ends
    round: Plane  # radius of its lower corners
    flare: Plane  # how much wider it grows downwards
    wave: Plane  # depth of the waves along its sides
    curl: Plane  # depth of the curls all round
    line: Plane  # the hairline over the forehead
    opening: Plane  # half-width of the face that the hair leaves free
    sides: Plane  # where the hair beside the face ends
    ears: Plane  # 0 ears are seen, 1 they are covered
    flat: Plane  # hairline: 0 an arch, 1 straight as a fringe
    part: Plane  # slope of the hairline
    bun: Plane  # radius of a knot


# A column each, in the order of FACTORS.
CUTS = dict(
    #            bald   buzz  short  afro   bob    long   wavy   bun
    opacity=(0.0, 0.85, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00),
    top=(0.01, 0.03, 0.13, 0.235, 0.12, 0.10, 0.14, 0.06),
    side=(0.01, 0.01, 0.035, 0.22, 0.10, 0.07, 0.13, 0.02),
    back=(0.10, 0.12, 0.15, 0.40, 0.60, 1.60, 0.98, 0.20),
    round=(0.10, 0.10, 0.10, 0.30, 0.10, 0.10, 0.16, 0.10),
    flare=(0.00, 0.00, 0.00, 0.00, 0.06, 0.10, 0.08, 0.00),
    wave=(0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.028, 0.00),
    curl=(0.00, 0.00, 0.00, 0.012, 0.00, 0.00, 0.00, 0.00),
    line=(-0.50, -0.38, -0.36, -0.34, -0.20, -0.42, -0.37, -0.38),
    opening=(0.40, 0.385, 0.385, 0.365, 0.33, 0.33, 0.34, 0.39),
    sides=(-0.2, 0.10, 0.12, 0.45, 0.57, 1.30, 0.88, 0.08),
    ears=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    flat=(0.0, 0.5, 0.4, 0.3, 1.0, 0.0, 0.0, 0.2),
    part=(0.0, 0.0, 0.22, 0.0, 0.0, 0.0, -0.22, 0.0),
    bun=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.17),
)


class Palette(NamedTuple):
    """What is the same for all pixels of a picture and costs more than a multiplication."""

    skin: Colour
    hair: Colour
    lips: Colour
    iris: Colour
    clothes: Colour
    backdrop: Colour
    cut: Cut


class View(NamedTuple):
    """Where each pixel is, in the systems of coordinates in which things are drawn."""

    px: Plane  # in the picture
    py: Plane
    bx: Plane  # relative to the body, which neither leans nor turns
    by: Plane
    x: Plane  # relative to the point between the eyes, upright with the head
    y: Plane
    u: Plane  # x on the head seen from the front
    edge: Plane  # size of a pixel in x and y
    edge_u: Plane  # size of a pixel in u


def palette(f: Factors) -> Palette:
    """The colours and the hair cut of one face."""
    tone = f["skin_tone"] * (len(SKINS) - 1)
    stops = jnp.arange(len(SKINS), dtype=jnp.float32)
    skins = jnp.asarray(SKINS.T / 255, jnp.float32)
    skin = Colour(*[jnp.interp(tone, stops, channel) for channel in skins])
    bare_lips = scale(skin, Colour(0.86, 0.60, 0.58))
    shade = f["background_shade"]
    return Palette(
        skin=skin,
        hair=_entry(HAIRS, f["hair_colour"]),
        lips=mix(bare_lips, Colour(0.72, 0.10, 0.16), 0.8 * f["lip_colour"]),
        iris=_entry(IRISES, f["iris_colour"]),
        clothes=hue_colour(
            f["clothes_hue"], 0.75 - 0.25 * f["clothes_shade"], 0.3 + 0.6 * f["clothes_shade"]
        ),
        backdrop=hue_colour(f["background_hue"], 0.55 - 0.25 * shade, 0.42 + 0.5 * shade),
        cut=Cut(*[jnp.asarray(CUTS[name], jnp.float32)[f["hair_style"]] for name in Cut._fields]),
    )


def _entry(table: np.ndarray, row: Shaped[Array, ""]) -> Colour:
    return Colour(*[jnp.asarray(column / 255, jnp.float32)[row] for column in table.T])


def look(f: Factors, px: Plane, py: Plane, pixel: float) -> View:
    """Coordinates of all pixels, given those in the picture and the size of a pixel."""
    size = SIZE * f["scale"]
    edge = pixel / size
    bx, by = (px - f["shift_x"]) / size, (py - f["shift_y"] - EYES_Y) / size
    # The head leans about the nape, not about the nose.
    roll = f["roll"] * (jnp.pi / 180)
    cos, sin = jnp.cos(roll), jnp.sin(roll)
    hy = by - NAPE
    x, y = bx * cos + hy * sin, hy * cos - bx * sin + NAPE
    # A turned sphere: where on its front view lies the point that is now at x?
    yaw = f["yaw"] * (jnp.pi / 180)
    depth = jnp.sqrt(jnp.maximum(TURN_RADIUS**2 - x * x, 0.01))
    u = x * jnp.cos(yaw) - depth * jnp.sin(yaw)
    slope = jnp.cos(yaw) + x / depth * jnp.sin(yaw)
    return View(px, py, bx, by, x, y, u, edge + 0 * x, edge * jnp.clip(slope, 0.8, 1.8))

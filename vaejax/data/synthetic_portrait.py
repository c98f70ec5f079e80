"""Paints one procedural face, back to front: backdrop, hair, body, head, features, hair.

The face is drawn in coordinates `u, y` of a head seen from the front. Turning the head (yaw)
only changes which u a pixel sees: features wander over the head, the far side is foreshortened.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from vaejax.data import synthetic_features as features
from vaejax.data.synthetic_shapes import (
    Colour,
    Plane,
    band,
    blob,
    cover,
    ellipse,
    hue_colour,
    lighten,
    meet,
    mix,
    ramp,
    ripple,
    tint,
)

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


class Cut(NamedTuple):
    """A hair style. Lengths are in half short sides, heights y relative to the eyes."""

    opacity: float  # 0 bald
    top: float  # volume above the skull
    side: float  # volume beside it
    back: float  # where the hair behind the head ends
    flare: float  # how much wider it grows downwards
    wave: float  # depth of waves or curls in the outline
    line: float  # the hairline over the forehead
    opening: float  # half-width of the face that the hair leaves free
    sides: float  # where the hair beside the face ends
    flat: float  # hairline: 0 an arch, 1 straight as a fringe
    part: float  # slope of the hairline
    bun: float  # radius of a knot


# In the order of FACTORS.
CUTS = Cut(
    *np.array(
        [
            # opa  top  side  back flare wave  line  open  sides flat  part  bun
            [0.0, 0.01, 0.01, 0.10, 0.0, 0.0, -0.50, 0.40, -0.2, 0.0, 0.0, 0.0],  # bald
            [0.8, 0.02, 0.01, 0.12, 0.0, 0.0, -0.40, 0.385, -0.02, 0.5, 0.0, 0.0],  # buzz
            [1.0, 0.13, 0.04, 0.15, 0.0, 0.0, -0.36, 0.385, 0.03, 0.4, 0.30, 0.0],  # short
            [1.0, 0.27, 0.24, 0.36, 0.0, 0.020, -0.36, 0.37, 0.16, 0.3, 0.0, 0.0],  # afro
            [1.0, 0.10, 0.11, 0.60, 0.06, 0.0, -0.19, 0.33, 0.57, 1.0, 0.0, 0.0],  # bob
            [1.0, 0.09, 0.08, 1.30, 0.10, 0.0, -0.42, 0.33, 1.02, 0.0, 0.0, 0.0],  # long
            [1.0, 0.13, 0.15, 0.98, 0.06, 0.035, -0.38, 0.34, 0.88, 0.0, -0.25, 0.0],  # wavy
            [1.0, 0.05, 0.02, 0.20, 0.0, 0.0, -0.40, 0.39, -0.04, 0.2, 0.0, 0.17],  # bun
        ]
    ).T
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


def palette(f: dict[str, Shaped[Array, ""]]) -> Palette:
    """The colours and the hair cut of one face."""
    tone = f["skin_tone"] * (len(SKINS) - 1)
    stops = jnp.arange(len(SKINS), dtype=jnp.float32)
    skins = jnp.asarray(SKINS.T / 255, jnp.float32)
    skin = Colour(*[jnp.interp(tone, stops, channel) for channel in skins])
    red = mix(skin.times(Colour(0.86, 0.60, 0.58)), Colour(0.72, 0.10, 0.16), 0.8 * f["lip_colour"])
    shade = f["background_shade"]
    return Palette(
        skin=skin,
        hair=_entry(HAIRS, f["hair_colour"]),
        lips=red,
        iris=_entry(IRISES, f["iris_colour"]),
        clothes=hue_colour(
            f["clothes_hue"], 0.75 - 0.25 * f["clothes_shade"], 0.3 + 0.6 * f["clothes_shade"]
        ),
        backdrop=hue_colour(f["background_hue"], 0.55 - 0.25 * shade, 0.42 + 0.5 * shade),
        cut=Cut(*[jnp.asarray(row, jnp.float32)[f["hair_style"]] for row in CUTS]),
    )


def _entry(table: np.ndarray, row: Shaped[Array, ""]) -> Colour:
    return Colour(*[jnp.asarray(column / 255, jnp.float32)[row] for column in table.T])


def view(f: dict[str, Shaped[Array, ""]], px: Plane, py: Plane, pixel: float) -> View:
    """Coordinates of all pixels, given those in the picture and the size of a pixel."""
    edge = pixel / f["scale"]
    bx, by = (px - f["shift_x"]) / f["scale"], (py - f["shift_y"]) / f["scale"]
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


NAPE = 0.45
TURN_RADIUS = 0.48


def paint(
    f: dict[str, Shaped[Array, ""]], colours: Palette, px: Plane, py: Plane, pixel: float
) -> Colour:
    """The whole picture.

    Args:
      f: the factors of one face.
      colours: `palette(f)`.
      px: where each pixel's middle is: 0 at the picture's middle, 1 half a short side right.
      py: likewise, downwards.
      pixel: size of a pixel in the same unit.
    """
    v = view(f, px, py, pixel)
    head = _head(f, v)
    hair = _hair_outline(f, colours.cut, v)
    opening = _opening(colours.cut, v)

    canvas = _backdrop(f, colours, v)
    canvas = _hair_behind(canvas, f, colours, v, hair)
    canvas = _body(canvas, f, colours, v, head)
    canvas = _skin(canvas, f, colours, v, head)
    canvas = _ears(canvas, f, colours, v, head)
    canvas = features.age_lines(canvas, f, v, head)
    canvas = features.beard(canvas, f, colours, v, head)
    canvas = features.nose(canvas, f, colours, v)
    canvas = features.mouth(canvas, f, colours, v)
    canvas = features.eyes(canvas, f, colours, v)
    canvas = features.brows(canvas, f, colours, v)
    canvas = features.glasses(canvas, f, v)
    return _hair_in_front(canvas, f, colours, v, hair, opening, head)


def _turn(f) -> Plane:
    return jnp.sin(f["yaw"] * (jnp.pi / 180))


def _head_width(f) -> Plane:
    return 0.385 + 0.05 * f["face_width"]


def _head(f, v: View) -> Plane:
    """Distance to the outline of the head, from the skull to the chin."""
    turned = v.x - _turn(f) * (0.32 * ramp(v.y, -0.35, 0.65) - 0.04)
    chin = 0.60 - 0.05 * f["face_width"] + 0.05 * f["mouth_open"]
    low = jnp.maximum(v.y, 0.0) / chin
    width = _head_width(f) * (1 - (0.18 - 0.16 * f["jaw"]) * low * low)
    p = turned / width
    q = jnp.where(v.y > 0, low, v.y / 0.56)
    p2, q2 = p * p, q * q
    round_, square = jnp.sqrt(p2 + q2 + 1e-9), jnp.sqrt(jnp.sqrt(p2 * p2 + q2 * q2 + 1e-9))
    squareness = (0.10 + 0.45 * f["jaw"]) * ramp(v.y, 0.0, 0.3)
    return (round_ + (square - round_) * squareness - 1) * 0.45


def _hair_outline(f, cut: Cut, v: View) -> Plane:
    """Distance to the outer contour of the hair, front and back in one."""
    x = v.x + 0.05 * _turn(f)
    waves = cut.wave * (ripple(v.y * 4.5 + 0.25) + ripple(v.x * 4.5))
    wide = _head_width(f) + cut.side + cut.flare * jnp.maximum(v.y, 0.0)
    skull = ellipse(x, v.y, wide, 0.56 + cut.top)
    fall = meet(jnp.abs(x) - wide, v.y - cut.back, 0.12)
    return jnp.where(v.y > 0, fall, skull) + waves


def _opening(cut: Cut, v: View) -> Plane:
    """Distance to the part of the face that hair leaves free; it has no lower end."""
    y = v.y - cut.part * v.u
    p, q = v.u / cut.opening, jnp.minimum(y, 0.0) / cut.line
    p2, q2 = p * p, q * q
    arch, straight = jnp.sqrt(p2 + q2 + 1e-9), jnp.sqrt(jnp.sqrt(p2 * p2 + q2 * q2 + 1e-9))
    return (arch + (straight - arch) * cut.flat - 1) * 0.36


def _backdrop(f, colours: Palette, v: View) -> Colour:
    canvas = colours.backdrop.times(1.0 - 0.10 * v.py)
    canvas = lighten(canvas, 0.28 * blob(v.px - 0.5 * f["light"], v.py + 0.3, 1.5, 1.5))
    return canvas


def _lambert(f, x: Plane, y: Plane) -> Plane:
    """0..1: how far a sphere of radius 1 is turned towards the light at x, y."""
    z = jnp.sqrt(jnp.maximum(1 - x * x - y * y, 0.0))
    return jnp.clip(0.55 * f["light"] * x - 0.42 * y + 0.66 * z, 0.0, 1.0)


def _lit(colour: Colour, light: Plane) -> Colour:
    """Skin in this much light: its shadows are redder, not only darker."""
    shadow = colour.times(Colour(0.70, 0.55, 0.52))
    return mix(shadow, colour.times(Colour(1.04, 1.03, 1.02)), ramp(light, -0.15, 0.75))


def _hair_colour(f, colours: Palette, v: View, strands: Plane) -> Colour:
    light = _lambert(f, v.x / 0.75, (v.y + 0.12) / 0.8)
    shaded = colours.hair.times((0.62 + 0.5 * light) * (1 + 0.10 * strands))
    gloss = blob(v.x - 0.22 * f["light"], v.y + 0.48, 0.42, 0.20)
    return lighten(shaded, (0.16 + 0.10 * strands) * gloss)


def _hair_behind(canvas: Colour, f, colours: Palette, v: View, hair: Plane) -> Colour:
    cut = colours.cut
    knot_y = v.y + 0.62 + 0.6 * cut.bun
    knot = ellipse(v.x + 0.10 * _turn(f), knot_y, cut.bun + 0.01, 0.9 * cut.bun + 0.01)
    strands = ripple(v.x * 5 + 0.6 * v.y)
    colour = _hair_colour(f, colours, v, strands)
    knot_colour = mix(
        colour.times(0.8), lighten(colour, 0.12), blob(v.x - 0.05 * f["light"], knot_y, 0.2, 0.2)
    )
    has_knot = ramp(cut.bun, 0.0, 0.05)
    canvas = mix(canvas, knot_colour, cover(knot, v.edge) * has_knot)
    # Below the ears one sees the inside of the hair, in the shadow of the head.
    inside = colour.times(1 - 0.40 * ramp(v.y, 0.0, 0.4))
    return mix(canvas, inside, cover(hair, v.edge) * cut.opacity)


def _body(canvas: Colour, f, colours: Palette, v: View, head: Plane) -> Colour:
    x, y = v.bx, v.by
    neck = jnp.abs(x) - (0.175 + 0.03 * f["jaw"]) - 0.16 * ramp(y, 0.55, 0.95) ** 2
    neck = jnp.maximum(neck, 0.2 - y)
    light = _lambert(f, x / 0.26, 0 * y)
    skin = _lit(colours.skin, light).times(0.96)
    # The chin's shadow, thrown away from the light.
    skin = tint(skin, Colour(0.66, 0.52, 0.50), cover(head - 0.10 + 0.1 * f["light"] * x, 0.24))

    shoulders = ellipse(x, jnp.minimum(y, 1.25) - 1.25, 0.92, 0.58)
    fabric_light = _lambert(f, x / 1.1, (y - 1.3) / 1.1)
    folds = ripple(1.6 * jnp.abs(x) - 0.9 * y)
    fabric = colours.clothes.times((0.62 + 0.5 * fabric_light) * (1 + 0.05 * folds))

    kind = f["clothes"]
    crew = ellipse(x, y - 0.70, 0.27, 0.155)
    vee = meet(jnp.abs(x) * 0.84 + (y - 1.02) * 0.54, 0.5 - y, 0.02)
    shirt = meet(jnp.abs(x) * 0.80 + (y - 0.96) * 0.60, 0.5 - y, 0.02)
    high = ellipse(x, y - 0.5, 0.18, 0.09)
    neckline = jnp.select([kind == 0, kind == 1, kind == 2], [crew, vee, shirt], high)
    collar_top = jnp.maximum(jnp.abs(x) - 0.225 - 0.2 * ramp(y, 0.62, 0.95), 0.56 - y)
    garment = jnp.where(kind == 3, jnp.minimum(shoulders, collar_top), shoulders)

    canvas = mix(canvas, skin, jnp.maximum(cover(neck, v.edge), cover(shoulders, v.edge)))
    canvas = mix(canvas, fabric, cover(jnp.maximum(garment, -neckline), v.edge))
    # A shirt has a pale collar; other necks a seam along the opening.
    trim_width = jnp.where(kind == 2, 0.055, 0.016)
    trim = mix(fabric.times(0.78), Colour(0.95, 0.94, 0.92), jnp.where(kind == 2, 1.0, 0.0))
    rolled = jnp.where(kind == 3, band(y - 0.64, 0.012, v.edge), 0.0)
    hem = band(neckline - trim_width, trim_width, v.edge) * jnp.where(kind == 3, 0.0, 1.0)
    return mix(canvas, trim, (hem + rolled) * cover(garment, v.edge))


def _skin(canvas: Colour, f, colours: Palette, v: View, head: Plane) -> Colour:
    x = v.x - 0.1 * _turn(f)
    light = _lambert(f, x / 0.56, (v.y - 0.02) / 0.74)
    skin = _lit(colours.skin, light)
    mirrored = jnp.abs(v.u)
    shadow = Colour(0.76, 0.62, 0.58)
    sockets = blob(mirrored - 0.17, v.y + 0.035, 0.15, 0.13)
    cheeks = blob(mirrored - 0.36, v.y - 0.30, 0.16, 0.30)
    lip_shadow = blob(v.u, v.y - 0.455 - 0.06 * f["mouth_open"], 0.13, 0.045)
    skin = tint(skin, shadow, 0.42 * sockets)
    skin = tint(skin, shadow, 0.30 * cheeks * (1 - 0.4 * f["face_width"]))
    skin = tint(skin, shadow, 0.45 * lip_shadow)
    rouge = blob(mirrored - 0.25, v.y - 0.16, 0.17, 0.13)
    skin = tint(skin, Colour(1.02, 0.66, 0.66), (0.12 + 0.62 * f["blush"]) * rouge)
    side = 0.12 * f["light"]
    glow = blob(v.u - side, v.y + 0.26, 0.24, 0.17) + blob(v.u - side, v.y - 0.5, 0.1, 0.08)
    skin = lighten(skin, 0.10 * glow)
    return mix(canvas, skin, cover(head, v.edge))


def _ears(canvas: Colour, f, colours: Palette, v: View, head: Plane) -> Colour:
    """Ears sit on the sides of the head: the near one moves onto it, the far one behind it."""
    yaw = f["yaw"] * (jnp.pi / 180)
    reach = _head_width(f) + 0.03
    behind = cover(head, v.edge)
    for side in (-1.0, 1.0):
        turn = side * yaw  # positive: this ear turns away from us
        x = side * v.x - reach * jnp.cos(jnp.minimum(jnp.abs(turn - 0.15), 1.0)) + 0.0
        y = v.y - 0.06
        shape = ellipse(x - 0.10 * y * -1.0, y, 0.075, 0.125)
        hidden = ramp(turn, -0.30, 0.10)
        # Towards the face an ear has no edge.
        root = ramp(x, -0.07, -0.01)
        visible = cover(shape, v.edge) * (1 - behind * hidden) * (root + (1 - root) * (1 - behind))
        light = _lambert(f, v.x / 0.62, 0 * y)
        ear = tint(_lit(colours.skin, light), Colour(0.96, 0.80, 0.76), 0.6)
        ear = tint(ear, Colour(0.62, 0.44, 0.40), 0.7 * blob(x - 0.005, y + 0.01, 0.05, 0.09))
        canvas = mix(canvas, ear, visible)
    return canvas


def _hair_in_front(
    canvas: Colour, f, colours: Palette, v: View, hair: Plane, opening: Plane, head: Plane
) -> Colour:
    cut = colours.cut
    over_ears = ramp(cut.sides, 0.1, 0.4)
    end = v.y - cut.sides
    # Short hair ends on the head; long hair falls beyond it.
    shape = meet(jnp.maximum(hair, -opening), end, 0.03)
    soft = v.edge + 0.05 * (1 - over_ears) * ramp(cut.opacity, 1.0, 0.7)
    shadow = cover(opening * -1.0 - 0.05, 0.12) * cover(head, v.edge) * ramp(end, 0.1, -0.1)
    canvas = tint(canvas, Colour(0.66, 0.54, 0.50), 0.45 * shadow * cut.opacity)
    # Strands follow the outline: across the parting on top, down along the cheeks.
    strands = ripple(v.u * 5 + 1.3 * v.y * jnp.where(v.u > 0, 1.0, -1.0) + 3 * cut.part * v.y)
    colour = _hair_colour(f, colours, v, strands)
    return mix(canvas, colour, cover(shape, soft) * cut.opacity)


__all__ = ["Palette", "View", "paint", "palette"]
_unused = (Float, band)

"""Paints one procedural face, back to front: backdrop, hair, body, head, features, hair.

The face is drawn in coordinates `u, y` of a head seen from the front. Turning the head (yaw)
only changes which u a pixel sees: features wander over the head, the far side is foreshortened.
"""

from typing import NamedTuple

import jax.numpy as jnp

from vaejax.data.synthetic import features
from vaejax.data.synthetic.shapes import (
    Colour,
    Plane,
    band,
    blob,
    cover,
    dome,
    ellipse,
    lighten,
    meet,
    mix,
    ramp,
    ripple,
    scale,
    tint,
)
from vaejax.data.synthetic.sitter import Cut, Factors, Palette, View, look


class Ear(NamedTuple):
    """One ear; x points away from the face."""

    seen: Plane  # how much one sees of it
    rim: Plane  # its outer edge
    x: Plane
    y: Plane


Ears = tuple[Ear, Ear]  # left and right in the picture


def paint(f: Factors, colours: Palette, px: Plane, py: Plane, pixel: float) -> Colour:
    """The whole picture.

    Args:
      f: the factors of one face.
      colours: `palette(f)`.
      px: where each pixel's middle is: 0 at the picture's middle, 1 half a short side right.
      py: likewise, downwards.
      pixel: size of a pixel in the same unit.
    """
    v = look(f, px, py, pixel)
    head = _head(f, v)
    ears = _ears(f, v, head)
    hair = _hair_outline(f, colours.cut, v)
    opening = _opening(f, colours.cut, v)

    canvas = _backdrop(f, colours, v)
    canvas = _hair_behind(canvas, f, colours, v, hair)
    canvas = _body(canvas, f, colours, v, head)
    canvas = _skin(canvas, f, colours, v, head)
    canvas = _paint_ears(canvas, f, colours, v, ears, head)
    canvas = features.age_lines(canvas, f, v, head)
    canvas = features.beard(canvas, f, colours, v, head)
    face = features.nose(canvas, f, v)
    face = features.mouth(face, f, colours, v)
    face = features.eyes(face, f, colours, v)
    face = features.brows(face, f, colours, v)
    # The far end of a brow disappears behind the turned head.
    canvas = mix(canvas, face, cover(head, v.edge))
    canvas = features.glasses(canvas, f, v, head)
    return _hair_in_front(canvas, f, colours, v, hair, opening, head, ears)


def _turn(f: Factors) -> Plane:
    return jnp.sin(f["yaw"] * (jnp.pi / 180))


def _head_width(f: Factors) -> Plane:
    return 0.37 + 0.07 * f["face_width"]


def _head(f: Factors, v: View) -> Plane:
    """Distance to the outline of the head, from the skull to the chin."""
    turned = v.x - _turn(f) * (0.30 * ramp(v.y, -0.55, 0.65) - 0.01)
    chin = 0.61 - 0.07 * f["face_width"] + 0.05 * f["mouth_open"]
    low = jnp.maximum(v.y, 0.0) / chin
    width = _head_width(f) * (1 - (0.24 - 0.23 * f["jaw"]) * low * low)
    p = turned / width
    q = jnp.where(v.y > 0, low, v.y / 0.54)
    square = jnp.where(v.y > 0, (0.04 + 0.60 * f["jaw"]) * ramp(v.y, 0.0, 0.3), 0.34 * q * q)
    return (dome(p, q, square) - 1) * 0.45


def _hair_outline(f: Factors, cut: Cut, v: View) -> Plane:
    """Distance to the outer contour of the hair, front and back in one."""
    x = v.x + 0.03 * _turn(f)
    waves = cut.wave * ripple(v.y * 3.2) * ramp(v.y, -0.25, 0.1)
    curls = cut.curl * (ripple(v.y * 4.5 + 0.25) + ripple(v.x * 4.5 + 0.25))
    wide = _head_width(f) + cut.side + cut.flare * jnp.maximum(v.y, 0.0) - waves
    skull = (dome(x / wide, v.y / (0.55 + cut.top), 0.30) - 1) * 0.52
    fall = meet(jnp.abs(x) - wide, v.y - cut.back, cut.round)
    return jnp.where(v.y > 0, fall, skull) + curls


def _opening(f: Factors, cut: Cut, v: View) -> Plane:
    """Distance to the part of the face that hair leaves free; it has no lower end."""
    y = v.y - cut.part * v.u
    # Seen from the side, hair before the ear would hide half the face: it is combed back there.
    wide = cut.opening + 0.08 * ramp(-v.u * _turn(f), 0.0, 0.12)
    return (dome(v.u / wide, jnp.minimum(y, 0.0) / cut.line, cut.flat) - 1) * 0.36


def _backdrop(f: Factors, colours: Palette, v: View) -> Colour:
    canvas = scale(colours.backdrop, 1.0 - 0.10 * v.py)
    canvas = lighten(canvas, 0.28 * blob(v.px - 0.5 * f["light"], v.py + 0.3, 1.5, 1.5))
    return canvas


def _lambert(f: Factors, x: Plane, y: Plane) -> Plane:
    """0..1: how far a sphere of radius 1 is turned towards the light at x, y."""
    z = jnp.sqrt(jnp.maximum(1 - x * x - y * y, 0.0))
    return jnp.clip(0.72 * f["light"] * x - 0.38 * y + 0.62 * z, 0.0, 1.0)


def _lit(colour: Colour, light: Plane) -> Colour:
    """Skin in this much light: its shadows are redder, not only darker."""
    shadow = scale(colour, Colour(0.70, 0.55, 0.52))
    return mix(shadow, scale(colour, Colour(1.04, 1.03, 1.02)), ramp(light, -0.10, 0.72))


def _hair_colour(f: Factors, colours: Palette, v: View, strands: Plane) -> Colour:
    light = _lambert(f, v.x / 0.75, (v.y + 0.12) / 0.8)
    shaded = scale(colours.hair, (0.62 + 0.5 * light) * (1 + 0.07 * strands))
    gloss = blob(v.x - 0.22 * f["light"], v.y + 0.48, 0.42, 0.20)
    return lighten(shaded, (0.16 + 0.05 * strands) * gloss)


def _hair_behind(canvas: Colour, f: Factors, colours: Palette, v: View, hair: Plane) -> Colour:
    cut = colours.cut
    knot_y = v.y + 0.60 + 0.55 * cut.bun
    knot = ellipse(v.x + 0.10 * _turn(f), knot_y, cut.bun + 0.01, 0.9 * cut.bun + 0.01)
    strands = ripple(v.x * 5 + 0.6 * v.y)
    colour = _hair_colour(f, colours, v, strands)
    knot_colour = mix(
        scale(colour, 0.8), lighten(colour, 0.12), blob(v.x - 0.05 * f["light"], knot_y, 0.2, 0.2)
    )
    has_knot = ramp(cut.bun, 0.0, 0.05)
    canvas = mix(canvas, knot_colour, cover(knot, v.edge) * has_knot)
    # Below the ears one sees the inside of the hair, in the shadow of the head.
    inside = scale(colour, 1 - 0.35 * ramp(v.y, 0.1, 0.5))
    return mix(canvas, inside, cover(hair, v.edge) * cut.opacity)


def _body(canvas: Colour, f: Factors, colours: Palette, v: View, head: Plane) -> Colour:
    x, y = v.bx, v.by
    neck = jnp.abs(x) - (0.175 + 0.03 * f["jaw"]) - 0.16 * ramp(y, 0.50, 0.90) ** 2
    neck = jnp.maximum(neck, 0.2 - y)
    light = _lambert(f, x / 0.26, 0 * y)
    skin = scale(_lit(colours.skin, light), 0.96)
    # The chin's shadow, thrown away from the light.
    skin = tint(skin, Colour(0.66, 0.52, 0.50), cover(head - 0.10 + 0.1 * f["light"] * x, 0.24))

    shoulders = ellipse(x, jnp.minimum(y, 1.20) - 1.20, 0.90, 0.59)
    fabric_light = _lambert(f, x / 1.1, (y - 1.3) / 1.1)
    folds = ripple(1.6 * jnp.abs(x) - 0.9 * y)
    fabric = scale(colours.clothes, (0.62 + 0.5 * fabric_light) * (1 + 0.05 * folds))

    kind = f["clothes"]
    crew = ellipse(x, y - 0.645, 0.27, 0.145)
    vee = meet(jnp.abs(x) * 0.84 + (y - 0.93) * 0.54, 0.5 - y, 0.02)
    shirt = meet(jnp.abs(x) * 0.80 + (y - 0.88) * 0.60, 0.5 - y, 0.02)
    high = y - 0.4
    neckline = jnp.select([kind == 0, kind == 1, kind == 2], [crew, vee, shirt], high)
    collar_top = meet(jnp.abs(x) - 0.23 - 0.2 * ramp(y, 0.58, 0.90), 0.52 - y, 0.04)
    garment = jnp.where(kind == 3, jnp.minimum(shoulders, collar_top), shoulders)

    canvas = mix(canvas, skin, jnp.maximum(cover(neck, v.edge), cover(shoulders, v.edge)))
    canvas = mix(canvas, fabric, cover(jnp.maximum(garment, -neckline), v.edge))
    # A shirt has a pale collar; other necks a seam along the opening.
    trim_width = jnp.where(kind == 2, 0.055, 0.016)
    trim = mix(scale(fabric, 0.78), Colour(0.95, 0.94, 0.92), jnp.where(kind == 2, 1.0, 0.0))
    rolled = jnp.where(kind == 3, band(y - 0.62 + 1.2 * x * x, 0.012, v.edge), 0.0)
    hem = band(neckline - trim_width, trim_width, v.edge) * jnp.where(kind == 3, 0.0, 1.0)
    return mix(canvas, trim, (hem + rolled) * cover(garment, v.edge))


def _skin(canvas: Colour, f: Factors, colours: Palette, v: View, head: Plane) -> Colour:
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


def _ears(f: Factors, v: View, head: Plane) -> Ears:
    """They sit on the sides of the head: the near one moves onto it, the far one behind it."""
    yaw = f["yaw"] * (jnp.pi / 180)
    on_head = cover(head, v.edge)
    ears = []
    for side in (-1.0, 1.0):
        turn = side * yaw  # positive: this ear turns away from us
        reach = (_head_width(f) + 0.01) * jnp.cos(jnp.minimum(jnp.abs(turn - 0.15), 1.0))
        y = v.y - 0.06
        x = side * v.x - reach + 0.10 * y
        shape = ellipse(x, y, 0.062, 0.110)
        hidden = on_head * ramp(turn, -0.30, 0.10)
        # Towards the face an ear has no edge.
        rooted = 1 - on_head * (1 - ramp(x, -0.055, -0.02))
        seen = cover(shape, v.edge) * (1 - hidden) * rooted
        ears.append(Ear(seen, band(shape, 0.010, 0.03), x, y))
    left, right = ears
    return left, right


def _paint_ears(
    canvas: Colour, f: Factors, colours: Palette, v: View, ears: Ears, head: Plane
) -> Colour:
    light = _lambert(f, v.x / 0.62, 0 * v.y)
    skin = tint(_lit(colours.skin, light), Colour(0.96, 0.80, 0.76), 0.6)
    bare = 1 - colours.cut.ears
    for ear in ears:
        hollow = blob(ear.x - 0.006, ear.y + 0.01, 0.042, 0.08)
        colour = tint(skin, Colour(0.62, 0.44, 0.40), 0.6 * hollow + 0.45 * ear.rim)
        # Where it lies on the head, its shadow sets it off.
        shadow = 0.35 * blob(ear.x, ear.y - 0.01, 0.105, 0.155)
        canvas = tint(canvas, Colour(0.70, 0.55, 0.52), shadow * cover(head, v.edge) * bare)
        canvas = mix(canvas, colour, ear.seen * bare)
    return canvas


def _hair_in_front(
    canvas: Colour,
    f: Factors,
    colours: Palette,
    v: View,
    hair: Plane,
    opening: Plane,
    head: Plane,
    ears: Ears,
) -> Colour:
    cut = colours.cut
    # Hair grows lower behind the ears than before them.
    end = v.y - cut.sides - 0.6 * (1 - cut.ears) * (jnp.abs(v.u) - 0.40)
    shape = meet(hair, end, 0.03)
    # Shaven hair has no sharp line over the forehead.
    soft = v.edge + 0.10 * ramp(cut.opacity, 1.0, 0.85)
    shadow = cover(-0.04 - opening, 0.12) * cover(head, v.edge) * ramp(end, 0.1, -0.1)
    canvas = tint(canvas, Colour(0.66, 0.54, 0.50), 0.45 * shadow * cut.opacity)
    # Strands fall to both sides of the crown.
    sideways = jnp.sqrt(v.u * v.u + 0.004)
    strands = ripple(4.5 * sideways + 1.2 * v.y + 3 * cut.part * v.u)
    colour = _hair_colour(f, colours, v, strands)
    ears_free = (1 - ears[0].seen) * (1 - ears[1].seen)
    ears_free = ears_free + (1 - ears_free) * cut.ears
    share = cover(shape, v.edge) * cover(-opening, soft)
    return mix(canvas, colour, share * cut.opacity * ears_free)

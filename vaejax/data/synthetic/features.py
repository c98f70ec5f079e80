"""The features of a procedural face: eyes, brows, nose, mouth, beard, glasses, lines of age.

All are drawn in `v.u, v.y`, the head seen from the front with the eyes at y = 0. Most come in
pairs and are drawn once, in |u|.
"""

import jax.numpy as jnp

from vaejax.data.synthetic.shapes import (
    Colour,
    Plane,
    band,
    blob,
    box,
    cover,
    ellipse,
    lighten,
    mix,
    ramp,
    ripple,
    scale,
    tint,
)
from vaejax.data.synthetic.sitter import Factors, Palette, View

MOUTH_Y = 0.345
BROWS_Y = -0.165


def _eye_x(f: Factors) -> Plane:
    return 0.157 + 0.058 * f["eye_spacing"]


def eyes(canvas: Colour, f: Factors, colours: Palette, v: View) -> Colour:
    """Lids, white, iris, pupil and the light in it."""
    side = jnp.where(v.u > 0, 1.0, -1.0)
    along = jnp.abs(v.u) - _eye_x(f)
    size = 0.86 + 0.42 * f["eye_size"]
    s = along / (0.098 * size)
    y = v.y + (0.08 + 0.34 * f["eye_tilt"]) * along
    arch = jnp.maximum(1 - s * s, 0.0)
    smile = jnp.maximum(f["smile"], 0.0)
    lower = (0.042 - 0.010 * smile) * size * arch
    upper = lower - f["eyes_open"] * (0.112 - 0.010 * smile) * size * arch
    edge = v.edge_u
    aperture = cover(jnp.maximum(upper - y, y - lower), edge) * cover(jnp.abs(s) - 1, edge * 10)

    # The lid shows its fold; a closed eye is all lid.
    lid = cover(jnp.maximum(upper - y - 0.035, y - lower), 0.03) * arch
    canvas = tint(canvas, Colour(0.86, 0.74, 0.70), 0.5 * lid)
    white = scale(Colour(0.97, 0.96, 0.95), 1 - 0.30 * cover(y - upper - 0.02, 0.05))
    canvas = mix(canvas, white, aperture)

    iris_x = along - side * f["gaze"] * 0.040
    iris_y = y - 0.002
    r = jnp.sqrt(iris_x * iris_x + iris_y * iris_y + 1e-9)
    radius = 0.047 * size
    iris = mix(colours.iris, lighten(colours.iris, 0.25), ramp(iris_y, -0.02, 0.04))
    iris = mix(iris, scale(colours.iris, 0.45), ramp(r, 0.65 * radius, radius))
    iris = mix(iris, Colour(0.05, 0.04, 0.04), cover(r - 0.45 * radius, edge))
    canvas = mix(canvas, iris, aperture * cover(r - radius, edge))
    glint = ellipse(iris_x * side - 0.016 * f["light"], iris_y + 0.018, 0.013, 0.013)
    canvas = mix(canvas, Colour(1.0, 1.0, 1.0), 0.9 * aperture * cover(glint, edge))

    # Lashes follow the upper lid, thicker outwards; the fold lies above and the bag below.
    ends = cover(jnp.abs(s) - 1.02, 0.12)
    lash = band(y - upper + 0.006, 0.012 + 0.005 * s, edge) * ends
    fold = (
        band(y - upper + 0.036 * size, 0.006, edge) * ends * arch * ramp(f["eyes_open"], 0.0, 0.4)
    )
    rim = band(y - lower - 0.004, 0.005, edge) * ends
    canvas = tint(canvas, Colour(0.62, 0.45, 0.42), 0.65 * fold)
    canvas = tint(canvas, Colour(0.60, 0.42, 0.40), 0.55 * rim)
    return mix(canvas, Colour(0.10, 0.07, 0.07), 0.9 * lash)


def brows(canvas: Colour, f: Factors, colours: Palette, v: View) -> Colour:
    """Arched when raised, slanting towards the nose when knit."""
    along = jnp.abs(v.u) - _eye_x(f) - 0.005
    s = along / 0.125
    raised = jnp.maximum(f["brows"], 0.0)
    knit = jnp.maximum(-f["brows"], 0.0)
    arch = (0.022 + 0.035 * raised) * (1 - s * s)
    y = v.y - BROWS_Y + 0.055 * raised - 0.022 * knit + arch - 0.016 + knit * 0.24 * along
    inner = along + 0.03 * knit
    thickness = (0.009 + 0.022 * f["brow_thickness"]) * (1 - 0.55 * ramp(s, -0.2, 1.0))
    ends = cover(jnp.abs(inner) - 0.12, 0.03)
    colour = mix(scale(colours.hair, 0.72), Colour(0.16, 0.11, 0.09), 0.25)
    shape = band(y, thickness, jnp.maximum(v.edge_u, 0.012)) * ends
    furrow = (
        knit * band(jnp.abs(v.u) - 0.035, 0.008, 0.03) * cover(jnp.abs(v.y + 0.15) - 0.05, 0.05)
    )
    canvas = tint(canvas, Colour(0.66, 0.50, 0.46), 0.6 * furrow)
    return mix(canvas, colour, 0.92 * shape)


def nose(canvas: Colour, f: Factors, v: View) -> Colour:
    """It stands off the face, so that its tip wanders further than its root when turning."""
    tip = 0.140 + 0.085 * f["nose_length"]
    wide = 0.045 + 0.055 * f["nose_width"]
    turn = f["yaw"] * (jnp.pi / 180)
    u = v.u - 0.13 * turn * ramp(v.y, -0.10, tip)
    y = v.y - tip
    shadow = Colour(0.66, 0.50, 0.46)
    # The flank away from the light lies in shade, and so does the far one of a turned nose.
    for side in (-1.0, 1.0):
        away = jnp.clip(0.42 - 0.42 * side * f["light"] + 0.6 * side * turn, 0.12, 1.0)
        flank = blob(side * u - 0.85 * wide, v.y - 0.02, 0.05, 0.24)
        canvas = tint(canvas, shadow, 0.55 * away * flank)
    ridge = blob(u - 0.012 * f["light"], v.y - 0.03, 0.034, 0.2)
    ball = blob(u - 0.018 * f["light"], y + 0.02, 0.05, 0.045)
    canvas = lighten(canvas, 0.16 * ridge + 0.22 * ball)
    under = blob(u, y - 0.052, 1.5 * wide, 0.05)
    canvas = tint(canvas, shadow, 0.6 * under)
    wing = band(ellipse(jnp.abs(u) - 0.62 * wide, y - 0.008, 0.48 * wide, 0.040), 0.006, v.edge_u)
    outside = ramp(jnp.abs(u), 0.6 * wide, 1.05 * wide) * ramp(y, -0.04, 0.0)
    canvas = tint(canvas, Colour(0.55, 0.38, 0.35), 0.75 * wing * outside)
    hole = ellipse(jnp.abs(u) - 0.52 * wide, y - 0.030, 0.36 * wide, 0.013)
    return tint(canvas, Colour(0.38, 0.22, 0.20), 0.85 * cover(hole, jnp.maximum(v.edge_u, 0.02)))


def mouth(canvas: Colour, f: Factors, colours: Palette, v: View) -> Colour:
    """Two lips along a curve, teeth and tongue between them."""
    smile = f["smile"]
    s = v.u / (0.135 + 0.035 * smile)
    s2 = s * s
    arch = jnp.maximum(1 - s2, 0.0)
    middle = MOUTH_Y + jnp.where(smile > 0, 1.0, 0.7) * smile * (0.028 - 0.068 * s2)
    gap = 0.15 * f["mouth_open"] * arch
    top, bottom = middle - 0.2 * gap, middle + 0.8 * gap
    full = 0.55 + 0.9 * f["lip_fullness"]
    bow = 1 - 0.22 * blob(v.u, 0 * v.u, 0.035, 1.0)
    upper_lip = top - 0.036 * full * bow * arch
    lower_lip = bottom + 0.047 * full * arch
    edge = v.edge_u
    within = cover(jnp.abs(s) - 1, 8 * edge)

    lips = cover(jnp.maximum(upper_lip - v.y, v.y - lower_lip), edge) * within
    # The upper lip faces down and is darker; the lower one catches the light.
    lip_colour = scale(colours.lips, 1 - 0.16 * cover(v.y - middle, 0.03))
    shine = blob(v.u - 0.03 * f["light"], v.y - bottom - 0.02 * full, 0.06, 0.018)
    canvas = mix(canvas, lighten(lip_colour, 0.28 * shine), 0.92 * lips)

    inside = cover(jnp.maximum(top - v.y, v.y - bottom), edge) * within * ramp(gap, 0.0, 0.015)
    tongue = blob(v.u, v.y - bottom - 0.01, 0.10, 0.06)
    cavity = mix(Colour(0.30, 0.07, 0.08), Colour(0.80, 0.36, 0.36), tongue)
    teeth = cover(v.y - top - 0.042 + 0.016 * s2, edge) * cover(jnp.abs(s) - 0.86, 0.2)
    cavity = mix(cavity, Colour(0.97, 0.95, 0.92), 0.95 * teeth)
    canvas = mix(canvas, cavity, inside)

    shut = 1 - 0.6 * ramp(f["mouth_open"], 0.05, 0.3)
    line = band(v.y - middle, 0.007, edge) * cover(jnp.abs(s) - 1.02, 0.1) * shut
    canvas = mix(canvas, Colour(0.28, 0.10, 0.10), 0.75 * line)
    corner = MOUTH_Y - 0.040 * smile
    corners = blob(jnp.abs(v.u) - (0.142 + 0.035 * smile), v.y - corner, 0.03, 0.03)
    return tint(canvas, Colour(0.60, 0.42, 0.40), 0.5 * corners)


def beard(canvas: Colour, f: Factors, colours: Palette, v: View, head: Plane) -> Colour:
    """Stubble and full beard cover the jaw, a goatee the chin, a moustache the upper lip."""
    kind = f["beard"]
    stubble, moustache, goatee, full = [jnp.where(kind == k, 1.0, 0.0) for k in (1, 2, 3, 4)]
    chin = 0.06 * f["mouth_open"]
    cheeks = ellipse(v.u, v.y - 0.02, 0.335, 0.265)
    jaw = jnp.maximum(head - 0.035 * full, -cheeks)
    below = ramp(v.y, -0.05, 0.12)
    jaw = cover(jaw, jnp.maximum(v.edge_u, 0.03 + 0.09 * stubble)) * below * (stubble + full)
    tuft = cover(ellipse(v.u, v.y - 0.50 - chin, 0.115, 0.11), 0.05)
    ring = band(ellipse(v.u, v.y - 0.40 - chin, 0.175, 0.135), 0.030, 0.04)
    tuft = jnp.maximum(tuft, ring * ramp(v.y, 0.27, 0.33)) * goatee
    droop = 0.268 + 1.3 * v.u * v.u
    whiskers = band(v.y - droop, 0.036, 0.03) * cover(jnp.abs(v.u) - 0.165, 0.05)
    whiskers = whiskers * (moustache + goatee + full + 0.6 * stubble)

    share = jnp.clip(jnp.maximum(jnp.maximum(jaw, tuft), whiskers), 0.0, 1.0)
    light = 0.78 + 0.22 * ramp(v.u * f["light"], -0.4, 0.4)
    colour = scale(colours.hair, light * (0.88 + 0.06 * ripple(4.5 * v.u)))
    return mix(canvas, colour, share * (0.93 - 0.65 * stubble))


def age_lines(canvas: Colour, f: Factors, v: View, head: Plane) -> Colour:
    """Folds of the forehead, round the eyes and from the nose to the mouth."""
    mirrored = jnp.abs(v.u)
    sway = 0.03 * blob(v.u, 0 * v.u, 0.3, 1.0)
    across = cover(mirrored - 0.19, 0.12)
    forehead: Plane | float = 0.0
    for height in (-0.27, -0.335):
        forehead = forehead + band(v.y - height + sway, 0.009, 0.022) * across
    fold_u = 0.085 + 0.62 * (v.y - 0.18) - 0.5 * (v.y - 0.18) ** 2
    folds = band(mirrored - fold_u, 0.012, 0.04) * band(v.y - 0.275, 0.085, 0.09)
    bag_y = 0.085 - 2.2 * (mirrored - 0.18) ** 2
    bags = band(v.y - bag_y, 0.009, 0.022) * cover(jnp.abs(mirrored - 0.18) - 0.085, 0.05)
    feet: Plane | float = 0.0
    for slope in (-0.45, 0.35):
        ray = v.y - 0.005 - slope * (mirrored - 0.27)
        feet = feet + band(ray, 0.008, 0.018) * cover(jnp.abs(mirrored - 0.325) - 0.035, 0.03)
    depth = f["age_lines"] * cover(head, v.edge)
    lines = jnp.clip(forehead + folds + bags + feet, 0.0, 1.0)
    canvas = tint(canvas, Colour(0.50, 0.36, 0.34), 0.78 * depth * lines)
    hollows = blob(mirrored - 0.27, v.y - 0.29, 0.09, 0.17)
    canvas = tint(canvas, Colour(0.72, 0.60, 0.57), 0.5 * depth * hollows)
    # A fold of laughter is there without age.
    laughter = 0.25 * jnp.maximum(f["smile"], 0.0) * cover(head, v.edge)
    return tint(canvas, Colour(0.66, 0.50, 0.46), laughter * folds)


def glasses(canvas: Colour, f: Factors, v: View, head: Plane) -> Colour:
    """Round, square, or dark; they stand off the face and rest on the ears."""
    kind = f["glasses"]
    turn = f["yaw"] * (jnp.pi / 180)
    u = v.u - 0.05 * turn
    mirrored = jnp.abs(u)
    x, y = mirrored - 0.19, v.y - 0.008
    edge = v.edge_u
    rounds = ellipse(x, y, 0.135, 0.130)
    squares = box(x, y, 0.145, 0.105, 0.035)
    aviators = box(x - 0.03 * y, y - 0.01, 0.142, 0.112 - 0.10 * jnp.abs(x), 0.09)
    lens = jnp.select([kind == 1, kind == 2], [rounds, squares], aviators)
    worn = jnp.where(kind == 0, 0.0, 1.0)
    dark = jnp.where(kind == 3, 1.0, 0.0)
    glass = cover(lens, edge) * worn
    # Dark glass is deepest on top; clear glass only reflects.
    tone = mix(Colour(0.08, 0.08, 0.11), Colour(0.36, 0.30, 0.30), ramp(y, -0.08, 0.12))
    canvas = mix(canvas, tone, 0.94 * dark * glass)
    streak = band(u * 0.8 + y * 0.6 - jnp.where(u > 0, 0.12, -0.17), 0.022, 0.02)
    canvas = lighten(canvas, glass * (0.05 + 0.16 * streak))
    rim = band(lens, 0.011, edge)
    bridge = band(y + 0.03 - 1.5 * u * u, 0.011, edge) * cover(mirrored - 0.07, edge)
    temples = (
        band(y + 0.035, 0.011, edge) * ramp(mirrored, 0.315, 0.335) * cover(head + 0.005, edge)
    )
    frame = jnp.clip(rim + bridge * cover(-lens, edge) + temples * cover(-lens, edge), 0.0, 1.0)
    frame_colour = Colour(0.13, 0.11, 0.13)
    shadow = band(lens - 0.03, 0.02, 0.04) * cover(-y, 0.1)
    canvas = tint(canvas, Colour(0.80, 0.70, 0.68), 0.5 * shadow * worn * cover(head, edge))
    return mix(canvas, frame_colour, 0.95 * frame * worn)

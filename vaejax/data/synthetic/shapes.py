"""Soft-edged shapes and layers of colour, the alphabet of the procedural faces.

Lengths are in half short sides of the picture, x to the right and y down. A shape is its signed
distance, negative inside; `cover` turns that into the share of a pixel it covers.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Plane = Float[Array, "..."]
"""A number for each pixel of a picture, or one for the whole picture."""


class Colour(NamedTuple):
    """Red, green and blue from 0 to 1, as they go to the screen: of one thing, or per pixel.

    Three planes instead of a last axis: XLA then draws a picture in one pass over its pixels.
    """

    red: Plane | float
    green: Plane | float
    blue: Plane | float


def scale(colour: Colour, factor: Colour | Plane | float) -> Colour:
    """Multiplies the channels, each by its own factor if that is a colour."""
    factors = factor if isinstance(factor, Colour) else (factor,) * 3
    return Colour(*[channel * own for channel, own in zip(colour, factors)])


def mix(below: Colour, above: Colour, share: Plane | float) -> Colour:
    """`below` where share is 0, `above` where it is 1."""
    return Colour(*[low + (high - low) * share for low, high in zip(below, above)])


def tint(canvas: Colour, factors: Colour, share: Plane | float) -> Colour:
    """Multiplies by `factors` where share is 1: shadows and rouge keep what lies under them."""
    return Colour(*[c * (1 + (f - 1) * share) for c, f in zip(canvas, factors)])


def lighten(canvas: Colour, share: Plane | float) -> Colour:
    """Moves towards white."""
    return Colour(*[channel + (1 - channel) * share for channel in canvas])


def hue_colour(hue: Plane, saturation: Plane | float, value: Plane | float) -> Colour:
    """A colour from hue (0..1 round the circle), saturation and value."""
    wheel = [jnp.cos(2 * jnp.pi * (hue - shift)) for shift in (0.0, 1 / 3, 2 / 3)]
    return Colour(*[value * (1 - saturation * (0.5 - 0.5 * c)) for c in wheel])


def ramp(value: Plane, start: Plane | float, end: Plane | float) -> Plane:
    """Smoothly from 0 at `start` to 1 at `end`."""
    t = jnp.clip((value - start) / (end - start), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def cover(distance: Plane, edge: Plane | float) -> Plane:
    """How much of a pixel lies within a shape whose edge is blurred over the length `edge`."""
    return ramp(distance, 0.5 * edge, -0.5 * edge)


def band(distance: Plane, half_width: Plane | float, edge: Plane | float) -> Plane:
    """Cover of the line along distance 0; right also for lines thinner than a pixel."""
    return cover(distance - half_width, edge) - cover(distance + half_width, edge)


def ellipse(x: Plane, y: Plane, rx: Plane | float, ry: Plane | float) -> Plane:
    """Distance to an ellipse at the origin, to first order (exact for a circle)."""
    p, q = x / rx, y / ry
    k = jnp.sqrt(p * p + q * q + 1e-9)
    return k * (k - 1) / jnp.sqrt((p / rx) ** 2 + (q / ry) ** 2 + 1e-9)


def dome(p: Plane, q: Plane, square: Plane | float) -> Plane:
    """1 on the edge of a unit circle (square 0), of a squarish one (1), or in between."""
    p2, q2 = p * p, q * q
    circle = jnp.sqrt(p2 + q2 + 1e-9)
    return circle + (jnp.sqrt(jnp.sqrt(p2 * p2 + q2 * q2 + 1e-9)) - circle) * square


def box(x: Plane, y: Plane, rx: Plane | float, ry: Plane | float, corner: Plane | float) -> Plane:
    """Distance to a box at the origin with rounded corners."""
    return meet(jnp.abs(x) - rx, jnp.abs(y) - ry, corner)


def meet(first: Plane, second: Plane, corner: Plane | float) -> Plane:
    """Distance to what two shapes share, rounded by `corner` where their edges meet."""
    p, q = first + corner, second + corner
    outside = jnp.sqrt(jnp.maximum(p, 0.0) ** 2 + jnp.maximum(q, 0.0) ** 2 + 1e-9)
    return outside + jnp.minimum(jnp.maximum(p, q), 0.0) - corner


def blob(x: Plane, y: Plane, rx: Plane | float, ry: Plane | float) -> Plane:
    """A soft spot: 1 at the origin, fading to 0 at the rim of an ellipse."""
    fade = jnp.maximum(1 - (x / rx) ** 2 - (y / ry) ** 2, 0.0)
    return fade * fade


def ripple(turns: Plane) -> Plane:
    """A wave of period 1 between -1 and 1: a sine made of parabolas, far cheaper than one."""
    t = turns - jnp.round(turns)
    return 8 * t * (1 - 2 * jnp.abs(t))

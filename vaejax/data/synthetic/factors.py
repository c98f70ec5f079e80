"""What may differ between two procedural faces, and the value each face draws for it.

Every factor is drawn independently of all others, so the labels are a fair ground truth for
measures of disentanglement.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Shaped, UInt64

from vaejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Factor:
    """One source of variation.

    Attributes:
      name: its key in the labels.
      kind: "continuous" (float32) or "categorical" (int32, a place in `categories`).
      low: least value of a continuous factor.
      high: greatest value of a continuous factor.
      categories: names of the values of a categorical factor.
      power: a continuous value is low + (high - low) * uniform**power. Above 1 prefers low
        values, below 1 high ones: most people have their eyes open and their mouth shut.
      shares: how often each category is drawn; empty for equally often.
      doc: what it does to the picture.
    """

    name: str
    kind: Literal["continuous", "categorical"]
    low: float = 0.0
    high: float = 1.0
    categories: tuple[str, ...] = ()
    power: float = 1.0
    shares: tuple[float, ...] = ()
    doc: str = ""


def _amount(name: str, doc: str, low: float = 0.0, high: float = 1.0, power: float = 1.0) -> Factor:
    return Factor(name, "continuous", low, high, power=power, doc=doc)


def _choice(name: str, doc: str, **shares: int) -> Factor:
    total = sum(shares.values())
    names = tuple(key.replace("_", " ") for key in shares)
    chances = tuple(share / total for share in shares.values())
    high = float(len(names) - 1)
    return Factor(name, "categorical", 0.0, high, names, shares=chances, doc=doc)


# The place of a factor in this tuple is part of the counter its numbers are drawn from: new
# factors go to the end, so that the old ones keep their values.
FACTORS: tuple[Factor, ...] = (
    _amount("skin_tone", "0 the fairest, 1 the deepest"),
    _choice(
        "hair_colour",
        "also the colour of brows and beard",
        black=4,
        dark_brown=4,
        brown=4,
        auburn=2,
        ginger=2,
        dark_blond=2,
        blond=3,
        grey=2,
    ),
    _choice(
        "hair_style",
        "its outline and length",
        bald=3,
        buzz=4,
        short=6,
        afro=4,
        bob=4,
        long=5,
        wavy=5,
        bun=4,
    ),
    _amount("yaw", "degrees the head is turned, positive towards the picture's right", -30.0, 30.0),
    _amount("gaze", "where the eyes look beyond the yaw, 1 is far to the right", -1.0, 1.0),
    _amount("eyes_open", "0 closed, 1 wide", power=0.35),
    _amount("mouth_open", "0 closed, 1 as in singing", power=2.5),
    _amount("smile", "corners of the mouth: -1 down, 1 up", -1.0, 1.0, power=0.6),
    _amount("brows", "-1 knit and low, 1 raised and arched", -1.0, 1.0, power=0.75),
    _choice("glasses", "what sits on the nose", none=10, round=2, square=2, sunglasses=1),
    _choice(
        "beard",
        "stubble and full cover the jaw, a goatee the chin",
        none=10,
        stubble=2,
        moustache=2,
        goatee=2,
        full=2,
    ),
    _amount("face_width", "0 narrow, 1 round"),
    _amount("jaw", "0 pointed, 1 square"),
    _amount("age_lines", "forehead, eyes and cheeks: 0 smooth, 1 deeply lined", power=2.2),
    _amount("background_hue", "round the colour circle from red, 1 is red again"),
    _amount("background_shade", "0 dark, 1 light"),
    _amount("light", "where it comes from: -1 left, 1 right", -1.0, 1.0),
    _choice(
        "iris_colour",
        "of both eyes",
        dark_brown=4,
        brown=4,
        hazel=2,
        green=2,
        blue=3,
        grey=2,
    ),
    _amount("eye_size", "0 small, 1 large"),
    _amount("eye_spacing", "0 close, 1 wide apart"),
    _amount("eye_tilt", "outer corners: -1 low, 1 high", -1.0, 1.0),
    _amount("brow_thickness", "0 thin, 1 bushy"),
    _amount("nose_width", "0 narrow, 1 broad"),
    _amount("nose_length", "0 short, 1 long"),
    _amount("lip_fullness", "0 thin, 1 full"),
    _amount("lip_colour", "0 the skin's own, 1 painted red", power=1.5),
    _amount("blush", "red of the cheeks, 0 none"),
    _choice("clothes", "cut of the neck", crew=1, v_neck=1, shirt=1, turtleneck=1),
    _amount("clothes_hue", "round the colour circle from red, 1 is red again"),
    _amount("clothes_shade", "0 dark, 1 light"),
    _amount("shift_x", "of the person, in half short sides, positive to the right", -0.06, 0.06),
    _amount("shift_y", "of the person, in half short sides, positive down", -0.04, 0.04),
    _amount("scale", "size of the person", 0.92, 1.08),
    _amount("roll", "degrees the head leans, positive to the picture's right", -8.0, 8.0),
)


def draw_factors(
    indices: Int[np.ndarray, " batch"], seed: int = 0
) -> dict[str, Shaped[np.ndarray, " batch"]]:
    """The factors of the faces with these numbers.

    A face's factors are a function of the seed and its own number alone.

    Args:
      indices: numbers of faces, from 0 on.
      seed: seed of the whole population; any whole number.

    Returns:
      By the names in `FACTORS`: float32 in [low, high] for continuous factors, int32 places in
      `categories` for categorical ones.

    Raises:
      UserError: an index is negative.

    >>> draw_factors(np.arange(3))["hair_style"].dtype
    dtype('int32')
    """
    if indices.size and indices.min() < 0:
        raise UserError(f"face number {indices.min()} is negative: faces are numbered from 0 on")
    faces = _mix(_mix(np.array([seed % 2**64], np.uint64)) ^ indices.astype(np.uint64))
    return {
        factor.name: _value(factor, _uniform(_mix(faces ^ _mix(np.array([place], np.uint64)))))
        for place, factor in enumerate(FACTORS)
    }


def _mix(numbers: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijective hash of 64 bits."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _uniform(bits: UInt64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _value(factor: Factor, uniform: Float64[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    if factor.kind == "categorical":
        # The last bound is left out: rounding may have put it a little below 1.
        return np.searchsorted(np.cumsum(factor.shares[:-1]), uniform, "right").astype(np.int32)
    return (factor.low + (factor.high - factor.low) * uniform**factor.power).astype(np.float32)

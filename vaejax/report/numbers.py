"""Formats measured numbers for readers: with as many digits as their spread justifies."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

MISSING = "—"
# Of coordinates, and of what JSON holds.
Number = float | int
# Differences of these units have a meaning, and ratios have none.
_LOGARITHMIC = {"dB", "bits/dim", "bits", "nats"}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def finite(value: Any) -> float | None:
    """Returns `value` as a float; None if it is no number, or not finite.

    Numbers from 1e100 on count as infinite, and those below 1e-100 as 0: what is computed of them
    for the page neither overflows nor divides by 0.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if abs(number) < 1e-100:
        return 0.0
    return number if abs(number) < 1e100 else None


def measured(value: Any, spread: Any = None, unit: str = "") -> str:
    """Formats a value with its spread, which has two significant digits.

    Without a spread, the value has four significant digits. A value that is missing is `—`.

    >>> measured(0.51234, 0.0119), measured(1234.6, unit="nats"), measured(None)
    ('0.512 ± 0.012', '1,235 nats', '—')
    >>> measured(-3.21e-5, 4e-7)
    '(−3.210 ± 0.040) × 10⁻⁵'
    """
    number, error = finite(value), finite(spread)
    if number is None:
        return MISSING
    largest = max(abs(number), error or 0)
    exponent = 0
    if largest and not 1e-3 <= largest < 1e6:
        exponent = math.floor(math.log10(largest))
    number, error = number / 10.0**exponent, error and error / 10.0**exponent
    decimals = _decimals(error, 2) if error else _decimals(number, 4)
    if not error and number.is_integer():
        decimals = 0
    text = f"{number:z,.{decimals}f}".replace("-", "−")
    if error is not None:
        text += f" ± {error:,.{decimals}f}"
    if exponent:
        text = f"({text})" if error is not None else text
        text += f" × {power_of_ten(exponent)}"
    return f"{text} {unit}".strip()


def _decimals(number: float, digits: int) -> int:
    """Returns the decimals that show so many significant digits; at most 6."""
    if not number:
        return 0
    return min(6, max(0, digits - 1 - math.floor(math.log10(abs(number)))))


def power_of_ten(exponent: int) -> str:
    """Formats a power of ten.

    >>> power_of_ten(-2)
    '10⁻²'
    """
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


class Standing(NamedTuple):
    """Where a figure's value lies from its floor.

    Attributes:
      text: the ratio or the difference, for readers.
      verdict: `same` if the two differ by less than two standard deviations, else `worse` or
        `better`, or, if the best value is the floor's, `below` or `above`; empty if the spreads
        are missing.
      log_ratio: natural logarithm of value / floor; None where a ratio has no meaning.
      log_spread: its standard deviation, to first order; 0 if the spreads are missing.
    """

    text: str
    verdict: str = ""
    log_ratio: Number | None = None
    log_spread: Number = 0


def standing(figure: Mapping[str, Any]) -> Standing:
    """Compares a figure's value with its floor.

    The ratio is given where both are positive and the unit is not logarithmic, the difference
    elsewhere. Both spreads are standard deviations of independent errors.
    """
    value, floor = finite(figure.get("value")), finite(figure.get("floor"))
    if value is None or floor is None:
        return Standing(MISSING)
    spread, floor_spread = finite(figure.get("spread")), finite(figure.get("floor_spread"))
    verdict = ""
    if spread is not None and floor_spread is not None:
        verdict = _verdict(value - floor, math.hypot(spread, floor_spread), figure.get("better"))
    unit = figure.get("unit") or ""
    if value <= 0 or floor <= 0 or unit in _LOGARITHMIC:
        difference = measured(value - floor, unit=unit)
        return Standing(difference if difference[0] == "−" else f"+{difference}", verdict)
    ratio = value / floor
    log_spread = math.hypot((spread or 0) / value, (floor_spread or 0) / floor) if verdict else 0
    text = (
        f"{ratio:.2f}" if 0.1 < ratio < 10 else f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1g}"
    )
    return Standing(f"{text}×", verdict, math.log(ratio), log_spread)


def _verdict(difference: float, error: float, better: Any) -> str:
    if abs(difference) < 2 * error or difference == 0:
        return "same"
    if better not in ("lower", "higher"):
        return "below" if difference < 0 else "above"
    return "better" if (difference < 0) == (better == "lower") else "worse"

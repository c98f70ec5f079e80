"""Maps numbers to coordinates of a chart, and chooses the ticks of its axes."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from vaejax.report.numbers import Number, power_of_ten


class Scale(NamedTuple):
    """Maps the numbers `low`..`high` to the coordinates `start`..`end`.

    Attributes:
      low: number at `start`; positive if `log`.
      high: number at `end`, above `low`.
      start: first coordinate.
      end: last coordinate; below `start` for an axis that points up, because SVG's points down.
      log: whether equal ratios, in place of equal differences, have equal lengths.
    """

    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False

    def __call__(self, number: Number) -> float:
        """Returns the coordinate of a number."""
        low, high = self.low, self.high
        if self.log:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (number - low) / (high - low)


def extent(numbers: Iterable[Number], *, log: bool = False) -> tuple[Number, Number]:
    """Returns the least and the largest number, widened if they are equal to 9 digits."""
    numbers = list(numbers) or [1.0, 10.0] if log else list(numbers) or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    return (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def ticks(low: Number, high: Number, *, most: int = 5) -> list[float]:
    """Returns multiples of 1, 2 or 5 times a power of ten, the first two that enclose the range.

    >>> ticks(0.13, 0.87)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.12g}") for i in range(first, last + 1)]


def log_ticks(low: Number, high: Number) -> list[float]:
    """Returns the powers of two, or of ten if the range is wide, that lie in the range.

    >>> log_ticks(1, 40)
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    """
    base = 2.0 if high / low <= 2**8 else 10.0
    first = math.ceil(math.log(low) / math.log(base) - 1e-9)
    last = math.floor(math.log(high) / math.log(base) + 1e-9)
    return [base**i for i in range(first, last + 1)]


def tick_text(number: Number) -> str:
    """Formats a tick's number shortly.

    >>> [tick_text(number) for number in (0.0, -0.25, 20_000.0, 1e-5)]
    ['0', '−0.25', '20k', '10⁻⁵']
    """
    if number and abs(number) < 1e-3:
        exponent = math.floor(math.log10(abs(number)))
        factor = f"{number / 10.0**exponent:g}"
        text = power_of_ten(exponent) if factor == "1" else f"{factor}·{power_of_ten(exponent)}"
    elif abs(number) >= 1e6:
        text = f"{number / 1e6:g}M"
    elif abs(number) >= 1e4:
        text = f"{number / 1e3:g}k"
    else:
        text = f"{number:g}"
    return text.replace("-", "−")

"""JSON that every parser accepts, even if numbers are not finite."""

import json
import math
from typing import Any


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Returns `value` as JSON text, with null in place of numbers that are not finite.

    Python would write NaN and Infinity, which are not JSON (RFC 8259, section 6).

    >>> dumps({"loss": float("nan"), "kl": [1.5, float("inf")]})
    '{"loss": null, "kl": [1.5, null]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

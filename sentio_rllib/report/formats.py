"""Numbers to text: rounded, percent where percent, a dash for what does not exist."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

NONE = "\u2013"
"""What is shown for a value that does not exist: null, NaN or infinite."""

_MINUS = "\u2212"


def finite(value: object) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    number_ = float(value)
    return number_ if math.isfinite(number_) else None


def number(value: object, digits: int = 2) -> str:
    """Return a number with `digits` decimals and thousands set apart."""
    return _written(value, lambda found: f"{found:,.{digits}f}")


def count(value: object) -> str:
    """Return a whole number, thousands set apart."""
    return number(value, 0)


def percent(value: object, digits: int = 1) -> str:
    """Return a fraction as percent; 0.085 is 8.5%."""
    return _written(value, lambda found: f"{found * 100:,.{digits}f}%")


def dollars(value: object) -> str:
    """Return an amount in whole dollars."""
    return _written(value, lambda found: f"${found:,.0f}".replace("$-", "-$"))


def per_bar(value: object) -> str:
    """Return a mean return per bar, which is of the order of 1e-5, with three digits."""
    return _written(value, lambda found: f"{found:.2e}".replace("e-0", "e-").replace("e+0", "e+") if found else "0")


def p_value(value: object) -> str:
    """Return a p-value with three decimals; one below 0.001 says so."""
    found = finite(value)
    return "< 0.001" if found is not None and 0 <= found < 0.001 else number(value, 3)


def general(value: object) -> str:
    """Return a parameter: a number with three significant digits, anything else as it is written."""
    found = finite(value)
    if found is None:
        return NONE if value is None or isinstance(value, float) else str(value)
    return f"{found:,.0f}" if found.is_integer() and abs(found) < 1e15 else _written(found, lambda each: f"{each:.3g}")


def interval(held: Any, form: Callable[[object], str] = number) -> str:
    """Return an estimate with its interval, from a mapping with ``estimate``, ``low`` and ``high``."""
    if not isinstance(held, dict) or finite(held.get("estimate")) is None:
        return NONE
    low, high = finite(held.get("low")), finite(held.get("high"))
    bounds = "no interval" if low is None or high is None else f"{form(low)} to {form(high)}"
    return f"{form(held.get('estimate'))} ({bounds})"


def _written(value: object, form: Callable[[float], str]) -> str:
    found = finite(value)
    if found is None:
        return NONE
    text = form(found)
    if text.startswith("-") and not text.strip("-0.,%$"):
        text = text[1:]  # a rounded zero has no sign
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text

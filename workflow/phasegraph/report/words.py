"""Numbers and lists in plain English."""

import math
from collections.abc import Iterable

from phasegraph.phases.sentences import listed
from phasegraph.types import Kind

ENDS = {Kind.EMBED: "the embedding", Kind.LOGITS: "the logits"}
"""What the nodes are called that are no components."""
MINUS = "\u2212"
DASH = "\u2013"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` significant digits, or as many as its whole part has.

    Examples
    --------
    >>> number(1234.5), number(0.01234), number(-2), number(None)
    ('1,234', '0.0123', '−2.00', 'undefined')
    """
    if value is None or math.isnan(value):
        return "undefined"
    return _fixed(value, _decimals(value, digits))


def measured(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """Write an estimate and its interval, all with as many decimals as the largest of them needs.

    Examples
    --------
    >>> measured(0.5, 0.4512, 0.55)
    '0.500 [0.451, 0.550]'
    >>> measured(0.005, -0.0154, 0.0254)
    '0.0050 [−0.0154, 0.0254]'
    """
    if value is None or math.isnan(value):
        return "undefined"
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{number(value, digits)} [no interval]"
    decimals = _decimals(max(value, low, high, key=abs), digits)
    return f"{_fixed(value, decimals)} [{_fixed(low, decimals)}, {_fixed(high, decimals)}]"


def probability(p_value: float) -> str:
    """Write a p-value: ``p = 0.004``."""
    return f"p\u00a0=\u00a0{p_value:.2g}"


def steps_range(low: int, high: int) -> str:
    """Write a range of training steps; one step alone if it has no width."""
    return f"{low:,}{DASH}{high:,}" if low != high else f"{low:,}"


def plural(count: int, noun: str) -> str:
    """Write a count and its noun.

    Examples
    --------
    >>> plural(1, "edge"), plural(1200, "edge"), plural(0, "boundary")
    ('1 edge', '1,200 edges', 'no boundaries')
    """
    if count == 1:
        return f"1 {noun}"
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {many}" if count else f"no {many}"


def at_steps(steps: Iterable[int]) -> str:
    """Write one or several training steps: ``step 4`` or ``steps 4 and 8``."""
    written = [f"{step:,}" for step in steps]
    return f"step{'s' if len(written) > 1 else ''} {listed(written)}"


def _decimals(value: float, digits: int) -> int:
    if value == 0:
        return digits - 1
    return min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 9)


def _fixed(value: float, decimals: int) -> str:
    text = f"{abs(value):,.{decimals}f}"
    return MINUS + text if value < 0 and text.strip("0.,") else text

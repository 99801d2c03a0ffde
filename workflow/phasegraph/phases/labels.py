"""Words for the segments between boundaries: a description by rule, which proves nothing.

The rule was tuned on one simulator, where it named 93-95 % of the checkpoints rightly, and named 58-76 % on others.
So the three numbers that it looks at are published beside every label, no order and no label is ever forced, and no
conclusion may rest on a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import theilslopes

STEEP = 0.5
"""Least slope of concentration, in ranges of the whole run per length of the run, to be a trend."""

CLEAR = 3.0
"""Least change of concentration over a segment, in standard deviations of its noise, to be a trend."""

RESTLESS = 2.0
"""Excess churn, relative to the end of the run, above which a segment without a trend explores."""

TAIL = 20
"""Number of checkpoints at the end of the run that churn is compared with."""


@dataclass(frozen=True)
class Segment:
    """A stretch of checkpoints with one label."""

    start: int
    """Index of its first checkpoint."""
    end: int
    """Index of its last checkpoint."""
    label: str
    """exploration, consolidation, refinement or dissolution."""
    slope: float
    """Theil-Sen slope of concentration times length of the run, over the range of concentration."""
    change: float
    """Change of concentration over the segment (by that slope) over the noise's standard deviation; >= 0."""
    churn: float
    """Median excess churn over that of the last `TAIL` checkpoints."""


def label_segments(
    concentration: np.ndarray, excess_churn: np.ndarray, noise_floor: np.ndarray, boundaries: Sequence[int]
) -> list[Segment]:
    """Name the segments between boundaries; neighbours with the same name become one.

    Parameters
    ----------
    concentration
        [N], the Gini coefficient of the weights over the mask.
    excess_churn
        [N], churn above its noise, per unit of weight displacement; NaN where unknown (the first).
    noise_floor
        [N], that noise, in the same unit.
    boundaries
        Index of the first checkpoint of every new regime, ascending, within 1..N-1.

    Returns
    -------
    list of Segment
        Consolidation or dissolution if concentration rises or falls steeply (`STEEP`) and clearly (`CLEAR`); else
        exploration if churn is above `RESTLESS` times that of the end of the run; else refinement. The numbers of
        merged neighbours are those of the whole segment.

    Notes
    -----
    Noise is the standard deviation of the differences of concentration divided by sqrt 2. Range is the distance of its
    2 % and 98 % quantiles. Churn at the end of the run is taken to be at least a quarter of the noise floor there.
    """
    edges = [0, *boundaries, len(concentration)]
    parts = [_describe(concentration, excess_churn, noise_floor, a, b) for a, b in pairwise(edges)]
    merged: list[Segment] = []
    for part in parts:
        if merged and merged[-1].label == part.label:
            whole = _describe(concentration, excess_churn, noise_floor, merged[-1].start, part.end + 1)
            merged[-1] = Segment(whole.start, whole.end, part.label, whole.slope, whole.change, whole.churn)
        else:
            merged.append(part)
    return merged


def _describe(c: np.ndarray, excess: np.ndarray, floor: np.ndarray, start: int, stop: int) -> Segment:
    spread = np.quantile(c, 0.98) - np.quantile(c, 0.02)
    noise = np.diff(c).std() / np.sqrt(2)
    raw = float(theilslopes(c[start:stop]).slope) if stop - start > 1 else 0.0
    slope = raw * len(c) / spread if spread > 0 else 0.0
    change = _over(abs(raw) * (stop - start), noise)
    churn = _over(_median(excess[start:stop]), max(_median(excess[-TAIL:]), _median(floor[-TAIL:]) / 4))
    if abs(slope) > STEEP and change > CLEAR:
        label = "consolidation" if slope > 0 else "dissolution"
    else:
        label = "exploration" if churn > RESTLESS else "refinement"
    return Segment(start, stop - 1, label, slope, change, churn)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def _over(value: float, unit: float) -> float:
    if value == 0:
        return 0.0
    return value / unit if unit > 0 else np.copysign(np.inf, value)

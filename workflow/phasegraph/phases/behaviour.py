"""When behaviour changes, by the loss alone, and whether the structure's boundaries agree with it.

Nothing of this enters the structural test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FRACTIONS = (0.1, 0.5, 0.9)
"""Parts of the fall from plateau to end level that date the start, the half and the end of the transition."""

FLAT = 0.1
"""A stretch is flat if its losses lie within this share of the run's range (2-98 % quantiles)."""

PLATEAU = 5
"""Least number of checkpoints on a plateau."""

STEEPER = 3.0
"""Least ratio of the fall's speed (10-90 %) to the plateau's own, which is a flat stretch's band over its length."""

FINAL = 10
"""Number of checkpoints at the end of the run whose median is the end level (a quarter of the run if that is less)."""

NOISE = 5.0
"""Least fall, in standard deviations of the noise, to be a transition."""

NEAR = 5
"""Two boundaries match if they are at most this many checkpoints apart."""


@dataclass(frozen=True)
class Transition:
    """A fall of the loss from a plateau to its end level; indices of checkpoints."""

    start: int
    """First checkpoint with 10 % of the fall behind it."""
    half: int
    """The same for 50 %."""
    end: int
    """The same for 90 %."""
    plateau: float
    """Loss before."""
    final: float
    """Loss at the end of the run."""


def transition(loss: np.ndarray) -> Transition | None:
    """Date the fall of the loss.

    Parameters
    ----------
    loss
        [N], in nats, of the repeated half.

    Returns
    -------
    Transition or None
        None if there is no plateau that the loss leaves for good: no stretch of `PLATEAU` flat checkpoints that lies
        more than two flat bands, and more than `NOISE` standard deviations, above the end level, or the loss hardly
        falls faster (`STEEPER`) than it did there.

    Notes
    -----
    The plateau is the median loss of the longest flat stretch (`FLAT`) that lies that far above the end level; the
    first one if several are as long. This leaves aside a steep descent before it (the first steps of training) as well
    as the final plateau. The end level is the median of the last
    `FINAL` checkpoints. A level is reached at the first checkpoint, from the middle of the plateau on, at which the
    running median of three losses is at or below it. The noise is estimated from the median absolute second difference.
    """
    loss = np.asarray(loss, dtype=float)
    final = float(np.median(loss[-min(FINAL, max(len(loss) // 4, 1)) :]))
    band = FLAT * (np.quantile(loss, 0.98) - np.quantile(loss, 0.02))
    noise = 1.4826 * np.median(np.abs(np.diff(loss, 2))) / np.sqrt(6) if len(loss) > 2 else 0.0
    longest = None
    for a, b in _flat_stretches(loss, band):
        height = np.median(loss[a:b]) - final
        enough = b - a >= PLATEAU and height > 2 * band and height > NOISE * noise
        if enough and (longest is None or b - a > longest[1] - longest[0]):
            longest = a, b
    if longest is None:
        return None
    plateau = float(np.median(loss[slice(*longest)]))
    smooth = np.median(np.stack([np.r_[loss[0], loss[:-1]], loss, np.r_[loss[1:], loss[-1]]]), axis=0)  # [N]
    middle = sum(longest) // 2
    start, half, end = (middle + int(np.argmax(smooth[middle:] <= plateau - f * (plateau - final))) for f in FRACTIONS)
    speed = (FRACTIONS[2] - FRACTIONS[0]) * (plateau - final) / (end - start + 1)
    own_speed = band / (longest[1] - longest[0])
    return Transition(start, half, end, plateau, final) if speed > STEEPER * own_speed else None


def _flat_stretches(loss: np.ndarray, band: float) -> list[tuple[int, int]]:
    """Every longest stretch [a, b) whose values differ by at most `band`, one per starting point."""
    stretches, b = [], 0
    for a in range(len(loss)):
        b = max(b, a + 1)
        while b < len(loss) and np.ptp(loss[a : b + 1]) <= band:
            b += 1
        stretches.append((a, b))
    return stretches


def near_transition(boundaries: Sequence[int], change: Transition) -> list[bool]:
    """Say of each boundary whether it lies inside the transition or within `NEAR` checkpoints of it."""
    return [change.start - NEAR <= boundary <= change.end + NEAR for boundary in boundaries]


def circular_shift_p(structural: Sequence[int], behavioural: Sequence[int], n: int) -> tuple[int, float] | None:
    """Compare two sets of boundaries with chance.

    Parameters
    ----------
    structural, behavioural
        Boundaries among the same n points.
    n
        Number of points.

    Returns
    -------
    matches : int
        How many structural boundaries have a behavioural one within `NEAR`.
    p_value : float
        Share of all n circular shifts of the structural boundaries, the one by 0 included, with as many matches: what
        random shifts would estimate, without the randomness. Distances between the boundaries are kept; distances
        are not counted across the ends. None instead of both if a set is empty.
    """
    if not len(structural) or not len(behavioural):
        return None
    shifted = (np.asarray(structural) + np.arange(n)[:, None]) % n  # [n, K]
    apart = np.abs(shifted[:, :, None] - np.asarray(behavioural)).min(-1)  # [n, K]
    matches = (apart <= NEAR).sum(1)  # [n]
    return int(matches[0]), float((matches >= matches[0]).mean())

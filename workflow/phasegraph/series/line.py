"""Which points of a trajectory stand where they do not belong, told from their distances alone.

The rule. Take point x out of the line. For a pair (p, q) of points that then are neighbours, the detour over x is
d(p, x) + d(x, q) - d(p, q), and the reach is the larger of d(p, x) and d(x, q). x is *out of line* if another pair has
both a detour less than 1 / `DETOUR` and a reach less than 1 / `REACH` of those where x stands. (At an end of the line
both are the distance from the only neighbour.) It is so too if it nearly coincides with an end of the line: nearer to
it by a factor of `NEAR` than to its own neighbours, and than that end is to its neighbour. This finds copies of the
final weights where the last gap of the schedule is so long that every pair has a long reach.

Why two: on a straight path the detour is 0 at home and twice the offset elsewhere, on a random walk it is 0.59 steps
at home and 1.41 one place off, so it tells the place whatever the spacing of the schedule. But where points alternate
between two states (cyclic learning rates) detours favour the other state, and there the reach stays smallest at home;
the reach alone would fail beside a gap in the schedule. Neither uses a scale, so it does not matter that the first
steps of a warm-up move ten thousand times less than the later ones.
"""

from typing import NamedTuple

import numpy as np

DETOUR = 2.0
"""Two neighbours that are interchanged reach 2.4 on a random walk, more on a straighter path; right places below 1."""

REACH = 1.3
"""Two neighbours that are interchanged reach 1.41 on a random walk, 2 on a straight path; right places below 1."""

NEAR = 10.0
"""How much nearer a point must be to an end of the line than to its neighbours to belong there."""

LEAST = 4
"""Fewer points have no other pair to compare with."""


class Place(NamedTuple):
    """Why a point is out of line."""

    here: tuple[int, ...]
    """Its neighbours where it stands: two, or one at an end."""
    better: tuple[int, int]
    """The neighbours between which it fits better; at an end, the last two or first two."""


def is_better(here: tuple[float, ...], there: tuple[float, float], between: tuple[float, float]) -> bool:
    """Apply the rule to given distances.

    Parameters
    ----------
    here, there
        Distances of a point from its neighbours where it stands (one or two), and from those of another pair.
    between
        Distance of the former neighbours from each other (ignored at an end), and that of the latter.
    """
    detour_here = sum(here) - (between[0] if len(here) == 2 else 0.0)
    fits = (sum(there) - between[1]) * DETOUR < detour_here and max(there) * REACH < max(here)
    return fits or min(there) * NEAR < min(*here, detour_here, between[1])


def out_of_line(distances: np.ndarray) -> dict[int, Place]:
    """Find the points that stand in the wrong place.

    A wrong point spoils the neighbourhood of right ones, so the worst are taken out first (all that shorten the path
    at least half as much as the very worst one, which takes two interchanged points together), and the rest is judged
    again until nothing is found. Last, points that fit into what is left return. Of a block of wrong points each
    round takes the outer ones.

    Parameters
    ----------
    distances
        [points, points], symmetric, in the order of the line.

    Returns
    -------
    dict of int to Place
        The points out of line, in order.
    """
    kept = list(range(len(distances)))
    found: dict[int, Place] = {}
    while judged := {point: better for point in kept if (better := _judge(distances, kept, point)) is not None}:
        worst = max(gain for gain, _ in judged.values())
        found |= {point: place for point, (gain, place) in judged.items() if gain >= worst / 2}
        kept = [point for point in kept if point not in found]
    return _without_innocent(distances, kept, found)


def detour(distances: np.ndarray, line: list[int], point: int) -> float:
    """How much longer the line gets by a point in its own place (at an end, by the distance from its neighbour)."""
    here = _neighbours(line, point)
    return float(sum(distances[point, other] for other in here) - (distances[here] if len(here) == 2 else 0.0))


def _without_innocent(distances: np.ndarray, kept: list[int], found: dict[int, Place]) -> dict[int, Place]:
    """Return points that fit, alone and together: of two interchanged points each fits only without the other."""
    alone = [point for point in found if _judge(distances, kept, point) is None]
    together = sorted([*kept, *alone])
    home = {point for point in alone if _judge(distances, together, point) is None}
    line = sorted([*kept, *home])
    return {
        point: (_judge(distances, line, point) or (0.0, place))[1]
        for point, place in sorted(found.items())
        if point not in home
    }


def _judge(distances: np.ndarray, line: list[int], point: int) -> tuple[float, Place] | None:
    """Say what the best other place among the points of a line saves, and that place; None if it stands well."""
    rest = np.array([other for other in line if other != point])  # [rest]
    if len(rest) < LEAST - 1:
        return None
    here = _neighbours(line, point)
    left, right = distances[rest[:-1], point], distances[point, rest[1:]]  # [pairs]
    detours = np.maximum(left + right - distances[rest[:-1], rest[1:]], 0.0)  # [pairs]; below 0 by rounding only
    detour_here = max(detour(distances, line, point), 0.0)
    reach_here = max(distances[point, other] for other in here)
    better = (detours * DETOUR < detour_here) & (np.maximum(left, right) * REACH < reach_here)  # [pairs]
    nearest_here = min(detour_here, *(distances[point, other] for other in here))
    for pair, end, next_to_it in ((0, rest[0], rest[1]), (-1, rest[-1], rest[-2])):
        coincides = distances[point, end] * NEAR < min(nearest_here, distances[end, next_to_it])
        better[pair] |= coincides and end not in here
    if not better.any():
        return None
    best = int(np.where(better, detours, np.inf).argmin())
    return float(detour_here - detours[best]), Place(here, (int(rest[best]), int(rest[best + 1])))


def _neighbours(line: list[int], point: int) -> tuple[int, ...]:
    """Give the points of a sorted line on both sides of a point, which may be one of them."""
    before = max((other for other in line if other < point), default=None)
    after = min((other for other in line if other > point), default=None)
    return tuple(other for other in (before, after) if other is not None)

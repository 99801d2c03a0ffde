"""What the samples of a series' weights raise suspicion of: equal checkpoints, and such as stand out of line.

Nothing is read from disk here; `audit` verifies.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from phasegraph.series.line import Place, detour, out_of_line
from phasegraph.series.weights import Description

PART = 0.05
"""Share of the weights that must be out of line together to make a checkpoint suspect of foreign tensors."""

SMALL = 0.001
"""Tensors with a smaller share of the weights are not tested by themselves: layer norms and biases in half precision
move in few and coarse steps."""


@dataclass(frozen=True)
class Duplicate:
    """A checkpoint that repeats another."""

    of: int
    """Index of the one that is kept."""
    beside: bool
    """Whether only equal ones lie between the two."""


def sample_distances(found: Sequence[Description], names: Iterable[str] | None = None) -> np.ndarray:
    """Distances of all pairs [checkpoints, checkpoints] in some tensors or all, estimated from the samples."""
    total = np.zeros((len(found), len(found)))
    for name in (found[0].shapes if names is None else names) if found else ():
        sample = np.stack([one.sample[name] for one in found]).astype(np.float64)  # [checkpoints, SAMPLE]
        squares = np.stack([np.square(sample - row).sum(1) for row in sample])  # [checkpoints, checkpoints]
        total += squares * math.prod(found[0].shapes[name]) / max(1, sample.shape[1])
    return np.sqrt(total)


def duplicates(
    found: Sequence[Description], distances: np.ndarray, rounded: Callable[[int, int], bool]
) -> dict[int, Duplicate]:
    """Tell which of equal checkpoints count and which repeat them.

    Of equal ones in a row the first counts, since the first steps of a warm-up move nothing; but where the row ends
    with the last checkpoint the last does, since a missing revision is often served as the final one. Of equal ones
    that stand apart, the row counts whose weights make the least detour between its neighbours.

    Parameters
    ----------
    found
        The checkpoints, in order.
    distances
        [checkpoints, checkpoints]
    rounded
        Whether two checkpoints of different number formats are the same but for rounding.

    Returns
    -------
    dict of int to Duplicate
        All but one of each group.
    """
    groups = [_runs(members) for members in _equal(found, rounded)]
    base = sorted(_first(runs[0], len(found)) for runs in groups if len(runs) == 1)
    wrong = out_of_line(distances[np.ix_(base, base)])
    base = [place for at, place in enumerate(base) if at not in wrong]
    repeats = {}
    for runs in groups:
        candidates = [_first(run, len(found)) for run in runs]
        kept = candidates[-1]
        if len(runs) > 1 and len(base) > 1:
            kept = min(candidates, key=lambda at: detour(distances, base, at))
        repeats |= {at: Duplicate(kept, kept in run) for run in runs for at in run if at != kept}
    return repeats


def foreign_tensors(found: Sequence[Description]) -> dict[int, dict[str, Place]]:
    """Find checkpoints a part of whose tensors stands out of line, and those tensors."""
    sizes = {name: math.prod(shape) for name, shape in found[0].shapes.items()} if found else {}
    suspects: dict[int, dict[str, Place]] = {}
    for name, size in sizes.items():
        if size >= SMALL * sum(sizes.values()):
            for at, place in out_of_line(sample_distances(found, [name])).items():
                suspects.setdefault(at, {})[name] = place
    least = PART * sum(sizes.values())
    return {at: places for at, places in sorted(suspects.items()) if sum(sizes[name] for name in places) >= least}


def _equal(found: Sequence[Description], rounded: Callable[[int, int], bool]) -> list[list[int]]:
    """Group equal checkpoints, each compared with the first of a group."""
    groups: dict[str, list[int]] = {}
    for at, one in enumerate(found):
        key = one.digest
        if key not in groups:
            key = next((key for key, members in groups.items() if rounded(members[0], at)), key)
        groups.setdefault(key, []).append(at)
    return list(groups.values())


def _runs(members: list[int]) -> list[list[int]]:
    """Split a group into stretches of neighbours."""
    runs = [[members[0]]]
    for before, after in pairwise(members):
        if after == before + 1:
            runs[-1].append(after)
        else:
            runs.append([after])
    return runs


def _first(run: list[int], count: int) -> int:
    """Give the one of a row that counts."""
    return run[-1] if run[-1] == count - 1 else run[0]

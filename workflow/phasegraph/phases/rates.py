"""How fast the wiring changes, per unit of weight displacement: the series on which change is tested.

Phases are changes of dynamics, not of levels: a ramp between two plateaus is one regime. So the test sees the logarithm
of each metric's speed. Speeds are taken per unit of distance travelled in weight space, because speed per training step
follows the learning rate's schedule.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phasegraph.errors import PhasegraphError

FLOOR = 0.01
"""Changes smaller than this share of their column's median non-zero change are raised to it.

Exact ties have no logarithm, and a difference that is 0 by chance would be an outlier among the logarithms. Of normal
differences about 0.5 % are that small.
"""

REDUNDANT = 0.95
"""A column whose correlation with an earlier one is above this is dropped.

The correlation is that of the rates. Levels of any two trending metrics correlate, which says nothing of redundancy.
"""


@dataclass(frozen=True)
class Rates:
    """Logarithmic speeds of a series of checkpoints."""

    steps: np.ndarray
    """[n], the training step that ends each stretch between two checkpoints."""
    values: np.ndarray
    """[n, d], natural logarithm of change per unit of weight displacement."""
    columns: tuple[str, ...]
    """[d], what changes."""
    dropped: dict[str, str]
    """Column -> why it is not there."""


def moved(arc_length: np.ndarray) -> np.ndarray:
    """Mark the checkpoints that are worth keeping.

    Parameters
    ----------
    arc_length
        [N], distance travelled in weight space.

    Returns
    -------
    ndarray
        bool [N], False where the weights are the same as in the checkpoint before: a change per displacement has no
        meaning there.
    """
    return np.concatenate([[True], np.diff(arc_length) > 0])


def rates(
    steps: np.ndarray,
    arc_length: np.ndarray,
    levels: Mapping[str, np.ndarray],
    speeds: Mapping[str, np.ndarray] | None = None,
    min_size: int = 5,
) -> Rates:
    """Logarithms of change per unit of weight displacement.

    Parameters
    ----------
    steps
        [N], training steps, ascending.
    arc_length
        [N], distance travelled in weight space (sum of displacements), ascending. Across a checkpoint that is left out
        it is the length of the way and not of the short cut.
    levels
        Name -> [N], quantities whose absolute differences are taken.
    speeds
        Name -> [N], quantities that already are a distance to the checkpoint before (churn); the first value is
        ignored. They come first, and so win against a level that they are redundant with.
    min_size
        Least number of points in a regime; two regimes must fit in.

    Returns
    -------
    Rates
        ``log(|X_i - X_(i-1)| / |theta_i - theta_(i-1)|)`` and ``log(churn_i / |theta_i - theta_(i-1)|)``, i = 1..N-1,
        floored (`FLOOR`), without columns that are constant or redundant (`REDUNDANT`).

    Raises
    ------
    PhasegraphError
        If steps are not ascending, two checkpoints have the same weights, a value is missing, there are too few
        checkpoints, or no column is left. The message says which.
    """
    displacement = _displacement(steps, arc_length, min_size)
    changes = {name: _complete(name, steps[1:], values[1:]) for name, values in (speeds or {}).items()}
    if negative := [name for name, change in changes.items() if (change < 0).any()]:
        raise PhasegraphError(
            f"{negative[0]} is negative at step {steps[1:][changes[negative[0]] < 0][0]}; give distances"
        )
    changes |= {name: np.abs(np.diff(_complete(name, steps, values))) for name, values in levels.items()}
    kept: dict[str, np.ndarray] = {}
    dropped: dict[str, str] = {}
    for name, change in changes.items():
        if not (change > 0).any():
            dropped[name] = "constant: it never changes"
            continue
        floor = FLOOR * np.median(change[change > 0])
        rate = np.log(np.maximum(change, floor) / displacement)  # [n]
        if np.ptp(rate) <= 1e-9:
            dropped[name] = "constant: its rate never changes"
            continue
        twin = next((other for other in kept if np.corrcoef(kept[other], rate)[0, 1] > REDUNDANT), None)
        if twin:
            dropped[name] = f"redundant: its rate correlates with that of {twin} above {REDUNDANT}"
        else:
            kept[name] = rate
    if not changes:
        raise PhasegraphError("no edge between components is possible; there is nothing to test")
    if not kept:
        raise PhasegraphError(
            f"all of {', '.join(changes)} are constant over the checkpoints; there is nothing to test"
        )
    return Rates(np.asarray(steps)[1:], np.column_stack(list(kept.values())), tuple(kept), dropped)


def block_rates(
    steps: np.ndarray, arc_length: np.ndarray, blocks: Mapping[str, np.ndarray], replicate: int = 0, min_size: int = 5
) -> Rates:
    """Speeds of the blocks: the series on which a study is tested.

    Parameters
    ----------
    steps, arc_length, min_size
        As for `rates`.
    blocks
        Block -> change from the checkpoint before, [r, N]; the first checkpoint's is ignored.
    replicate
        Which of the r series is taken.

    Notes
    -----
    Chosen on the first five of ten trainings, among these, rates of metrics, principal components of the blocks' rates,
    and the signed velocities of the edges' own components (docs/phases.md).
    """
    return rates(steps, arc_length, {}, {name: changes[replicate] for name, changes in blocks.items()}, min_size)


def _displacement(steps: np.ndarray, arc_length: np.ndarray, min_size: int) -> np.ndarray:
    if len(steps) < 2 * min_size + 1:
        raise PhasegraphError(
            f"{len(steps)} checkpoints are too few: two regimes of min_size {min_size} need {2 * min_size + 1}; "
            "add checkpoints or lower min_size"
        )
    if (np.diff(steps) <= 0).any():
        where = int(np.argmax(np.diff(steps) <= 0))
        raise PhasegraphError(f"step {steps[where + 1]} follows step {steps[where]}; sort the steps, each once")
    displacement = np.diff(_complete("arc_length", steps, arc_length))
    if (displacement <= 0).any():
        where = int(np.argmax(displacement <= 0))
        raise PhasegraphError(
            f"arc_length does not grow from step {steps[where]} to step {steps[where + 1]}; leave one of the two out"
        )
    return displacement


def _complete(name: str, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(values) != len(steps):
        raise PhasegraphError(f"{name} has {len(values)} values for {len(steps)} checkpoints; give one per checkpoint")
    if not np.isfinite(values).all():
        raise PhasegraphError(
            f"{name} is missing or infinite at step {steps[np.isfinite(values).argmin()]}; compute it"
        )
    return values

"""Which moves first, the structure or a behaviour: the lag at which their speeds correlate most.

Levels of two quantities that both trend always correlate. So speeds are compared, per unit of weight displacement, and
only what is left of them beside everything that two unrelated quantities of one training run have in common: smooth
trends, a transient at the start, and the displacements by which both were divided.

Of the structure the logarithm of the speed is taken and of a behaviour its square root. A difference of two noisy
losses is often almost 0, and its logarithm is then an outlier that hides a burst; the speed itself has outliers at the
start of training that pass for one. benchmarks/leads.py measures all of these, and signed speeds.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.phases.lags import (
    EXHAUSTED,
    cross_correlations,
    peak,
    phase_randomised,
    remainder,
    resampled_lags,
    timing_p,
)
from phasegraph.phases.rates import FLOOR
from phasegraph.phases.steps import trend_basis
from phasegraph.types import GROUPS

MAX_LAG = 15
"""Largest lag that is looked at, in checkpoints."""

SPAN = 3
"""A run must have this many times as many checkpoints as the largest lag, so that most of it overlaps at every lag."""

LEVEL = 0.9
"""Nominal coverage of the interval."""


@dataclass(frozen=True)
class LeadLag:
    """Outcome of `lead_lag`; lags are in checkpoints."""

    lag: float
    """By how much the structure moves first; negative if the behaviour does."""
    low: float | None
    """Lower end of the lag's 90 % interval, over checkpoints and, with replicates, prompts; None if a replicate is
    constant or smooth."""
    high: float | None
    """Upper end."""
    correlation: float
    """Of the two speeds at the whole number nearest to `lag`; the largest at any lag."""
    p_value: float
    """Against speeds that are autocorrelated noise around smooth trends; the search over lags is paid for."""
    p_timing: float
    """Against events at unrelated times: share of circular shifts with as large a correlation at as small a lag."""
    prompt_error: float | None
    """Standard error of the lag over prompts alone, of the delete-group jackknife; None without replicates."""


def least_checkpoints(max_lag: int = MAX_LAG) -> int:
    """Fewest checkpoints with which `lead_lag` looks at lags up to `max_lag`."""
    return SPAN * max_lag + 1


def lead_lag(
    structure: np.ndarray,
    behaviour: np.ndarray,
    axis: np.ndarray,
    *,
    structure_replicates: np.ndarray | None = None,
    behaviour_replicates: np.ndarray | None = None,
    max_lag: int = MAX_LAG,
    surrogates: int = 999,
    seed: int = 0,
) -> LeadLag:
    """Find the lag at which a behaviour's speed follows the structure's most closely, and test it.

    Parameters
    ----------
    structure
        [n], distance of each checkpoint's graph to the one before (churn, or its excess over noise); the first value is
        ignored. Values below `phasegraph.phases.rates.FLOOR` times the median positive one are raised to that.
    behaviour
        [n], the level of a behaviour, such as a loss.
    axis
        [n], distance travelled in weight space (arc length), strictly increasing.
    structure_replicates, behaviour_replicates
        [GROUPS, n], the same without each group of prompts; where one of the two is missing, the estimate stands in.
    max_lag
        Largest lag either way.
    surrogates
        Number of series that `p_value` is made from, and of bootstrap draws of the interval.
    seed
        Of both.

    Raises
    ------
    PhasegraphError
        If the series are too short, of unequal length, constant or smooth, a value is missing, `axis` does not grow, or
        an option is out of range.

    Notes
    -----
    The speeds ``log(structure_i / d_i)`` and ``sqrt(|behaviour_i - behaviour_(i-1)| / d_i)``, with d the growth of
    `axis`, lose what `trends` explains. The statistic is the largest correlation at any lag (`cross_correlations`).
    It is one-sided: the question is whether both are fast together. A parabola refines the lag (`peak`).

    `p_value`: ``(1 + k) / (1 + surrogates)``, with k surrogates of the structure's speed that reach the statistic. They
    have its power spectrum and random phases (Theiler et al., Physica D 58, 1992), and lose the trends as the data do.
    They know noise and no events: two unrelated sharp bursts, wherever they are, fall within the largest lag in about
    ``(2 max_lag + 1) / n`` of runs, and `p_value` is small then (17 % of runs at a level of 5 %). For that there is
    `p_timing`, which cannot fall below ``(2 |lag| + 1) / n``, since so many shifts bring two single events as near: a
    lag of 4 in 150 checkpoints has a chance of 6 % whatever the correlation. The larger of both p held its level in
    every scene simulated, at the cost of nearly all power beyond lags of 3: longer leads take more runs than one.

    The interval reaches from the lag as far as its 5 and 95 % quantiles in a bootstrap over blocks of neighbouring
    checkpoints (`resampled_lags`) and, added in squares, t standard errors of the jackknife over prompts; it is cut off
    at the largest lag. Prompts alone say nothing of the noise of training, which they share: the jackknife's own 90 %
    interval covered 24-35 % of planted lags where there was such noise, this one 92-100 %, and without it 87-100 %.
    Where two lags compete the interval is wide, often all lags: the data do not say then.
    """
    _check_options(max_lag, surrogates)
    structure, behaviour, axis = _checked(structure, behaviour, axis, max_lag)
    displacement, trend = np.diff(axis), trends(axis)
    x = remainder(structure_speed(structure, displacement), trend)  # [n - 1]
    y = remainder(behaviour_speed(behaviour, displacement), trend)
    for name, left in (("structure", x), ("behaviour", y)):
        if np.isnan(left).any():
            raise PhasegraphError(f"{name} never changes, or only as smoothly as its trend; leave it out")
    rng = np.random.default_rng(seed)
    correlations = cross_correlations(x, y, max_lag)
    fakes = remainder(phase_randomised(x, surrogates, rng), trend)
    exceeding = (cross_correlations(fakes, y, max_lag).max(-1) >= correlations.max()).sum()
    lag = float(peak(correlations))
    prompt_error = None
    tail = (1 - LEVEL) / 2
    ends = np.quantile(resampled_lags(x, y, max_lag, surrogates, rng), [tail, 1 - tail])
    reach = np.maximum([lag - ends[0], ends[1] - lag], 0)
    if structure_replicates is not None or behaviour_replicates is not None:
        distances = _replicates("structure", structure_replicates, structure)
        levels = _replicates("behaviour", behaviour_replicates, behaviour)
        xs = remainder(structure_speed(distances, displacement), trend)  # [GROUPS, n - 1]
        ys = remainder(behaviour_speed(levels, displacement), trend)
        left_out = peak(cross_correlations(xs, ys, max_lag))  # [GROUPS]
        prompt_error = float(delete_group(np.append(lag, left_out)).standard_error)
        reach = np.hypot(reach, stdtrit(GROUPS - 1, 1 - tail) * prompt_error)
    low, high = (float(end) for end in np.clip(lag + [-1, 1] * reach, -max_lag, max_lag))
    if np.isnan(reach).any():
        low = high = prompt_error = None
    return LeadLag(
        lag=lag,
        low=low,
        high=high,
        correlation=float(correlations.max()),
        p_value=float((1 + exceeding) / (1 + surrogates)),
        p_timing=timing_p(x, y, abs(int(correlations.argmax()) - max_lag)),
        prompt_error=prompt_error,
    )


def structure_speed(distances: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Logarithm of distance to the checkpoint before per displacement, [..., n] and [n - 1] -> [..., n - 1]."""
    distances = distances[..., 1:]
    typical = np.nanmedian(np.where(distances > 0, distances, np.nan), axis=-1, keepdims=True)
    return np.log(np.maximum(distances, FLOOR * typical) / displacement)


def behaviour_speed(levels: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Square root of change per displacement, [..., n] and [n - 1] -> [..., n - 1]."""
    return np.sqrt(np.abs(np.diff(levels)) / displacement)


def trends(axis: np.ndarray) -> np.ndarray:
    """List what the speeds of two unrelated quantities of one run may have in common.

    Parameters
    ----------
    axis
        [n], arc length.

    Returns
    -------
    ndarray
        [n - 1, 6], orthonormal: a natural cubic spline with two interior knots along the arc length; the logarithm of
        the distance from the start, since all quantities are fast at first; the logarithm of the displacement, by
        which both were divided (what does not grow with the displacement would correlate through it alone). Two
        columns are one where all displacements are equal.
    """
    displacement = np.diff(axis)
    along = axis[1:] - axis[1]
    columns = [trend_basis("spline", axis[1:], knots=2), np.log(along + np.median(displacement)), np.log(displacement)]
    basis, size, _ = np.linalg.svd(_unit(np.column_stack(columns)), full_matrices=False)
    return basis[:, size > EXHAUSTED * size[0]]


def _unit(columns: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(columns, axis=0)
    return columns / np.where(length > 0, length, 1)


def _replicates(name: str, values: np.ndarray | None, estimate: np.ndarray) -> np.ndarray:
    """Replicates [GROUPS, n] or, without any, the estimate instead."""
    if values is None:
        return np.tile(estimate, (GROUPS, 1))
    values = np.asarray(values, dtype=float)
    if values.shape != (GROUPS, len(estimate)):
        raise PhasegraphError(
            f"{name}_replicates has shape {values.shape}; give {GROUPS} series of {len(estimate)} checkpoints"
        )
    return _finite(f"{name}_replicates", values, skip=name == "structure")


def _finite(name: str, values: np.ndarray, skip: bool) -> np.ndarray:
    """Refuse missing values, but in the first place where it is ignored."""
    if (bad := ~np.isfinite(values[..., int(skip) :])).any():
        raise PhasegraphError(f"{name} is missing at checkpoint {int(np.nonzero(bad)[-1][0]) + skip}; compute it")
    return values


def _checked(
    structure: np.ndarray, behaviour: np.ndarray, axis: np.ndarray, max_lag: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    structure, behaviour, axis = (np.asarray(values, dtype=float) for values in (structure, behaviour, axis))
    for name, values in (("structure", structure), ("behaviour", behaviour)):
        if values.shape != axis.shape or values.ndim != 1:
            raise PhasegraphError(f"{name} has shape {values.shape} and axis {axis.shape}; give one value a checkpoint")
    if len(axis) < least_checkpoints(max_lag):
        raise PhasegraphError(
            f"{len(axis)} checkpoints are too few for lags up to {max_lag}, which need {least_checkpoints(max_lag)}; "
            "add checkpoints or lower max_lag"
        )
    _finite("structure", structure, skip=True)
    _finite("behaviour", behaviour, skip=False)
    _finite("axis", axis, skip=False)
    if (np.diff(axis) <= 0).any():
        where = int(np.argmax(np.diff(axis) <= 0)) + 1
        raise PhasegraphError(
            f"axis does not grow at checkpoint {where}; leave out checkpoints whose weights are the same"
        )
    if not (structure[1:] > 0).any():
        raise PhasegraphError("structure never changes; leave it out")
    return structure, behaviour, axis


def _check_options(max_lag: int, surrogates: int) -> None:
    if max_lag < 1:
        raise PhasegraphError(f"max_lag is {max_lag}; give 1 or more")
    if surrogates < 1:
        raise PhasegraphError(f"surrogates is {surrogates}; give 1 or more")

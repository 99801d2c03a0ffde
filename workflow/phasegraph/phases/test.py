"""The change test: level changes of a multivariate series that autocorrelation and a smooth trend do not explain.

Boundaries are added one at a time, each where it gains most, and each must gain more than the best of all candidate
splits gains in series without it: wild bootstrap series of the current model with the data's own autocorrelation.
The search stops at the first step that does not.

Known limits: noise is first-order autoregressive, so longer memory passes for change under the
constant null; two opposing changes close together gain little one by one and may be missed; ramps are cut into steps,
so the number of boundaries is a description and not an estimate.
"""

from dataclasses import dataclass

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.phases.sieve import EXHAUSTED, ar_coefficient, wild_replicates
from phasegraph.phases.steps import best_step, candidates, design, projector, relocate, trend_basis

NULLS = ("constant", "spline2")
"""What a series without a change may look like: a level, or a smooth curve along an axis."""

QUANTILES = (0.5, 0.9, 0.95, 0.99)
"""Quantiles of the bootstrap's largest gain that are reported."""

COVERAGE = 0.9
"""Nominal coverage of the location intervals."""


@dataclass(frozen=True)
class GreedyStep:
    """One step of the search: the test of one more boundary."""

    splits: tuple[int, ...]
    """Candidate splits (index of the first point of the new regime)."""
    gains: tuple[float, ...]
    """What a step would gain at each: twice the logarithm of a likelihood ratio, summed over columns."""
    best: int
    """The split that gains most."""
    p_value: float
    """``(1 + number of replicates that gain as much) / (1 + number of replicates)``."""
    quantiles: tuple[float, ...]
    """Of the largest gain in the bootstrap, at `QUANTILES`."""
    ar: tuple[float, ...]
    """Autoregressive coefficient of each column under the current model, with which the replicates were made."""


@dataclass(frozen=True)
class PhaseTest:
    """Outcome of `phase_test`."""

    boundaries: tuple[int, ...]
    """Index of the first point of every new regime, ascending."""
    boundary_p_values: tuple[float, ...]
    """p of the greedy step that added each boundary."""
    intervals: tuple[tuple[int, int], ...]
    """90 % interval of each boundary's location."""
    steps: tuple[GreedyStep, ...]
    """The search; its last step is not significant unless the search ran into its limits."""
    ar: tuple[float, ...]
    """Autoregressive coefficient of each column under the final model."""

    @property
    def p_values(self) -> tuple[float, ...]:
        """One p per greedy step."""
        return tuple(step.p_value for step in self.steps)


def phase_test(
    series: np.ndarray,
    *,
    null: str = "constant",
    axis: np.ndarray | None = None,
    min_size: int = 5,
    max_changes: int = 3,
    alpha: float = 0.01,
    bootstraps: int = 999,
    seed: int = 0,
) -> PhaseTest:
    """Search and test level changes.

    Parameters
    ----------
    series
        [n, d], n points in order, no column constant.
    null
        ``constant``, or ``spline2``: a natural cubic spline with two interior knots, partialled out of data and steps.
    axis
        [n], strictly increasing, along what the spline is smooth; the point's index if None.
    min_size
        Least number of points in a regime.
    max_changes
        Where the search ends at the latest.
    alpha
        Level of every step of the search. At .01 about one stationary or smoothly drifting series in a hundred gets a
        boundary.
    bootstraps
        Replicates per step.
    seed
        Of all random draws.

    Raises
    ------
    PhasegraphError
        If the series is too short, constant or not finite, or an option is out of range.

    Notes
    -----
    Columns are z-scored. The replicates are made from the current model, its residuals and its coefficients. The gain,
    in data and replicates alike, is computed with noise estimated anew, with the best steps taken out
    (`phasegraph.phases.steps.best_step`). After a step is accepted, all boundaries are moved in turn to where they
    gain most.
    """
    axis = np.arange(len(series), dtype=float) if axis is None else np.asarray(axis, dtype=float)
    scaled = _scaled(np.asarray(series, dtype=float), min_size)
    _check_options(axis, len(scaled), null, alpha, bootstraps, min_size, max_changes)
    trend = trend_basis(null, axis)
    rng = np.random.default_rng(seed)
    found: list[int] = []  # in the order of the search, which is that of their p-values
    steps: list[GreedyStep] = []
    while len(found) < max_changes and len(candidates(len(scaled), found, min_size)):
        steps.append(_test_one_more(scaled, trend, found, min_size, bootstraps, rng))
        if steps[-1].p_value > alpha:
            break
        found.append(steps[-1].best)
        ar = _coefficients(scaled, design(trend, found))
        found = relocate(trend, found, scaled[None], ar, min_size)[0].tolist()
    ar = _coefficients(scaled, design(trend, found))
    intervals = _location_intervals(scaled, trend, found, ar, min_size, bootstraps, rng) if found else []
    order = np.argsort(found)
    return PhaseTest(
        boundaries=tuple(found[k] for k in order),
        boundary_p_values=tuple(steps[k].p_value for k in order),
        intervals=tuple(intervals[k] for k in order),
        steps=tuple(steps),
        ar=tuple(ar.tolist()),
    )


def least_points(min_size: int) -> int:
    """Count the points that a test needs at least: two regimes, and the spline, a step and the coefficient in them."""
    return max(2 * min_size, 8)


def _scaled(series: np.ndarray, min_size: int) -> np.ndarray:
    if series.ndim != 2:
        raise PhasegraphError(
            f"series has {series.ndim} dimensions; give [n, d], points in rows and columns of metrics"
        )
    if not np.isfinite(series).all():
        row, column = np.argwhere(~np.isfinite(series))[0]
        raise PhasegraphError(f"series holds no number at point {row}, column {column}; leave the point or column out")
    spread = series.std(0)
    if not (spread > 1e-12 * np.abs(series).max(0)).all():
        raise PhasegraphError(f"column {int(spread.argmin())} of the series is constant; leave it out")
    if len(series) < least_points(min_size):
        raise PhasegraphError(f"{len(series)} points are too few; {least_points(min_size)} are needed (twice min_size)")
    return (series - series.mean(0)) / spread


def _check_options(
    axis: np.ndarray, n: int, null: str, alpha: float, bootstraps: int, min_size: int, max_changes: int
) -> None:
    if null not in NULLS:
        raise PhasegraphError(f"null {null!r} is unknown; choose one of {', '.join(NULLS)}")
    if axis.shape != (n,) or not (np.diff(axis) > 0).all():
        raise PhasegraphError(f"axis must hold {n} strictly increasing numbers, one per point; sort it")
    if min_size < 2:
        raise PhasegraphError(f"min_size {min_size} is too small; a regime needs at least 2 points")
    if max_changes < 1:
        raise PhasegraphError(f"max_changes {max_changes} leaves nothing to test; take at least 1")
    if not 0 < alpha < 1 or 1 / (bootstraps + 1) > alpha:
        raise PhasegraphError(
            f"{bootstraps} bootstraps cannot reach alpha {alpha}; take alpha in (0, 1) and at least 1/alpha - 1 of them"
        )


def _coefficients(series: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    known = projector(regressors)
    return ar_coefficient(series - known @ (known.T @ series), regressors.shape[1])


def _test_one_more(
    series: np.ndarray,
    trend: np.ndarray,
    found: list[int],
    min_size: int,
    bootstraps: int,
    rng: np.random.Generator,
) -> GreedyStep:
    model = design(trend, found)
    splits = candidates(len(series), found, min_size)
    observed = best_step(model, splits, series[None])[0]  # [n_splits]
    ar = _coefficients(series, model)
    known = projector(model)
    if ((series - known @ (known.T @ series)) ** 2).mean() < EXHAUSTED:
        largest = np.full(bootstraps, observed.max())  # rounding errors are left, and they prove nothing
    else:
        largest = best_step(model, splits, wild_replicates(model, series, ar, bootstraps, rng)).max(1)
    return GreedyStep(
        splits=tuple(splits.tolist()),
        gains=tuple(observed.tolist()),
        best=int(splits[observed.argmax()]),
        p_value=float((1 + (largest >= observed.max()).sum()) / (1 + bootstraps)),
        quantiles=tuple(np.quantile(largest, QUANTILES).tolist()),
        ar=tuple(ar.tolist()),
    )


def _location_intervals(
    series: np.ndarray,
    trend: np.ndarray,
    found: list[int],
    ar: np.ndarray,
    min_size: int,
    bootstraps: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Where the boundaries go in replicates of the final model, the number of boundaries being kept."""
    replicates = wild_replicates(design(trend, found), series, ar, bootstraps, rng)
    places = np.sort(relocate(trend, found, replicates, ar, min_size, sweeps=3), axis=1)  # [bootstraps, K]
    tail = (1 - COVERAGE) / 2
    low = np.quantile(places, tail, axis=0, method="inverted_cdf")
    high = np.quantile(places, 1 - tail, axis=0, method="inverted_cdf")
    by_place = dict(zip(sorted(found), zip(low.tolist(), high.tolist(), strict=True), strict=True))
    return [by_place[place] for place in found]

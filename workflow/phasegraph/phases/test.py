"""The change test: level changes of a multivariate series that autocorrelation and a smooth trend do not explain.

Boundaries are added one at a time, each where it gains most, and each must gain more than the best of all candidate
splits gains in series without it: wild bootstrap series of the current model with the data's own autocorrelation.
The search stops at the first step that does not.

Known limits: noise is autoregressive, of an order up to 4 that the data choose, so longer memory passes for change
under the constant null; two opposing changes close together gain little one by one and may be missed; ramps are cut
into steps, so the number of boundaries is a description and not an estimate.
"""

from dataclasses import asdict, dataclass

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.phases.noise import Data, Noise, noise_about, prepared, replicates
from phasegraph.phases.settings import NULLS_OF, Settings
from phasegraph.phases.sieve import EXHAUSTED, autoregressions
from phasegraph.phases.steps import best_step, candidates, design, projector, relocate, trend_basis

NULLS = ("constant", "spline")
"""What a series without a change may look like: a level, or a smooth curve along an axis."""

QUANTILES = (0.5, 0.9, 0.95, 0.99)
"""Quantiles of the bootstrap's largest gain that are reported."""

TAIL = 0.05
"""Share of replicates on either side of a 90 % location interval."""


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
    ar: tuple[tuple[float, ...], ...]
    """Autoregressive coefficients of each column beside the current model."""


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
    ar: tuple[tuple[float, ...], ...]
    """The same beside the final model."""

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
    locate: bool = True,
) -> PhaseTest:
    """Search and test level changes.

    Parameters
    ----------
    series
        [n, d], n points in order, no column constant.
    null
        ``constant``, or ``spline``: a natural cubic spline with two to four interior knots, partialled out of data and
        steps.
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
    locate
        Whether the intervals are computed; without, there are none. Nothing else depends on it.

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
    scaled = z_scored(series).T  # [d, n]
    n = scaled.shape[1]
    if n < least_points(min_size):
        raise PhasegraphError(f"{n} points are too few; {least_points(min_size)} are needed (twice min_size)")
    _check_options(axis, n, null, alpha, bootstraps, min_size, max_changes)
    trend = trend_basis(null, axis)
    data = prepared(scaled, min_size)
    rng = np.random.default_rng(seed)
    found: list[int] = []  # in the order of the search, which is that of their p-values
    steps: list[GreedyStep] = []
    noise = noise_about(data, trend, rng)
    while len(found) < max_changes and len(splits := candidates(n, found, min_size)):
        steps.append(_test_one_more(data, noise, splits, bootstraps, rng))
        if steps[-1].p_value > alpha:
            break
        found.append(steps[-1].best)
        found = relocate(trend, found, scaled[None], noise.columns, min_size)[0].tolist()
        noise = noise_about(data, design(trend, found), rng)
    intervals = _location_intervals(data, trend, found, noise, min_size, bootstraps, rng) if found and locate else []
    order = np.argsort(found)
    return PhaseTest(
        boundaries=tuple(found[k] for k in order),
        boundary_p_values=tuple(steps[k].p_value for k in order),
        intervals=tuple(intervals[k] for k in order if locate),
        steps=tuple(steps),
        ar=_readable(noise.columns),
    )


def both_tests(series: np.ndarray, axis: np.ndarray, settings: Settings, **changed: int) -> dict[str, PhaseTest]:
    """Run test A and test B with a study's settings, but for those that are given."""
    options = asdict(settings) | changed
    return {test: phase_test(series, null=null, axis=axis, **options) for test, null in NULLS_OF.items()}


def least_points(min_size: int) -> int:
    """Count the points that a test needs at least: two regimes, and the spline, a step and the coefficient in them."""
    return max(2 * min_size, 8)


def z_scored(series: np.ndarray) -> np.ndarray:
    """Scale the columns of a series [n, d] to mean 0 and variance 1.

    Raises
    ------
    PhasegraphError
        If the series is not [n, d], holds what is no finite number, or a column is constant.
    """
    series = np.asarray(series, dtype=float)
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


def _readable(noise: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(column) for column in autoregressions(noise)[-1].tolist())


def _test_one_more(
    data: Data, noise: Noise, splits: np.ndarray, bootstraps: int, rng: np.random.Generator
) -> GreedyStep:
    observed = best_step(noise.model, splits, data.columns[None], data.order)[0]  # [n_splits]
    known = projector(noise.model)
    if ((data.columns - (data.columns @ known) @ known.T) ** 2).mean() < EXHAUSTED:
        largest = np.full(bootstraps, observed.max())  # rounding errors are left, and they prove nothing
    else:
        parts = replicates(data, noise, bootstraps, rng, errors=noise.errors)
        largest = np.concatenate([best_step(noise.model, splits, part, data.order).max(1) for part in parts])
    return GreedyStep(
        splits=tuple(splits.tolist()),
        gains=tuple(observed.tolist()),
        best=int(splits[observed.argmax()]),
        p_value=float((1 + (largest >= observed.max()).sum()) / (1 + bootstraps)),
        quantiles=tuple(np.quantile(largest, QUANTILES).tolist()),
        ar=_readable(noise.columns),
    )


def _location_intervals(
    data: Data,
    trend: np.ndarray,
    found: list[int],
    noise: Noise,
    min_size: int,
    bootstraps: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Where the boundaries go in replicates of the final model, with innovations from all over the series."""
    parts = replicates(data, noise, bootstraps, rng, resampled=True)
    moved = [relocate(trend, found, part, noise.columns, min_size, sweeps=3) for part in parts]
    places = np.sort(np.concatenate(moved), axis=1)  # [bootstraps, K]
    low = np.quantile(places, TAIL, axis=0, method="inverted_cdf")
    high = np.quantile(places, 1 - TAIL, axis=0, method="inverted_cdf")
    by_place = dict(zip(sorted(found), zip(low.tolist(), high.tolist(), strict=True), strict=True))
    return [by_place[place] for place in found]

"""Level steps beside a smooth trend: the regressors of the change test and what each of them gains.

A model of n checkpoints is a trend (a constant or a spline) plus a level step at each boundary. Regressors and data are
pre-whitened with the column's own autoregression before a step is judged (generalised least squares). Time is the last
axis of series [..., n]; regressors are [n, m].
"""

from collections.abc import Sequence

import numpy as np

from phasegraph.phases.sieve import EXHAUSTED, autoregressions, corrected, reflections, whiten

KNOTS = (2, 4)
"""Least and most interior knots of the spline null. With two, test B took a steep Gompertz curve of 8 standard
deviations for a jump in 23 % of series at a level of 5 %, with four in none; it found as many steps of 3 and 4 (40
series)."""

POINTS_PER_KNOT = 15
"""Points that an interior knot takes."""

TAKEN_OUT = 3
"""Steps taken out before the noise is estimated: further changes make it look as autocorrelated as the first."""

BLOCK = 2**18
"""Numbers in the largest array; more columns are worked on one block after the other."""


def trend_basis(null: str, axis: np.ndarray, knots: int | None = None) -> np.ndarray:
    """Regressors of the trend that is not a change.

    Parameters
    ----------
    null
        ``constant``, or ``spline``: a natural cubic spline with one interior knot for `POINTS_PER_KNOT` points, within
        `KNOTS`.
    axis
        [n], strictly increasing; along what the spline is smooth. Knots are its quantiles.
    knots
        Number of interior knots, if another is wanted.

    Returns
    -------
    ndarray
        [n, 1] or, with k interior knots, [n, 2 + k], the first column constant.

    Notes
    -----
    Natural cubic splines in the truncated-power form of Hastie, Tibshirani & Friedman, The Elements of Statistical
    Learning (2009), eq. 5.4-5.5: cubic between the knots, linear beyond the outer ones.
    """
    if null == "constant":
        return np.ones((len(axis), 1))
    x = (axis - axis[0]) / (axis[-1] - axis[0])
    knots = np.clip(len(axis) // POINTS_PER_KNOT, *KNOTS) if knots is None else knots
    places = np.quantile(x, np.linspace(0, 1, knots + 2))

    def cubic(place: float) -> np.ndarray:
        return (np.maximum(x - place, 0) ** 3 - np.maximum(x - places[-1], 0) ** 3) / (places[-1] - place)

    curves = [cubic(place) - cubic(places[-2]) for place in places[:-2]]
    return np.column_stack([np.ones_like(x), x, *curves])


def step_functions(n: int, splits: Sequence[int] | np.ndarray) -> np.ndarray:
    """One column per split: 0 before it, 1 from it on; [n, len(splits)]."""
    return (np.arange(n)[:, None] >= np.asarray(splits, dtype=int)).astype(float)


def design(trend: np.ndarray, boundaries: Sequence[int]) -> np.ndarray:
    """Trend and a step at every boundary, [n, m]."""
    return np.column_stack([trend, step_functions(len(trend), boundaries)])


def candidates(n: int, boundaries: Sequence[int], min_size: int) -> np.ndarray:
    """List the splits that leave at least `min_size` points on either side, up to the next boundary or end."""
    edges = np.array([0, *boundaries, n])
    splits = np.arange(n)
    return splits[np.abs(splits[:, None] - edges).min(1) >= min_size]


def projector(regressors: np.ndarray) -> np.ndarray:
    """Orthonormal basis [..., n, m] of the columns' span."""
    return np.linalg.qr(regressors)[0]


def gains(regressors: np.ndarray, series: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """By how much one more step lowers the residual sum of squares, at every split.

    Parameters
    ----------
    regressors
        [n, m], the current model.
    series
        [b, d, n], any number of data sets of the same size.
    coefficients
        [b, d, p] or [d, p], the reflection coefficients with which the columns are pre-whitened.

    Returns
    -------
    ndarray
        [b, d, n]; meaningful from p to n - p, and where the step is no linear function of the model.

    Notes
    -----
    A whitened step that begins at t is the sum of the whitening matrix's columns from t on. So its product with
    anything is a sum, from t on, of what the transposed matrix makes of that: no step is ever written out. And what it
    makes of the whitened model is a quadratic form of (1, -phi_1, ..., -phi_p), whose coefficients no column changes.
    """
    lead, n = series.shape[:2], series.shape[-1]
    known = projector(regressors)
    columns = series.reshape(-1, n)
    coefficients = np.broadcast_to(coefficients, (*lead, coefficients.shape[-1])).reshape(len(columns), -1)
    size = max(1, BLOCK // known.size)
    parts = [slice(start, start + size) for start in range(0, len(columns), size)]
    return np.concatenate([_gains(known, columns[part], coefficients[part]) for part in parts]).reshape(*lead, n)


def _gains(known: np.ndarray, series: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """`gains` of columns [c, n] with coefficients [c, p] beside an orthonormal model [n, m]."""
    (n, m), p = known.shape, coefficients.shape[1]
    filters = np.concatenate([np.ones((len(series), 1)), -autoregressions(coefficients)[-1]], axis=1)  # [c, 1 + p]
    pairs = (filters[:, :, None] * filters[:, None]).reshape(len(series), -1)  # [c, (1 + p)^2]
    lagged = np.stack([known[p - lag : n - lag] for lag in range(p + 1)])  # [1 + p, n - p, m]
    data = whiten(series, coefficients)  # [c, n]
    first = whiten(known[:p].T, coefficients[:, None])  # [c, m, p]: the model's first rows, whitened
    inner = np.einsum("aim,bik->abmk", lagged, lagged).reshape(len(pairs[0]), m * m)
    gram = first @ first.swapaxes(1, 2) + (pairs @ inner).reshape(-1, m, m)  # of the whitened model
    products = np.einsum("cmi,ci->cm", first, data[:, :p])  # of the whitened model with the whitened data
    products += sum(filters[:, lag, None] * (data[:, p:] @ lagged[lag]) for lag in range(p + 1))

    data_sums = _shifted_sums(data[:, None], filters)[:, 0]  # [c, n]: products of every step with the data
    model_sums = (pairs @ _lagged_sums(lagged, n).reshape(len(pairs[0]), m * n)).reshape(-1, m, n)
    root = np.linalg.inv(np.linalg.cholesky(gram))  # makes the whitened model orthonormal
    model_sums = root @ model_sums
    gained = data_sums - ((root @ products[:, :, None]) * model_sums).sum(1)
    power = _step_power(n, filters) - (model_sums**2).sum(1)
    return gained**2 / np.maximum(power, EXHAUSTED)


def _shifted_sums(values: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Sum, from every split on, what the transposed filters [c, 1 + p] make of values [c, k, n]."""
    sums = values[..., ::-1].cumsum(-1)[..., ::-1]
    total = filters[:, :1, None] * sums
    for lag in range(1, filters.shape[1]):
        total[..., :-lag] += filters[:, lag, None, None] * sums[..., lag:]
    return total


def _lagged_sums(lagged: np.ndarray, n: int) -> np.ndarray:
    """Sum the model's rows i - a over i >= t + b, for every t >= p: [a, b, m, n]; ``lagged`` is [1 + p, n - p, m]."""
    count, rows, m = lagged.shape
    sums = np.zeros((count, count, m, n))
    from_here = lagged[:, ::-1].cumsum(1)[:, ::-1].swapaxes(1, 2)  # [1 + p, m, n - p]
    for shift in range(count):
        sums[:, shift, :, n - rows : n - shift] = from_here[:, :, shift:]
    return sums


def _step_power(n: int, filters: np.ndarray) -> np.ndarray:
    """Sum of squares of the whitened step at every split from p to n - p, [c, n]."""
    response = filters.cumsum(1)  # [c, 1 + p]: what the filter makes of a step, constant from lag p on
    p = filters.shape[1] - 1
    rest = np.arange(n, 0, -1) - p
    return (response[:, :p] ** 2).sum(1, keepdims=True) + response[:, p:] ** 2 * np.maximum(rest, 0)


def noise_beside(
    regressors: np.ndarray, splits: np.ndarray, series: np.ndarray, order: int, scores: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the noise, with the `TAKEN_OUT` best steps taken out.

    The coefficients of the current model take a change that the model lacks for autocorrelation: the sharper the
    change, the nearer they are to 1, and whitening by them hides that very change (power falls again for large changes:
    Vogelsang, Journal of Econometrics 88, 1999). So they only choose the step that is taken out first.

    Parameters
    ----------
    regressors
        [n, m], the current model.
    splits
        [n_splits], the candidates.
    series
        [b, d, n], any number of data sets of the same size.
    order
        Of the autoregression.
    scores
        [b, k, n], other columns of the same data sets, whose noise is estimated in place of that of `series`, with the
        steps that are best for `series`. (A change that one column shows alone would hide itself there.)

    Returns
    -------
    coefficients
        [b, d, p], or [b, k, p] with scores, reflection coefficients; too small by what the steps took, which
        `best_step` does not mind.
    residuals
        [b, d, n] or [b, k, n].
    """
    n, m = regressors.shape
    known = projector(regressors)
    plain_steps = step_functions(n, splits)
    plain_steps -= known @ (known.T @ plain_steps)
    plain_steps /= np.linalg.norm(plain_steps, axis=0)  # [n, n_splits]
    left = series - (series @ known) @ known.T
    rest = None if scores is None else scores - (scores @ known) @ known.T
    coefficients = corrected(reflections(left, order), n, m)  # [b, d, p]
    for count in range(1, TAKEN_OUT + 1):
        best = plain_steps.T[gains(regressors, left, coefficients)[..., splits].sum(1).argmax(1)]  # [b, n]
        left = left - (left @ best[:, :, None]) * best[:, None]
        coefficients = corrected(reflections(left, order), n, m + count)
        if rest is not None:
            rest = rest - (rest @ best[:, :, None]) * best[:, None]
    if rest is None:
        return coefficients, left
    return corrected(reflections(rest, order), n, m + TAKEN_OUT), rest


def best_step(regressors: np.ndarray, splits: np.ndarray, series: np.ndarray, order: int) -> np.ndarray:
    """Likelihood gained by one more step, beside noise that is estimated by `noise_beside`.

    Columns are added up as logarithms, so that a column that happens to wander cannot outvote the others by its size.

    Parameters
    ----------
    regressors, splits, series, order
        As for `noise_beside`.

    Returns
    -------
    ndarray
        [b, n_splits]: sum over columns of ``n log(1 + gain / (n s^2))``, twice the logarithm of a likelihood ratio,
        with s^2 the variance of the column's innovations.
    """
    coefficients, left = noise_beside(regressors, splits, series, order)
    power = np.maximum((whiten(left, coefficients) ** 2).sum(-1, keepdims=True), EXHAUSTED)  # [b, d, 1]
    gained = gains(regressors, series, coefficients)[..., splits]
    return series.shape[-1] * np.log1p(gained / power).sum(1)


def relocate(
    trend: np.ndarray,
    boundaries: Sequence[int],
    series: np.ndarray,
    coefficients: np.ndarray,
    min_size: int,
    sweeps: int = 10,
) -> np.ndarray:
    """Move boundaries, one at a time, to where they gain most given the others, until none moves.

    Parameters
    ----------
    trend
        [n, m].
    boundaries
        [K], where to start from, in any order.
    series
        [b, d, n], any number of data sets; each gets its own boundaries.
    coefficients
        [d, p], reflection coefficients for all of them.
    min_size
        Least distance of a boundary from the others and from the ends.
    sweeps
        Most rounds over the boundaries.

    Returns
    -------
    ndarray
        int [b, K], in the order of `boundaries`.
    """
    n = len(trend)
    products, inner = _whitened_products(trend, series, coefficients)
    places = np.tile(np.asarray(boundaries, dtype=int), (len(series), 1))  # [b, K]
    ends = np.tile([0, n], (len(series), 1))
    for _ in range(sweeps):
        before = places.copy()
        for k in range(places.shape[1]):
            others = np.delete(places, k, axis=1)
            taken = np.concatenate([others, ends], axis=1)[:, :, None]
            free = np.abs(np.arange(n) - taken).min(1) >= min_size  # [b, n]
            places[:, k] = np.where(free, _gains_beside(others, products, inner), -1).argmax(1)
        if (places == before).all():
            break
    return places


def _whitened_products(
    trend: np.ndarray, series: np.ndarray, coefficients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Multiply all whitened steps, less what the trend explains, with the data [b, d, n] and each other [d, n, n]."""
    n = len(trend)
    steps = whiten(step_functions(n, range(n)).T, coefficients[:, None])  # [d, n splits, n]
    known = projector(whiten(trend.T, coefficients[:, None]).swapaxes(1, 2))  # [d, n, m]
    steps = steps - (steps @ known) @ known.swapaxes(1, 2)
    data = whiten(series, coefficients).swapaxes(0, 1)  # [d, b, n]
    return (data @ steps.swapaxes(1, 2)).swapaxes(0, 1), steps @ steps.swapaxes(1, 2)


def _gains_beside(others: np.ndarray, products: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Gain of every further step beside each data set's own steps `others` [b, k], summed over columns: [b, n]."""
    power = np.broadcast_to(inner.diagonal(axis1=1, axis2=2), products.shape)  # [b, d, n]
    if others.shape[1]:
        beside = inner[:, others].swapaxes(0, 1)  # [b, d, k, n]
        known = np.take_along_axis(beside, others[:, None, None], axis=3)  # [b, d, k, k]
        fitted = np.linalg.solve(known, beside)  # [b, d, k, n]
        products = products - (fitted * np.take_along_axis(products, others[:, None], axis=2)[..., None]).sum(2)
        power = power - (fitted * beside).sum(2)
    return (products**2 / np.maximum(power, EXHAUSTED)).sum(1)

"""Level steps beside a smooth trend: the regressors of the change test and what each of them gains.

A model of n checkpoints is a trend (a constant or a spline) plus a level step at each boundary. Regressors and data are
pre-whitened with the column's autoregressive coefficient before a step is judged (generalised least squares).
"""

from collections.abc import Sequence

import numpy as np

from phasegraph.phases.sieve import EXHAUSTED, ar_coefficient, whiten

INTERIOR_KNOTS = 2
"""Interior knots of the spline null: enough for a sigmoid learning curve, too few for a jump (measured in `test`)."""


TAKEN_OUT = 2
"""Steps taken out before the noise is estimated: a second change makes the noise look as autocorrelated as a first."""


def trend_basis(null: str, axis: np.ndarray) -> np.ndarray:
    """Regressors of the trend that is not a change.

    Parameters
    ----------
    null
        ``constant``, or ``spline2``: a natural cubic spline with `INTERIOR_KNOTS` interior knots.
    axis
        [n], strictly increasing; along what the spline is smooth. Knots are its quantiles.

    Returns
    -------
    ndarray
        [n, 1] or [n, 4], the first column constant.

    Notes
    -----
    Natural cubic splines in the truncated-power form of Hastie, Tibshirani & Friedman, The Elements of Statistical
    Learning (2009), eq. 5.4-5.5: cubic between the knots, linear beyond the outer ones.
    """
    if null == "constant":
        return np.ones((len(axis), 1))
    x = (axis - axis[0]) / (axis[-1] - axis[0])
    knots = np.quantile(x, np.linspace(0, 1, INTERIOR_KNOTS + 2))

    def cubic(knot: float) -> np.ndarray:
        return (np.maximum(x - knot, 0) ** 3 - np.maximum(x - knots[-1], 0) ** 3) / (knots[-1] - knot)

    curves = [cubic(knot) - cubic(knots[-2]) for knot in knots[:-2]]
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
    """Orthonormal basis [n, m] of the columns' span."""
    return np.linalg.qr(regressors)[0]


def step_basis(regressors: np.ndarray, splits: np.ndarray, ar: float) -> np.ndarray:
    """Pre-whiten the steps, make them orthogonal to the current model and give them unit length.

    Parameters
    ----------
    regressors
        [n, m], the current model, not whitened.
    splits
        [n_splits].
    ar
        Autoregressive coefficient.

    Returns
    -------
    ndarray
        [n_splits, n].
    """
    known = projector(whiten(regressors, ar))
    steps = whiten(step_functions(len(regressors), splits), ar)
    steps -= known @ (known.T @ steps)
    return (steps / np.linalg.norm(steps, axis=0)).T


def gains(regressors: np.ndarray, splits: np.ndarray, series: np.ndarray, ar: np.ndarray) -> np.ndarray:
    """By how much one more step lowers the residual sum of squares, at every candidate split.

    Parameters
    ----------
    regressors
        [n, m], the current model.
    splits
        [n_splits].
    series
        [b, n, d], any number of data sets of the same size.
    ar
        [b, d] or [d], the coefficients with which the columns are pre-whitened; rounded values make this quick, since
        columns with equal coefficients share their regressors.

    Returns
    -------
    ndarray
        [b, n_splits, d].
    """
    b, n, d = series.shape
    columns = series.transpose(1, 0, 2).reshape(n, b * d)
    coefficients = np.broadcast_to(ar, (b, d)).ravel()
    result = np.empty((len(splits), b * d))
    for value in np.unique(coefficients):
        same = coefficients == value
        result[:, same] = (step_basis(regressors, splits, value) @ whiten(columns[:, same], value)) ** 2
    return result.reshape(len(splits), b, d).transpose(1, 0, 2)


def best_step(regressors: np.ndarray, splits: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Likelihood gained by one more step, the noise being estimated with the `TAKEN_OUT` best steps taken out.

    The coefficients of the current model take a change that the model lacks for autocorrelation: the sharper the
    change, the nearer they are to 1, and whitening by them hides that very change (power falls again for large changes:
    Vogelsang, Journal of Econometrics 88, 1999). So they only choose the step that is taken out first.

    Columns are added up as logarithms, so that a column that happens to wander cannot outvote the others by its size.

    Parameters
    ----------
    regressors, splits, series
        As for `gains`.

    Returns
    -------
    ndarray
        [b, n_splits]: sum over columns of ``n log(1 + gain / (n s^2))``, twice the logarithm of a likelihood ratio,
        with s^2 the variance of the column's innovations.
    """
    known = projector(regressors)
    plain_steps = step_basis(regressors, splits, 0.0)  # [n_splits, n]
    left = series - known @ (known.T @ series)  # [b, n, d]
    ar = ar_coefficient(left, regressors.shape[1])  # [b, d]
    for count in range(1, TAKEN_OUT + 1):
        best = plain_steps[gains(regressors, splits, left, ar).sum(-1).argmax(1)]  # [b, n]
        left = left - best[:, :, None] * (best[:, None, :] @ left)
        ar = ar_coefficient(left, regressors.shape[1] + count)
    power = np.maximum((whiten(left, ar) ** 2).sum(1, keepdims=True), EXHAUSTED)  # [b, 1, d]
    return len(regressors) * np.log1p(gains(regressors, splits, series, ar) / power).sum(-1)


def relocate(
    trend: np.ndarray, boundaries: Sequence[int], series: np.ndarray, ar: np.ndarray, min_size: int, sweeps: int = 10
) -> np.ndarray:
    """Move boundaries, one at a time, to where they gain most given the others, until none moves.

    Parameters
    ----------
    trend
        [n, m].
    boundaries
        [K], where to start from, in any order.
    series
        [b, n, d], any number of data sets; each gets its own boundaries.
    ar
        [d], autoregressive coefficients for all of them.
    min_size
        Least distance of a boundary from the others and from the ends.
    sweeps
        Most rounds over the boundaries.

    Returns
    -------
    ndarray
        int [b, K], in the order of `boundaries`.
    """
    places = np.tile(np.asarray(boundaries, dtype=int), (len(series), 1))  # [b, K]
    for _ in range(sweeps):
        before = places.copy()
        for k in range(places.shape[1]):
            others, group = np.unique(np.delete(places, k, axis=1), axis=0, return_inverse=True)
            for g, fixed in enumerate(others):  # data sets with the same other boundaries share their regressors
                same = group.ravel() == g
                splits = candidates(len(trend), fixed, min_size)
                gained = gains(design(trend, fixed), splits, series[same], ar).sum(-1)
                places[same, k] = splits[gained.argmax(1)]
        if (places == before).all():
            break
    return places

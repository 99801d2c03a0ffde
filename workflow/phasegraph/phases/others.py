"""What the literature's methods make of the same series, beside our tests: PELT, a kernel change point, a training map.

None of them holds a level on series like these, so they are shown for comparison and nothing rests on them. In series
of 143 points and ten columns without a change, whose noise is autocorrelated by .5, PELT with its usual penalty finds
changes in nine of ten; scaled by the long-run variance it does not, but takes every smooth drift for steps.

This module alone imports hmmlearn, and with it scikit-learn (about 1 s of CPU beyond numpy and scipy).
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from hmmlearn.hmm import GaussianHMM
from ruptures import KernelCPD

from phasegraph.errors import PhasegraphError
from phasegraph.phases.test import z_scored

MOST_AUTOCORRELATION = 0.8
"""Bound of the autocorrelation from which a long-run variance is made: the variance is at most 9 times the plain one.

A random walk has none. The bound was chosen by what remains visible: of pairs of changes of 2.5 standard deviations in
noise autocorrelated by .8, PELT found both in 95 % of 40 simulations with a bound of .8, and in 47 % with one of .9.
"""

KERNEL_PENALTY = 5.0
"""Penalty of a boundary for the Gaussian kernel, in the unit of its cost: a point's cost is between 0 and 1."""

COMPONENTS = 3
"""Most principal components that a training map sees; each of them costs every state a mean and a variance."""

STARTS = 16
"""Starts of the expectation-maximisation per number of states, each from points at random; the likeliest end counts."""

ROUNDS = 100
"""Most rounds of expectation and maximisation per start."""

PRIORS = {"startprob_prior": 1.01, "transmat_prior": 1.01, "means_weight": 1e-6}
"""As weak as can be, they keep every model sound: a state that is never left keeps its transitions, and one that loses
all its points its mean. hmmlearn's own prior of variances keeps that of a state of equal points above 0."""

LEAST_FOR_HELD_OUT = 3
"""Series from which on the number of states is the one that predicts a series best that was left out."""


@dataclass(frozen=True)
class TrainingMap:
    """Outcome of `training_map`."""

    states: tuple[tuple[int, ...], ...]
    """State of every point of each series, numbered in the order of their first appearance."""
    chosen: int
    """Number of states of the model; some of them may be at no point the likeliest."""
    bic: dict[int, float]
    """Number of states -> Bayesian information criterion on all series; low is good."""
    held_out: dict[int, float] | None
    """Number of states -> mean log-likelihood per point of series left out; high is good. None for fewer than three."""


def pelt(series: np.ndarray, min_size: int) -> list[int]:
    """Find changes of mean by PELT with the penalty that most users take.

    Parameters
    ----------
    series
        [n, d], n points in order, no column constant.
    min_size
        Least number of points in a regime.

    Returns
    -------
    list of int
        Index of the first point of every new regime, ascending: the segmentation that minimises the sum of squares of
        the z-scored columns plus (d + 1) ln n per boundary (d means and a place), exactly.

    Raises
    ------
    PhasegraphError
        If the series is too short, constant or not finite, or min_size is below 2.

    Notes
    -----
    Killick, Fearnhead & Eckley, Journal of the American Statistical Association 107 (2012), as in ruptures. The penalty
    is that of BIC for independent noise of unit variance; z-scored columns have less noise where there is a change.
    """
    scaled = _regimes(series, min_size)
    return _segment("linear", scaled, min_size, _penalty(*scaled.shape))


def pelt_long_run(series: np.ndarray, min_size: int) -> list[int]:
    """Find changes of mean by PELT, the columns scaled by their long-run standard deviation.

    Parameters, result and errors as for `pelt`.

    Notes
    -----
    For autocorrelated noise the long-run variance is what the mean of many points varies by, times their number. It is
    that of a first-order autoregression of variance v and autocorrelation r, ``v (1 + r) / (1 - r)``. Both come from
    differences, which a change of level hardly touches: their variance is ``2 v (1 - r)`` and their own lag-one
    autocorrelation ``-(1 - r) / 2``; r is taken to be between 0 and `MOST_AUTOCORRELATION`.
    """
    scaled = _regimes(series, min_size)
    scaled /= np.sqrt(long_run_variance(scaled))
    return _segment("linear", scaled, min_size, _penalty(*scaled.shape))


def kernel(series: np.ndarray, min_size: int) -> list[int]:
    """Find changes of distribution by a Gaussian kernel, `KERNEL_PENALTY` per boundary.

    Parameters, result and errors as for `pelt`. Two halves, however different, pay for a boundary from 17 points on.

    Notes
    -----
    Arlot, Celisse & Harchaoui, Journal of Machine Learning Research 20 (2019); the kernel's width is the median
    distance of two points, as in ruptures.
    """
    return _segment("rbf", _regimes(series, min_size), min_size, KERNEL_PENALTY)


def long_run_variance(series: np.ndarray) -> np.ndarray:
    """Variance at frequency 0 of each column [d] of a series [n, d], see `pelt_long_run`."""
    change = np.diff(series, axis=0)  # [n - 1, d]
    power = (change**2).sum(0)
    correlation = 1 + 2 * (change[1:] * change[:-1]).sum(0) / power
    correlation = np.clip(correlation, 0, MOST_AUTOCORRELATION)
    variance = power / len(change) / (2 * (1 - correlation))
    return variance * (1 + correlation) / (1 - correlation)


def training_map(series: np.ndarray | Sequence[np.ndarray], most_states: int = 5, seed: int = 0) -> TrainingMap:
    """Fit a hidden Markov model with Gaussian states, one model for all series.

    Parameters
    ----------
    series
        [n, d], or several such series (of several seeds), whose lengths may differ.
    most_states
        Largest number of states that is tried; fewer where a model would have more numbers than it is fitted to.
    seed
        Of the starts.

    Returns
    -------
    TrainingMap
        The likeliest path of states. Their number has the lowest BIC or, from three series on, the highest
        likelihood of series that the model was not fitted to, each left out in turn.

    Raises
    ------
    PhasegraphError
        If a series is too short or not finite, series have different columns, a column is constant, or most_states is
        below 1.

    Notes
    -----
    The training map of Hu, Chen, Saphra & Cho (arXiv 2308.09543), with diagonal covariances as there, but of the
    columns' leading principal components, whitened, since correlated columns are no independent evidence. Columns are
    z-scored and components taken over all series together, so that a state means the same in each. Noise that
    is autocorrelated gets several states, so the number of states is no number of phases.
    """
    if most_states < 1:
        raise PhasegraphError(f"most_states {most_states} leaves no state; take at least 1")
    many = [series] if isinstance(series, np.ndarray) and series.ndim == 2 else list(series)
    shapes = [np.shape(one) for one in many]
    if {len(shape) for shape in shapes} != {2} or len({shape[1] for shape in shapes}) > 1:
        raise PhasegraphError(f"series of shapes {shapes} share no columns; give [n, d] each, with the same d")
    lengths = [n for n, _ in shapes]
    if min(lengths) < 2:
        raise PhasegraphError(f"a series of {min(lengths)} points has no path of states; give at least 2")
    points = np.split(_components(z_scored(np.concatenate(many))), np.cumsum(lengths)[:-1])  # each [n, components]
    leave_out = len(many) >= LEAST_FOR_HELD_OUT
    numbers = (sum(lengths) - leave_out * max(lengths)) * points[0].shape[1]  # the fewest that a model is fitted to
    counts = [k for k in range(1, most_states + 1) if _parameters(k, points[0].shape[1]) <= numbers]
    with _silence():
        models = {k: _fit(points, k, seed) for k in counts}
        bic = {k: float(model.bic(np.concatenate(points), lengths)) for k, model in models.items()}
        held_out = {k: _held_out(points, k, seed) for k in counts} if leave_out else None
        chosen = max(held_out, key=held_out.__getitem__) if held_out else min(bic, key=bic.__getitem__)
        path = models[chosen].predict(np.concatenate(points), lengths)
    order = list(dict.fromkeys(path.tolist()))  # by first appearance, since numbers of states have no meaning
    states = np.split(np.array([order.index(state) for state in path]), np.cumsum(lengths)[:-1])
    return TrainingMap(tuple(tuple(one.tolist()) for one in states), chosen, bic, held_out)


def others(series: np.ndarray, steps: Sequence[int] | np.ndarray, min_size: int, seed: int = 0) -> dict[str, dict]:
    """Apply every method to one series and date what it says.

    Parameters
    ----------
    series
        [n, d], the series that the change tests see.
    steps
        [n], training step of each point.
    min_size
        Least number of points in a regime; the training map knows none.
    seed
        Of the training map's starts.

    Returns
    -------
    dict
        ``pelt``, ``pelt_long_run`` and ``kernel``: name, detail and ``steps``, the first step of every new regime.
        ``hmm``: name, detail, ``states`` (one per point), ``steps`` (the first step of every visit to a state, and so
        at least the first of all), ``chosen`` (number of states) and ``bic``.

    Raises
    ------
    PhasegraphError
        If the series is not what `pelt` takes, or steps are not one per point.
    """
    steps = np.asarray(steps)
    if len(steps) != len(series):
        raise PhasegraphError(f"{len(steps)} steps for {len(series)} points; give one per point")
    d = np.shape(series)[-1]
    found: dict[str, dict] = {}
    for key, method, name, detail in (
        ("pelt", pelt, "PELT", f"least squares of z-scored columns, penalty {d + 1} ln n (BIC)"),
        ("pelt_long_run", pelt_long_run, "PELT, long-run variance", f"columns scaled by it, penalty {d + 1} ln n"),
        ("kernel", kernel, "KernelCPD", f"Gaussian kernel of median width, penalty {KERNEL_PENALTY:g}"),
    ):
        found[key] = {"name": name, "detail": detail, "steps": steps[method(series, min_size)].tolist()}
    fitted = training_map(series, seed=seed)
    states = np.array(fitted.states[0])
    found["hmm"] = {
        "name": "Gaussian HMM",
        "detail": f"diagonal covariances, up to {COMPONENTS} whitened components, number of states by BIC",
        "states": states.tolist(),
        "steps": steps[np.flatnonzero(np.diff(states, prepend=-1))].tolist(),
        "chosen": fitted.chosen,
        "bic": fitted.bic,
    }
    return found


def _regimes(series: np.ndarray, min_size: int) -> np.ndarray:
    """Z-score the columns of a series that two regimes fit in."""
    if min_size < 2:
        raise PhasegraphError(f"min_size {min_size} is too small; a regime needs at least 2 points")
    if len(series) < 2 * min_size:
        raise PhasegraphError(f"{len(series)} points are too few; {2 * min_size} are needed (twice min_size)")
    return z_scored(series)


def _penalty(n: int, d: int) -> float:
    """BIC asks ln n per fitted number: d means and a place."""
    return float((d + 1) * np.log(n))


def _segment(name: str, scaled: np.ndarray, min_size: int, penalty: float) -> list[int]:
    ends = KernelCPD(name, min_size=min_size).fit(scaled).predict(pen=penalty)
    return [int(end) for end in ends[:-1]]  # the last is the end of the series


def _components(scaled: np.ndarray) -> np.ndarray:
    """Leading principal components [n, COMPONENTS or fewer], each of unit variance."""
    left, spread, _ = np.linalg.svd(scaled, full_matrices=False)
    known = (spread > 1e-6 * spread[0]).sum()  # whitening must not blow rounding errors up
    return left[:, : min(COMPONENTS, known)] * np.sqrt(len(scaled))


def _parameters(states: int, d: int) -> int:
    """Free numbers of a model: first state, transitions, means and variances."""
    return states - 1 + states * (states - 1) + 2 * states * d


def _fit(points: Sequence[np.ndarray], states: int, seed: int) -> GaussianHMM:
    """Fit from several starts and keep the likeliest."""
    together, lengths = np.concatenate(points), [len(one) for one in points]
    best, likelihood = None, -np.inf
    for start in range(1 if states == 1 else STARTS):
        model = GaussianHMM(states, "diag", n_iter=ROUNDS, init_params="", implementation="scaling", **PRIORS)
        model.startprob_ = np.full(states, 1 / states)
        model.transmat_ = np.full((states, states), 0.1 / states) + 0.9 * np.eye(states)
        rng = np.random.default_rng([seed, states, start])
        model.means_ = together[rng.choice(len(together), states, replace=False)]
        model.covars_ = np.ones_like(model.means_)
        try:
            model.fit(together, lengths)
        except ValueError:  # a point that is all but impossible in every state: only logarithms of it are numbers
            model.implementation = "log"
            model.fit(together, lengths)
        model.implementation = "log"  # twice as slow, but for series that it has not seen
        found = model.score(together, lengths)
        if best is None or found > likelihood:
            best, likelihood = model, found
    return best


def _held_out(points: Sequence[np.ndarray], states: int, seed: int) -> float:
    """Log-likelihood per point of each series under the model of all others, averaged over the points."""
    total = 0.0
    for k, left_out in enumerate(points):
        total += _fit([one for i, one in enumerate(points) if i != k], states, seed).score(left_out)
    return total / sum(len(one) for one in points)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep hmmlearn's remarks on convergence off the log: many starts are there because some of them go astray."""
    log = logging.getLogger("hmmlearn.base")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before

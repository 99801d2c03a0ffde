"""Tests of `phasegraph.phases.others` (about 20 s on one core)."""

import logging
import warnings
from itertools import pairwise

import numpy as np
import pytest
from planted_series import noise
from scipy.stats import binom, multivariate_normal

from phasegraph.errors import PhasegraphError
from phasegraph.phases.others import kernel, long_run_variance, others, pelt, pelt_long_run, training_map

SEGMENTERS = [pelt, pelt_long_run, kernel]
LEVELS = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, -1, -1]])
TRUTH = np.repeat([0, 1, 2, 0], 25)  # the first state comes back


def z_scored(series):
    return (series - series.mean(0)) / series.std(0)


def squares(series, boundaries):
    """Sum of squares about the means of the segments."""
    parts = pairwise([0, *boundaries, len(series)])
    return sum(((series[a:b] - series[a:b].mean(0)) ** 2).sum() for a, b in parts)


def optimal(series, min_size, penalty):
    """Boundaries of the best of all segmentations: dynamic programming over every last segment, nothing pruned."""
    n = len(series)
    best, last = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=int)
    best[0] = -penalty
    for stop in range(min_size, n + 1):
        starts = np.arange(stop - min_size + 1)
        costs = [best[start] + penalty + squares(series[start:stop], []) for start in starts]
        best[stop], last[stop] = np.min(costs), starts[np.argmin(costs)]
    boundaries, stop = [], n
    while last[stop]:
        stop = int(last[stop])
        boundaries.insert(0, stop)
    return boundaries


@pytest.mark.parametrize("method", SEGMENTERS)
@pytest.mark.parametrize("seed", range(3))
def test_planted_shifts_are_found_exactly(method, seed):
    series = noise(np.random.default_rng([1, seed]), 120, 6)
    series[30:] += 6
    series[80:, :3] -= 6
    assert method(series * [1, 1e-6, 1e6, 1, 1, 1] + 5, 5) == [30, 80]


@pytest.mark.parametrize("method", SEGMENTERS)
def test_a_regime_may_be_as_short_as_min_size_and_no_shorter(method):
    series = 0.1 * noise(np.random.default_rng(2), 60, 4)
    series[54:] += 9
    assert method(series, 6) == [54]
    assert all(len(series) - boundary >= 7 for boundary in method(series, 7))


def test_pelt_is_the_best_of_all_segmentations():
    found = []
    for run in range(40):
        rng = np.random.default_rng([3, run])
        n, d, min_size = int(rng.integers(12, 50)), int(rng.integers(1, 5)), int(rng.integers(2, 6))
        series = noise(rng, n, d).cumsum(0)
        found.append(pelt(series, min_size))
        assert found[-1] == optimal(z_scored(series), min_size, (d + 1) * np.log(n))
    assert len({len(boundaries) for boundaries in found}) > 2  # not all of the same kind


def test_scaled_pelt_is_the_best_segmentation_of_scaled_columns():
    for run in range(15):
        series = noise(np.random.default_rng([4, run]), 60, 3, ar=0.3)
        series[30:, :2] += 4
        scaled = z_scored(series) / np.sqrt(long_run_variance(z_scored(series)))
        assert pelt_long_run(series, 5) == optimal(scaled, 5, 4 * np.log(60))


@pytest.mark.parametrize("ar", [0.0, 0.3, 0.6])
def test_long_run_variance_is_that_of_the_mean_and_blind_to_shifts(ar):
    """Times n, it is the variance of the mean of n points; in closed form, of unit variance, (1 + ar) / (1 - ar)."""
    series = noise(np.random.default_rng(5), 40000, 4, ar=ar, correlation=0)
    expected = (1 + ar) / (1 - ar)
    assert long_run_variance(series) == pytest.approx(np.full(4, expected), rel=0.1)
    series[20000:] += 10
    assert long_run_variance(series) == pytest.approx(np.full(4, expected), rel=0.1)


def test_white_noise_has_no_boundary():
    """The level of BIC's penalty for d = 10 and n = 143 is about 3 %; more than 9 of 60 are chance once in 10 000."""
    most = int(binom.ppf(0.9999, 60, 0.05))
    for method in SEGMENTERS:
        assert sum(bool(method(noise(np.random.default_rng([6, run]), 143, 10), 5)) for run in range(60)) <= most


def test_autocorrelated_noise_makes_plain_pelt_fire_and_scaling_stops_it():
    """Why no conclusion rests on them: there is no change in these series."""
    runs = [noise(np.random.default_rng([7, run]), 143, 10, ar=0.5) for run in range(30)]
    assert sum(bool(pelt(series, 5)) for series in runs) > 20
    assert sum(bool(pelt_long_run(series, 5)) for series in runs) <= int(binom.ppf(0.9999, 30, 0.05))


def test_smooth_drift_makes_all_of_them_fire():
    drift = 6 / (1 + np.exp(-np.linspace(-5, 5, 143)))[:, None]
    for method in SEGMENTERS:
        assert all(method(drift + noise(np.random.default_rng([8, run]), 143, 6), 5) for run in range(10))


def test_autocorrelated_noise_makes_the_training_map_see_states():
    """White noise is one state, so it is the memory that is split; there is no change in either."""
    split = {}
    for ar in (0.0, 0.5):
        runs = [noise(np.random.default_rng([9, run]), 143, 10, ar=ar) for run in range(8)]
        split[ar] = sum(training_map(series, most_states=2).chosen > 1 for series in runs)
    assert split[0.0] <= 1
    assert split[0.5] >= 3


@pytest.mark.parametrize("seed", range(2))
def test_training_map_recovers_planted_states(seed):
    fitted = training_map(
        4 * LEVELS[TRUTH] + noise(np.random.default_rng([10, seed]), 100, 4, correlation=0), seed=seed
    )
    assert fitted.chosen == 3
    assert fitted.states == (tuple(TRUTH.tolist()),)
    assert fitted.held_out is None
    assert min(fitted.bic, key=fitted.bic.get) == 3


def test_one_state_is_one_normal_distribution():
    """Then BIC has a closed form, but for hmmlearn's prior, which moves a variance of 1 by .01 / n."""
    series = noise(np.random.default_rng(11), 50, 2)
    points = z_scored(series)
    points = points @ np.linalg.eigh(np.cov(points.T, bias=True))[1]
    points /= points.std(0)
    likelihood = multivariate_normal(np.zeros(2), np.eye(2)).logpdf(points).sum()
    assert training_map(series, most_states=1).bic == pytest.approx({1: 4 * np.log(50) - 2 * likelihood}, abs=1e-3)


def test_states_are_chosen_by_series_left_out_and_mean_the_same_in_each():
    truths = [TRUTH, TRUTH[10:], np.repeat([0, 1, 2, 0], 20)]
    series = [
        4 * LEVELS[truth] + noise(np.random.default_rng([12, k]), len(truth), 4, correlation=0)
        for k, truth in enumerate(truths)
    ]
    fitted = training_map(series, most_states=4)
    assert fitted.chosen == 3 == max(fitted.held_out, key=fitted.held_out.get)
    assert fitted.states == tuple(tuple(truth.tolist()) for truth in truths)
    assert list(training_map([series[0], series[1][:3], series[2][:3]]).bic) == [1, 2]  # few are left without the first
    two = training_map(series[:2], most_states=3)
    assert two.held_out is None and two.states == fitted.states[:2]


def test_a_point_that_no_state_can_explain_is_one_of_its_own():
    """From where the search starts, its likelihood is exp(-900): only the logarithm of that is a number."""
    series = noise(np.random.default_rng(15), 2000, 2, correlation=0)
    series[1000] += 1e4
    fitted = training_map(series, most_states=2)
    assert np.flatnonzero(fitted.states[0]).tolist() == [1000]


def test_same_answer_again_and_no_trace_outside():
    series = noise(np.random.default_rng(13), 80, 5, ar=0.8)
    np.random.seed(1)
    state = np.random.get_state()[1].tolist()
    filters, disabled = list(warnings.filters), logging.getLogger("hmmlearn.base").disabled
    first = others(series, np.arange(80), 5, seed=3)
    np.random.seed(2)
    assert others(series, np.arange(80), 5, seed=3) == first
    np.random.seed(1)
    training_map(series, most_states=2)
    assert np.random.get_state()[1].tolist() == state
    assert (list(warnings.filters), logging.getLogger("hmmlearn.base").disabled) == (filters, disabled)


def test_others_dates_what_the_methods_say():
    series = 6 * LEVELS[TRUTH] + noise(np.random.default_rng(14), 100, 4)
    steps = 1000 + 8 * np.arange(100)
    found = others(series, steps, 5)
    starts = [1000 + 8 * index for index in (25, 50, 75)]
    assert {key: found[key]["steps"] for key in ("pelt", "kernel")} == {"pelt": starts, "kernel": starts}
    assert found["pelt_long_run"]["steps"] == [steps[index] for index in pelt_long_run(series, 5)]
    assert found["hmm"]["steps"] == [1000, *starts]
    assert found["hmm"]["states"] == TRUTH.tolist()
    assert found["hmm"]["chosen"] == 3 and list(found["hmm"]["bic"]) == [1, 2, 3, 4, 5]
    assert all(row["name"] and row["detail"] for row in found.values())


@pytest.mark.parametrize(
    "series",
    [
        pytest.param(noise(np.random.default_rng(15), 12, 10), id="twelve points"),
        pytest.param(np.repeat([[0.0, 1.0], [3.0, 2.0]], 6, axis=0), id="no noise at all"),
        pytest.param(noise(np.random.default_rng(16), 30, 1) * [[1.0, 2.0, -1.0]], id="one column thrice"),
        pytest.param(np.eye(40)[:, [20]], id="one point apart"),
        pytest.param(np.arange(40.0)[:, None] ** 3, id="a ramp"),
        pytest.param(np.random.default_rng(17).standard_cauchy((40, 3)), id="outliers"),
    ],
)
def test_awkward_series_are_handled_in_silence(series, recwarn, caplog):
    found = others(series, np.arange(len(series)), 5)
    assert len(found["hmm"]["states"]) == len(series)
    assert np.isfinite(list(found["hmm"]["bic"].values())).all()
    assert found["hmm"]["chosen"] == min(found["hmm"]["bic"], key=found["hmm"]["bic"].get)
    for key in ("pelt", "pelt_long_run", "kernel"):
        assert all(stop - start >= 5 for start, stop in pairwise([0, *found[key]["steps"], len(series)]))
    assert not recwarn.list and not caplog.records


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda series: pelt(series[:9], 5), "9 points are too few; 10 are needed"),
        (lambda series: pelt_long_run(series, 1), "min_size 1 is too small"),
        (lambda series: kernel(series[:, 0], 5), "1 dimensions"),
        (lambda series: pelt(np.c_[series, np.full(20, 0.1)], 5), "column 2 of the series is constant"),
        (lambda series: training_map(np.c_[np.full(20, 0.1), series]), "column 0 of the series is constant"),
        (lambda series: kernel(np.where(np.arange(20)[:, None] == 7, np.nan, series), 5), "point 7, column 0"),
        (lambda series: training_map([series, series[:, :1]]), "share no columns"),
        (lambda series: training_map([]), "share no columns"),
        (lambda series: training_map([series, series[:1]]), "series of 1 points"),
        (lambda series: training_map(series, most_states=0), "most_states 0"),
        (lambda series: others(series, np.arange(19), 5), "19 steps for 20 points"),
    ],
)
def test_mistakes_are_told_in_one_line(call, words):
    with pytest.raises(PhasegraphError, match=words) as error:
        call(noise(np.random.default_rng(18), 20, 2))
    assert "\n" not in str(error.value)

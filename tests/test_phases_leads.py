"""Tests of `phasegraph.phases.leads` and `phasegraph.phases.lags` (about 10 s on one core).

Levels are asserted with the 99.9 % quantile of the binomial distribution of false alarms, powers with its 0.1 %
quantile at less than what benchmarks/leads.py measures.
"""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.phases.lags import (
    cross_correlations,
    peak,
    phase_randomised,
    remainder,
    resampled_lags,
    timing_p,
)
from phasegraph.phases.leads import (
    behaviour_speed,
    lead_lag,
    least_checkpoints,
    structure_speed,
    trends,
)
from phasegraph.phases.rates import FLOOR
from phasegraph.phases.steps import trend_basis
from phasegraph.types import GROUPS

N, RUNS, LEVEL = 145, 60, 0.05
MOST_FALSE_ALARMS = int(binom.ppf(0.999, RUNS, LEVEL))  # 9 of 60


def noise(rng, ar=0.0):
    """Unit-variance noise [N]."""
    return np.sqrt(1 - ar**2) * lfilter([1.0], [1.0, -ar], rng.standard_normal(N + 100))[100:]


def pace(rng, jitter=0.0):
    """Displacements [N] that fall with the learning rate."""
    return (0.13 + 0.87 * (1 + np.cos(np.pi * np.linspace(0, 1, N))) / 2) * np.exp(jitter * rng.standard_normal(N))


def bump(centre, width=3.0):
    return np.exp(-0.5 * ((np.arange(N) - centre) / width) ** 2)


def bursts(rng, first, second, sd=1.0):
    """A structure that is fast around one checkpoint, and a loss that falls around another."""
    moved = pace(rng)
    distances = moved * (0.3 + bump(first)) * np.exp(0.3 * sd * noise(rng, 0.3))
    return distances, (moved * (0.5 * sd * noise(rng) - 0.1 - 2 * bump(second))).cumsum(), moved.cumsum()


def autocorrelated(rng):
    moved = pace(rng)
    first, second = (np.exp(0.5 * noise(rng, 0.8)) for _ in range(2))
    return moved * first, -(moved * second).cumsum(), moved.cumsum()


def walks(rng):
    moved = pace(rng)
    return moved * np.abs(noise(rng)), (moved * noise(rng)).cumsum(), moved.cumsum()


def unscaled(rng):
    """Changes that are the same however far the weights went, which varies."""
    return np.exp(0.3 * noise(rng, 0.3)), noise(rng).cumsum(), pace(rng, 0.5).cumsum()


def fast_at_first(rng):
    moved, decay = pace(rng), 3 * np.exp(-np.arange(N) / 3)
    distances = moved * (0.3 + decay) * np.exp(0.3 * noise(rng, 0.3))
    return distances, (moved * (0.5 * noise(rng) - 0.1 - 2 * decay)).cumsum(), moved.cumsum()


@pytest.mark.parametrize("make", [autocorrelated, walks, unscaled, fast_at_first])
def test_unrelated_series_have_no_lead(make):
    found = [lead_lag(*make(np.random.default_rng([1, run])), surrogates=99, seed=run) for run in range(RUNS)]
    assert sum(one.p_value <= LEVEL for one in found) <= MOST_FALSE_ALARMS


def test_unrelated_events_are_told_by_their_timing_alone():
    p_values = []
    for run in range(RUNS):
        rng = np.random.default_rng([2, run])
        one = lead_lag(*bursts(rng, *rng.uniform(0, N, 2)), surrogates=99, seed=run)
        p_values.append((one.p_value, one.p_timing))
    assert (np.max(p_values, axis=1) <= LEVEL).sum() <= MOST_FALSE_ALARMS


@pytest.mark.parametrize("lag", [-8, -4, 0, 4, 8])
def test_planted_lags_are_recovered(lag):
    found = []
    for run in range(20):
        rng = np.random.default_rng([3, run])
        centre = rng.uniform(40, 105)
        found.append(lead_lag(*bursts(rng, centre, centre + lag), surrogates=99, seed=run))
    assert abs(np.median([one.lag for one in found]) - lag) < 1
    assert sum(abs(one.lag - lag) <= 3 for one in found) >= binom.ppf(0.001, 20, 0.8)
    assert sum(one.p_value <= LEVEL for one in found) >= binom.ppf(0.001, 20, 0.75)
    assert sum(one.low <= lag <= one.high for one in found) >= binom.ppf(0.001, 20, 0.9)


@pytest.mark.parametrize("lag", [-7, 0, 5])
def test_a_behaviour_that_copies_the_structure_is_found_exactly(lag):
    """White speeds whose copies are late; the displacement is even, so that there is nothing to divide by."""
    rng = np.random.default_rng(4)
    speed = np.exp(0.2 * rng.standard_normal(N + 20))
    early, late = speed[10 : N + 10], speed[10 - lag : N + 10 - lag]
    found = lead_lag(early, np.cumsum(late), np.arange(1.0, N + 1))
    assert abs(found.lag - lag) < 0.5
    assert found.correlation > 0.8
    assert found.p_value == 1 / 1000
    assert found.p_timing == (2 * abs(lag) + 1) / (N - 1)
    assert max(found.high - lag, lag - found.low) < 1


def test_speeds_are_those_of_the_definition():
    axis = np.array([0.0, 1.0, 3.0, 3.5])
    moved = np.diff(axis)
    np.testing.assert_allclose(structure_speed(np.array([np.nan, 2.0, 2.0, 0.0]), moved)[:2], np.log([2.0, 1.0]))
    floored = structure_speed(np.array([np.nan, 2.0, 2.0, -1.0]), moved)[2]
    np.testing.assert_allclose(floored, np.log(FLOOR * 2.0 / 0.5))
    np.testing.assert_allclose(behaviour_speed(np.array([5.0, 1.0, 3.0, 3.0]), moved), [2.0, 1.0, 0.0])


def test_units_do_not_matter():
    distances, levels, axis = bursts(np.random.default_rng(5), 60, 64)
    here = lead_lag(distances, levels, axis, surrogates=99)
    there = lead_lag(7 * distances, 3 - 2 * levels, 5 * axis + 11, surrogates=99)
    np.testing.assert_allclose([*vars(here).values()][:-1], [*vars(there).values()][:-1], rtol=1e-6)


def test_trends_hold_what_unrelated_quantities_share():
    axis = pace(np.random.default_rng(6), 0.3).cumsum()
    trend = trends(axis)
    assert trend.shape == (N - 1, 6)
    np.testing.assert_allclose(trend.T @ trend, np.eye(6), atol=1e-10)
    for column in (np.log(np.diff(axis)), *trend_basis("spline", axis[1:], knots=2).T):
        np.testing.assert_allclose(trend @ (trend.T @ column), column, atol=1e-6 * np.abs(column).max())
    assert trends(np.linspace(0, 3, N)).shape == (N - 1, 5)  # the displacement is constant there


def test_displacement_alone_makes_speeds_correlate():
    """Why it is among the trends: a spline along the arc length does not see an uneven pace."""
    distances, levels, axis = unscaled(np.random.default_rng(7))
    moved = np.diff(axis)
    spline = np.linalg.qr(trend_basis("spline", axis[1:], knots=2))[0]
    for trend, expected in ((spline, 0.3), (trends(axis), 0.1)):
        x = remainder(structure_speed(distances, moved), trend)
        y = remainder(behaviour_speed(levels, moved), trend)
        assert (x @ y > expected) == (trend is spline)


def test_remainder_is_what_least_squares_leaves():
    rng = np.random.default_rng(8)
    regressors, series = rng.standard_normal((30, 4)), rng.standard_normal((3, 30))
    trend = np.linalg.qr(regressors)[0]
    left = series.T - regressors @ np.linalg.lstsq(regressors, series.T, rcond=None)[0]
    np.testing.assert_allclose(remainder(series, trend), (left / np.linalg.norm(left, axis=0)).T, atol=1e-12)
    assert np.isnan(remainder(regressors[:, 1], trend)).all()


def test_cross_correlations_are_sums_over_the_overlap():
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((2, 3, 20))
    expected = [
        [sum(x[k, i] * y[k, i + lag] for i in range(20) if 0 <= i + lag < 20) for lag in range(-6, 7)] for k in range(3)
    ]
    np.testing.assert_allclose(cross_correlations(x, y, 6), expected)
    np.testing.assert_allclose(cross_correlations(x[0], y[0], 6), expected[0])
    np.testing.assert_allclose(cross_correlations(x, y[0], 6)[0], expected[0])


def test_peak_is_the_vertex_of_a_parabola():
    lags = np.arange(-5, 6)
    vertices = np.array([-3.4, -0.1, 0.0, 2.3, 4.2])
    np.testing.assert_allclose(peak(1 - 0.01 * (lags - vertices[:, None]) ** 2), vertices, atol=1e-12)
    np.testing.assert_array_equal(peak(np.stack([lags, -lags]).astype(float)), [5, -5])
    assert np.isnan(peak(np.full(11, np.nan)))


@pytest.mark.parametrize("n", [40, 41])
def test_surrogates_have_the_power_spectrum(n):
    rng = np.random.default_rng(10)
    series = rng.standard_normal(n)
    fakes = phase_randomised(series, 5, rng)
    power = np.abs(np.fft.rfft(fakes))[:, 1:]
    np.testing.assert_allclose(power, np.tile(np.abs(np.fft.rfft(series))[1:], (5, 1)))
    assert np.abs(np.corrcoef(fakes) - np.eye(5)).max() < 0.8


@pytest.mark.parametrize("lag", [-6, 0, 4])
def test_one_event_in_either_series_is_as_likely_as_its_lag_is_small(lag):
    x, y = np.zeros((2, 50))
    x[20], y[20 + lag] = 1, 1
    assert timing_p(x, y, abs(lag)) == (2 * abs(lag) + 1) / 50


def test_timing_is_that_of_all_circular_shifts():
    x, y = np.random.default_rng(11).standard_normal((2, 30))
    largest = [max(np.roll(x, shift + lag) @ y for lag in range(-2, 3)) for shift in range(30)]
    assert timing_p(x, y, 2) == pytest.approx(np.mean(largest >= largest[0] - 1e-9))


def test_the_bootstrap_of_a_copy_does_not_move():
    rng = np.random.default_rng(12)
    x = rng.standard_normal(300)
    lags = resampled_lags(x, np.roll(x, 3), 8, 50, rng)
    assert np.abs(lags - 3).max() < 0.5
    assert len(np.unique(lags)) > 1


def replicated(seed):
    """Estimates and replicates of distances and levels, and the axis."""
    rng = np.random.default_rng(seed)
    distances, levels, axis = bursts(rng, 60, 63, sd=0.5)
    groups = [
        distances * np.exp(0.2 * rng.standard_normal((GROUPS, N))),
        levels + 0.2 * rng.standard_normal((GROUPS, N)),
    ]
    return [of.mean(0) for of in groups], [(of.sum(0) - of) / (GROUPS - 1) for of in groups], axis


def test_prompt_error_is_the_jackknife_of_the_lags():
    estimates, left_out, axis = replicated(13)
    options = {"surrogates": 99, "seed": 2}
    found = lead_lag(*estimates, axis, structure_replicates=left_out[0], behaviour_replicates=left_out[1], **options)
    alone = [lead_lag(*one, axis, surrogates=1).lag for one in zip(*left_out, strict=True)]
    expected = delete_group(np.array([found.lag, *alone])).standard_error
    assert found.prompt_error == pytest.approx(expected, rel=1e-6)
    assert found.prompt_error > 0
    plain = lead_lag(*estimates, axis, **options)
    assert plain.prompt_error is None
    assert (plain.lag, plain.p_value) == (found.lag, found.p_value)
    assert found.low < plain.low
    assert plain.high < found.high


def test_one_side_without_replicates_counts_as_noiseless():
    estimates, left_out, axis = replicated(14)
    alone = lead_lag(*estimates, axis, behaviour_replicates=left_out[1], surrogates=99)
    same = np.tile(estimates[0], (GROUPS, 1))
    both = lead_lag(*estimates, axis, structure_replicates=same, behaviour_replicates=left_out[1], surrogates=99)
    assert alone == both


def test_a_constant_replicate_leaves_no_interval():
    estimates, left_out, axis = replicated(15)
    left_out[1][4] = 1.0
    found = lead_lag(*estimates, axis, behaviour_replicates=left_out[1], surrogates=99)
    assert (found.low, found.high, found.prompt_error) == (None, None, None)
    assert np.isfinite([found.lag, found.p_value]).all()


def test_the_seed_decides():
    scene = walks(np.random.default_rng(16))
    assert lead_lag(*scene, surrogates=99, seed=3) == lead_lag(*scene, surrogates=99, seed=3)
    assert len({lead_lag(*scene, surrogates=99, seed=seed).p_value for seed in range(5)}) > 1


def changed(index, place, value):
    scene = [np.array(of) for of in walks(np.random.default_rng(17))]
    scene[index][place] = value
    return scene


@pytest.mark.parametrize(
    ("scene", "options", "message"),
    [
        pytest.param(changed(0, 7, np.nan), {}, "structure is missing at checkpoint 7", id="hole in structure"),
        pytest.param(changed(1, 0, np.inf), {}, "behaviour is missing at checkpoint 0", id="hole in behaviour"),
        pytest.param(changed(2, 9, np.nan), {}, "axis is missing at checkpoint 9", id="hole in axis"),
        pytest.param(changed(2, 9, 0.0), {}, "axis does not grow at checkpoint 9", id="no displacement"),
        pytest.param(changed(0, slice(None), 0.0), {}, "structure never changes", id="no change of structure"),
        pytest.param(changed(1, slice(None), 0.5), {}, "behaviour never changes", id="no change of behaviour"),
        pytest.param([of[:45] for of in changed(0, 0, 1)], {}, "45 checkpoints are too few.* need 46", id="short"),
        pytest.param([of[i:] for i, of in enumerate(changed(0, 0, 1))], {}, "structure has shape", id="unequal"),
        pytest.param(changed(0, 0, 1), {"max_lag": 0}, "max_lag is 0", id="no lags"),
        pytest.param(changed(0, 0, 1), {"surrogates": 0}, "surrogates is 0", id="no surrogates"),
        pytest.param(
            changed(0, 0, 1),
            {"behaviour_replicates": np.ones((3, N))},
            "behaviour_replicates has shape",
            id="replicates",
        ),
        pytest.param(
            changed(0, 0, 1),
            {"structure_replicates": np.full((GROUPS, N), np.nan)},
            "structure_replicates is missing at checkpoint 1",
            id="hole in replicates",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(scene, options, message):
    with pytest.raises(PhasegraphError, match=message) as caught:
        lead_lag(*scene, **options)
    assert "\n" not in str(caught.value)


def test_the_first_distance_is_ignored_and_the_shortest_run_will_do():
    scene = [of[: least_checkpoints()] for of in changed(0, 0, np.nan)]
    other = [of[: least_checkpoints()] for of in changed(0, 0, 5.0)]
    assert lead_lag(*scene, surrogates=99) == lead_lag(*other, surrogates=99)

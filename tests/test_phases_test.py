"""Tests of `phasegraph.phases.test` (about 65 s on one core).

The level of the change test is asserted with the 99.9 % quantile of the binomial distribution of false alarms: a test
that holds its level fails such a check once in a thousand seeds, and the seeds are fixed.
"""

from pathlib import Path

import numpy as np
import pytest
from planted_series import noise
from scipy.stats import binom

from phasegraph.errors import PhasegraphError
from phasegraph.phases.steps import step_functions
from phasegraph.phases.test import NULLS, phase_test

NILE = Path(__file__).parent / "known" / "nile.csv"
RUNS, LEVEL = 50, 0.05
MOST_FALSE_ALARMS = int(binom.ppf(0.999, RUNS, LEVEL))  # 8 of 50
RAMP = np.arange(20.0)[:, None]


def alarms(make, runs=RUNS, **options):
    """How often the test finds a change in series that have none."""
    count = 0
    for run in range(runs):
        series = make(np.random.default_rng([11, run]))
        count += bool(phase_test(series, alpha=LEVEL, bootstraps=99, max_changes=1, seed=run, **options).boundaries)
    return count


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda rng: noise(rng, 80, 6), id="independent"),
        pytest.param(lambda rng: noise(rng, 80, 6, ar=0.5), id="autocorrelated"),
        pytest.param(lambda rng: noise(rng, 143, 6, ar=(0.6, 0.25)), id="second order"),
        pytest.param(lambda rng: noise(rng, 80, 6) * np.geomspace(10, 1, 80)[:, None], id="variance falls tenfold"),
        pytest.param(lambda rng: rng.standard_t(3, (80, 6)), id="heavy tails"),
        pytest.param(lambda rng: noise(rng, 80, 1, ar=0.5), id="one column"),
        pytest.param(lambda rng: np.c_[noise(rng, 80, 5), noise(rng, 80, 1, ar=0.9)], id="unequal memory"),
    ],
)
def test_constant_null_holds_its_level(make):
    assert alarms(make) <= MOST_FALSE_ALARMS


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda rng, x: noise(rng, 80, 6, ar=0.5) + 6 * np.exp(-4 * x), id="exponential decay"),
        pytest.param(lambda rng, x: noise(rng, 80, 6, ar=0.5) + 6 * x**2, id="parabola"),
        pytest.param(lambda rng, x: noise(rng, 80, 6, ar=0.5) + 6 / (1 + np.exp(-10 * (x - 0.5))), id="sigmoid"),
        pytest.param(lambda rng, x: noise(rng, 80, 6).cumsum(0), id="random walk"),
    ],
)
def test_spline_null_holds_its_level_on_smooth_drift(make):
    x = np.linspace(0, 1, 80)[:, None]
    assert alarms(lambda rng: make(rng, x), null="spline") <= MOST_FALSE_ALARMS


def test_constant_null_takes_drift_for_change():
    """The reason why test B exists."""
    x = np.linspace(0, 1, 80)[:, None]
    assert alarms(lambda rng: noise(rng, 80, 6) + 6 / (1 + np.exp(-10 * (x - 0.5))), runs=20) > 10


@pytest.mark.parametrize(("null", "drift"), [("constant", 0.0), ("spline", 4.0)])
def test_two_planted_changes_are_found(null, drift):
    found = 0
    for run in range(10):
        rng = np.random.default_rng([12, run])
        first, second = 35 + rng.integers(-8, 9), 95 + rng.integers(-8, 9)
        steps = step_functions(143, [first, second]) @ (4 * rng.choice([-1.0, 1.0], (2, 8)))
        series = noise(rng, 143, 8) + steps + drift * np.exp(-4 * np.linspace(0, 1, 143))[:, None]
        result = phase_test(series, null=null, bootstraps=99, seed=run)
        found += len(result.boundaries) == 2 and np.abs(np.subtract(result.boundaries, (first, second))).max() <= 5
    assert found >= 8


@pytest.mark.parametrize("sd", [0.0, 0.01, 0.3])
def test_hard_switch_is_found_exactly_however_little_noise_there_is(sd):
    series = np.r_[np.zeros(24), np.ones(24)][:, None] * [1.0, -2.0, 3.0]
    series = series + sd * np.random.default_rng(0).standard_normal((48, 3))
    result = phase_test(series, bootstraps=199)
    assert result.boundaries == (24,)
    assert result.boundary_p_values == (1 / 200,)
    assert result.intervals == ((24, 24),)
    assert result.p_values[1] > 0.01


def test_the_nile_falls_in_1899():
    """A known answer: Cobb, Biometrika 65, 1978, dates the fall between 1898 and 1899."""
    year, volume = np.loadtxt(NILE, delimiter=",", skiprows=2, unpack=True)
    assert len(year) == 100 and volume.sum() == 91935
    result = phase_test(volume[:, None], bootstraps=999)
    assert year[list(result.boundaries)].tolist() == [1899]
    assert result.boundary_p_values[0] <= 0.01
    low, high = year[list(result.intervals[0])]
    assert low <= 1899 <= high <= low + 7


def test_location_intervals_cover_the_change():
    """Of 2 standard deviations in one column."""
    covered = total = 0
    for run in range(150):
        series = noise(np.random.default_rng([13, run]), 100, 1)
        series[50:] += 2
        result = phase_test(series, bootstraps=99, max_changes=1, alpha=0.05, seed=run)
        for low, high in result.intervals:
            total += 1
            covered += low <= 50 <= high
    assert total >= 140
    assert covered >= binom.ppf(0.001, total, 0.9)


@pytest.mark.parametrize(("ar", "order"), [((), 1), ((0.6, 0.25), 2)])
def test_the_noise_has_one_order_whatever_the_null_is(ar, order):
    """Left to its own residuals, the spline's test took a higher order for half of all series."""
    chosen = []
    for run in range(12):
        series = noise(np.random.default_rng([19, run]), 150, 6, ar=ar)
        of = {null: phase_test(series, null=null, bootstraps=19, alpha=LEVEL, max_changes=1).ar for null in NULLS}
        assert len(of["spline"][0]) == len(of["constant"][0])
        chosen.append(len(of["spline"][0]))
    assert chosen.count(order) >= 9  # of 12; about six in seven


def test_the_seed_decides():
    series = noise(np.random.default_rng(14), 60, 3)
    assert phase_test(series, bootstraps=99, seed=3) == phase_test(series, bootstraps=99, seed=3)
    p_values = {phase_test(series, bootstraps=99, seed=seed).p_values for seed in range(5)}
    assert len(p_values) > 1


def test_order_sign_and_units_of_the_columns_do_not_matter():
    rng = np.random.default_rng(28)
    series = noise(rng, 90, 4, ar=(0.4, 0.2)) + step_functions(90, [30, 60]) @ rng.normal(0, 3, (2, 4))
    order, units = [2, 0, 3, 1], np.array([1e-6, -3.0, 1e6, 1.0])
    first = phase_test(series, bootstraps=199)
    second = phase_test((7 + series * units)[:, order], bootstraps=199)
    assert {30, 60} <= set(first.boundaries)
    assert second.boundaries == first.boundaries
    assert second.p_values == first.p_values
    assert second.intervals == first.intervals
    np.testing.assert_allclose(second.ar, np.array(first.ar)[order], rtol=1e-4, atol=1e-6)
    for a, b in zip(first.steps, second.steps, strict=True):
        np.testing.assert_allclose(b.gains, a.gains, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        (np.zeros(20), {}, "dimensions"),
        (np.full((20, 2), np.nan), {}, "point 0, column 0"),
        (np.where(np.arange(20) == 7, np.inf, 1.0)[:, None], {}, "point 7, column 0"),
        (np.c_[np.arange(20.0), np.full(20, 0.1)], {}, "column 1 .* constant"),
        (np.arange(9.0)[:, None], {}, "9 points are too few; 10"),
        (np.arange(15.0)[:, None], {"min_size": 8}, "15 points are too few; 16"),
        (RAMP, {"null": "linear"}, "'linear' is unknown"),
        (RAMP, {"axis": np.zeros(20)}, "axis must hold 20 strictly increasing"),
        (RAMP, {"axis": np.r_[1.0, 0.0, np.arange(2.0, 20.0)]}, "strictly increasing .* sort it"),
        (RAMP, {"axis": np.arange(19.0)}, "axis must hold 20"),
        (RAMP, {"axis": np.r_[np.nan, np.arange(1.0, 20.0)]}, "axis"),
        (RAMP, {"bootstraps": 50}, "50 bootstraps cannot reach alpha 0.01"),
        (RAMP, {"alpha": 1.5}, "alpha"),
        (RAMP, {"min_size": 1}, "min_size 1"),
        (RAMP, {"max_changes": 0}, "max_changes 0"),
    ],
)
def test_wrong_series_are_named(series, options, message):
    with pytest.raises(PhasegraphError, match=message) as error:
        phase_test(series, **options)
    assert "\n" not in str(error.value)

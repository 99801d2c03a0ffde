"""Tests of `phasegraph.phases` (about 70 s on one core).

The level of the change test is asserted with the 99.9 % quantile of the binomial distribution of false alarms: a test
that holds its level fails such a check once in a thousand seeds, and the seeds are fixed.
"""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from scipy.signal import lfilter
from scipy.stats import binom, rankdata, theilslopes

from phasegraph.errors import PhasegraphError
from phasegraph.phases.behaviour import circular_shift_p, near_transition, transition
from phasegraph.phases.labels import label_segments
from phasegraph.phases.rates import FLOOR, moved, rates
from phasegraph.phases.sieve import ar_coefficient, colour, whiten
from phasegraph.phases.steps import candidates, design, gains, relocate, step_functions, trend_basis
from phasegraph.phases.study import Settings, plain, run_study
from phasegraph.phases.tables import PATH_METRICS, WEIGHT_METRICS, read_tables
from phasegraph.phases.test import phase_test

RUNS, LEVEL = 60, 0.05
MOST_FALSE_ALARMS = int(binom.ppf(0.999, RUNS, LEVEL))  # 9 of 60


def noise(rng, n, d, ar=0.0, correlation=0.4):
    """Unit-variance noise [n, d], autocorrelated and cross-correlated."""
    common = np.sqrt(correlation) * rng.standard_normal((n + 100, 1))
    innovations = common + np.sqrt(1 - correlation) * rng.standard_normal((n + 100, d))
    return np.sqrt(1 - ar**2) * lfilter([1.0], [1.0, -ar], innovations, axis=0)[100:]


def alarms(make, **options):
    """How often the test finds a change in series that have none."""
    count = 0
    for run in range(RUNS):
        series = make(np.random.default_rng([11, run]))
        count += bool(phase_test(series, alpha=LEVEL, bootstraps=99, max_changes=1, seed=run, **options).boundaries)
    return count


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda rng: noise(rng, 80, 6), id="independent"),
        pytest.param(lambda rng: noise(rng, 80, 6, ar=0.5), id="autocorrelated"),
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
    assert alarms(lambda rng: make(rng, x), null="spline2") <= MOST_FALSE_ALARMS


def test_constant_null_takes_drift_for_change():
    """The reason why test B exists."""
    x = np.linspace(0, 1, 80)[:, None]
    assert alarms(lambda rng: noise(rng, 80, 6) + 6 / (1 + np.exp(-10 * (x - 0.5)))) > RUNS / 2


@pytest.mark.parametrize(("null", "drift"), [("constant", 0.0), ("spline2", 4.0)])
def test_two_planted_changes_are_found(null, drift):
    found = 0
    for run in range(14):
        rng = np.random.default_rng([12, run])
        first, second = 35 + rng.integers(-8, 9), 95 + rng.integers(-8, 9)
        steps = step_functions(143, [first, second]) @ (4 * rng.choice([-1.0, 1.0], (2, 8)))
        series = noise(rng, 143, 8) + steps + drift * np.exp(-4 * np.linspace(0, 1, 143))[:, None]
        result = phase_test(series, null=null, bootstraps=99, seed=run)
        found += len(result.boundaries) == 2 and np.abs(np.subtract(result.boundaries, (first, second))).max() <= 5
    assert found >= 11  # 92-95 % of such runs in a larger simulation; 11 of 14 has probability .97 or more then


@pytest.mark.parametrize("sd", [0.0, 0.01, 0.3])
def test_hard_switch_is_found_exactly_however_little_noise_there_is(sd):
    series = np.r_[np.zeros(24), np.ones(24)][:, None] * [1.0, -2.0, 3.0]
    series = series + sd * np.random.default_rng(0).standard_normal((48, 3))
    result = phase_test(series, bootstraps=199)
    assert result.boundaries == (24,)
    assert result.boundary_p_values == (1 / 200,)
    assert result.intervals == ((24, 24),)
    assert result.p_values[1] > 0.01


def test_location_intervals_cover_the_change():
    covered = total = 0
    for run in range(40):
        rng = np.random.default_rng([13, run])
        series = noise(rng, 100, 4, correlation=0.0)
        series[50:] += 0.7
        result = phase_test(series, bootstraps=99, max_changes=1, alpha=0.05, seed=run)
        for low, high in result.intervals:
            total += 1
            covered += low <= 50 <= high
    assert total >= 35
    assert covered >= binom.ppf(0.001, total, 0.9)


def test_the_seed_decides():
    series = noise(np.random.default_rng(14), 60, 3)
    assert phase_test(series, bootstraps=99, seed=3) == phase_test(series, bootstraps=99, seed=3)
    p_values = {phase_test(series, bootstraps=99, seed=seed).p_values for seed in range(5)}
    assert len(p_values) > 1


def test_gains_are_those_of_generalised_least_squares():
    """Against residual sums of squares, with the noise's covariance matrix written out."""
    rng = np.random.default_rng(15)
    n, ar = 30, 0.6
    series, trend = rng.standard_normal((n, 3)), trend_basis("spline2", np.linspace(1, 5, n) ** 2)
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    precision = np.linalg.inv(ar**lag / (1 - ar**2))

    def residual(regressors):
        effects = np.linalg.solve(regressors.T @ precision @ regressors, regressors.T @ precision @ series)
        left = series - regressors @ effects
        return np.trace(left.T @ precision @ left)

    model = design(trend, [12])
    splits = candidates(n, [12], 4)
    expected = [residual(model) - residual(design(trend, [12, split])) for split in splits]
    np.testing.assert_allclose(gains(model, splits, series[None], np.full(3, ar))[0].sum(-1), expected, rtol=1e-9)


def test_relocation_finds_the_best_pair():
    rng = np.random.default_rng(16)
    series = rng.standard_normal((40, 2)) + step_functions(40, [12, 27]) @ np.array([[3.0, -3.0], [-3.0, 3.0]])

    def residual(boundaries):
        regressors = design(np.ones((40, 1)), boundaries)
        return np.linalg.norm(series - regressors @ np.linalg.lstsq(regressors, series, rcond=None)[0])

    pairs = [(a, b) for a in range(5, 36) for b in range(a + 5, 36)]
    moved_to = relocate(np.ones((40, 1)), [20, 30], series[None], np.zeros(2), 5)[0]
    assert tuple(moved_to) == min(pairs, key=residual)


def test_candidates_keep_their_distance():
    assert candidates(20, [9], 4).tolist() == [4, 5, 13, 14, 15, 16]
    assert candidates(20, [10], 6).tolist() == []


def test_spline_is_natural_and_smooth():
    axis = np.linspace(0, 1, 4001)
    basis = trend_basis("spline2", axis)
    assert np.linalg.matrix_rank(basis) == 4
    second = np.diff(basis, 2, axis=0) * 4000**2
    assert np.abs(second[[0, -1]]).max() < 0.1  # linear at the ends, up to the width of a cell
    assert np.abs(np.diff(second, axis=0)).max() < 0.1  # no kink in the slope


def test_ar_coefficient_is_unbiased_where_the_raw_one_is_not():
    corrected, raw = [], []
    for run in range(200):
        series = noise(np.random.default_rng([17, run]), 60, 4, ar=0.6)
        trend = trend_basis("spline2", np.arange(60.0))
        left = series - trend @ np.linalg.lstsq(trend, series, rcond=None)[0]
        corrected.append(ar_coefficient(left, 4))
        raw.append((left[1:] * left[:-1]).sum() / (left**2).sum())
    assert abs(np.mean(corrected) - 0.6) < 0.03  # 800 columns, standard error .004
    assert np.mean(raw) < 0.55


def test_whitening_inverts_colouring():
    innovations = np.random.default_rng(18).standard_normal((2, 50, 3))
    ar = np.array([0.7, 0.0, -0.4])
    series = colour(innovations, ar)
    np.testing.assert_allclose(whiten(series, ar), innovations, atol=1e-12)
    np.testing.assert_allclose(series[:, 1:], ar * series[:, :-1] + innovations[:, 1:], atol=1e-12)


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        (np.zeros(20), {}, "dimensions"),
        (np.full((20, 2), np.nan), {}, "point 0, column 0"),
        (np.c_[np.arange(20.0), np.full(20, 0.1)], {}, "column 1 .* constant"),
        (np.arange(9.0)[:, None], {}, "9 points are too few; 10"),
        (np.arange(20.0)[:, None], {"null": "linear"}, "'linear' is unknown"),
        (np.arange(20.0)[:, None], {"axis": np.zeros(20)}, "axis"),
        (np.arange(20.0)[:, None], {"bootstraps": 50}, "cannot reach alpha 0.01"),
        (np.arange(20.0)[:, None], {"alpha": 1.5}, "alpha"),
        (np.arange(20.0)[:, None], {"min_size": 1}, "min_size 1"),
        (np.arange(20.0)[:, None], {"max_changes": 0}, "max_changes 0"),
    ],
)
def test_wrong_series_are_named(series, options, message):
    with pytest.raises(PhasegraphError, match=message):
        phase_test(series, **options)


def test_rates_are_logarithms_of_change_per_displacement():
    steps, arc = np.arange(12) * 4, np.cumsum(np.arange(12.0))
    rng = np.random.default_rng(19)
    level, other, churn = rng.uniform(1, 2, (3, 12))
    level[4] = level[3]  # a tie
    result = rates(steps, arc, {"a": level, "same": 5 - level, "flat": np.ones(12), "b": other}, {"churn": churn})
    assert result.columns == ("churn", "a", "b")
    assert "constant" in result.dropped["flat"]
    assert "of a above" in result.dropped["same"]
    np.testing.assert_array_equal(result.steps, steps[1:])
    np.testing.assert_allclose(np.exp(result.values[:, 0]), churn[1:] / np.arange(1, 12))
    changes = np.abs(np.diff(level))
    changes[3] = FLOOR * np.median(np.delete(changes, 3))
    np.testing.assert_allclose(np.exp(result.values[:, 1]), changes / np.arange(1, 12))


def test_wrong_rates_are_named():
    steps, arc, level = np.arange(12), np.arange(12.0), np.arange(12.0) ** 2
    hole = np.where(steps == 7, np.nan, level)
    with pytest.raises(PhasegraphError, match="gini is missing or infinite at step 7"):
        rates(steps, arc, {"gini": hole})
    with pytest.raises(PhasegraphError, match="step 4 follows step 5"):
        rates(steps[[0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]], arc, {"gini": level})
    with pytest.raises(PhasegraphError, match=r"10 checkpoints are too few: .* need 11"):
        rates(steps[:10], arc[:10], {"gini": level[:10]})
    with pytest.raises(PhasegraphError, match="arc_length does not grow from step 0 to step 1"):
        rates(steps, np.r_[1.0, arc[1:]], {"gini": level})
    with pytest.raises(PhasegraphError, match="churn is negative at step 3"):
        rates(steps, arc, {}, {"churn": np.where(steps == 3, -1.0, 1.0)})
    with pytest.raises(PhasegraphError, match="flat are constant"):
        rates(steps, arc, {"flat": np.ones(12)})
    assert moved(np.array([0.0, 0.0, 1.0, 1.0, 2.0])).tolist() == [True, False, True, False, True]


def film(seed, rewiring, growth, n=144, edges=300):
    """A planted history of edge weights: who influences whom is redrawn at a rate, and concentration grows at a rate.

    Parameters
    ----------
    rewiring, growth
        Functions of the checkpoint: distance that the log weights move, in their standard deviations, and relative
        growth of their spread, both per unit of displacement.

    Returns
    -------
    dict of str to ndarray
        steps, arc_length, metrics and churn of n checkpoints.
    """
    rng = np.random.default_rng([20, seed])
    displacement = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(n) / n)) / 2  # a cosine schedule
    displacement[0] = 0
    logs, spread, history, halves = rng.standard_normal(edges), 0.8, [], []
    for i in range(n):
        share = min(rewiring(i) * displacement[i], 1) ** 2  # metrics move by its root: in proportion to displacement
        logs = np.sqrt(1 - share) * logs + np.sqrt(share) * rng.standard_normal(edges)
        spread *= 1 + growth(i) * displacement[i]
        noisy = np.exp(spread * logs) * np.exp(0.03 * rng.standard_normal((2, edges)))
        history.append(noisy.mean(0))
        halves.append(noisy)
    weights = np.array(history)  # [n, edges]
    ascending = np.sort(weights, axis=1)
    share = weights / weights.sum(1, keepdims=True)
    out, into = weights.reshape(n, 20, 15).sum(2), weights.reshape(n, 20, 15).sum(1)
    rank = np.array([rankdata(row) for row in weights])
    rank_a, rank_b = (np.array([rankdata(half[k]) for half in halves]) for k in (0, 1))
    return {
        "steps": np.arange(n) * 4,
        "arc_length": np.cumsum(displacement),
        "mean_weight": weights.mean(1),
        "gini": gini(weights),
        "gini_sqrt": gini(np.sqrt(weights)),
        "n_eff_entropy": np.exp(-(share * np.log(share)).sum(1)),
        "n_eff_simpson": 1 / (share**2).sum(1),
        "top1_share": ascending[:, -3:].sum(1) / weights.sum(1),
        "top10_share": ascending[:, -30:].sum(1) / weights.sum(1),
        "gini_out_strength": gini(out),
        "gini_in_strength": gini(into),
        "efficiency": np.median(weights, axis=1) ** 1.1,
        "gini_betweenness": gini(out * into.mean(1, keepdims=True) ** 2),
        "churn": np.r_[np.nan, [spearman_distance(a, b) for a, b in pairwise(rank)]],
        "noise_floor": np.array([spearman_distance(a, b) for a, b in zip(rank_a, rank_b, strict=True)]),
        "excess_churn": np.r_[np.nan, [spearman_distance(a, b) for a, b in zip(rank_a[:-1], rank_b[1:], strict=True)]],
    }


def gini(values):
    """Mean absolute difference over twice the mean."""
    return np.array([np.abs(np.subtract.outer(row, row)).mean() / (2 * row.mean()) for row in values])


def spearman_distance(a, b):
    return 1 - np.corrcoef(a, b)[0, 1]


def phased(i):
    return 0.6 if i < 50 else 0.2 if i < 100 else 0.05


def phased_growth(i):
    return 0.02 if 50 <= i < 100 else 0.0


@pytest.fixture(scope="module")
def phased_film():
    series = film(1, phased, phased_growth)
    series["excess_churn"] -= series["noise_floor"]
    return series


@pytest.fixture(scope="module")
def switched_film():
    """Wiring that settles from one checkpoint to the next: index 80, step 320."""
    series = film(3, lambda i: 0.6 if i < 80 else 0.05, lambda i: 0.0)
    series["excess_churn"] -= series["noise_floor"]
    return series


@pytest.fixture(scope="module")
def smooth_film():
    """Annealing: the same total change, without a break."""
    series = film(2, lambda i: 0.6 * np.exp(-i / 50), lambda i: 0.01)
    series["excess_churn"] -= series["noise_floor"]
    return series


def test_labels_of_planted_phases(phased_film):
    displacement = np.diff(phased_film["arc_length"], prepend=np.nan)
    per_unit = [phased_film[name] / displacement for name in ("excess_churn", "noise_floor")]
    segments = label_segments(phased_film["gini"], *per_unit, [50, 100])
    assert [segment.label for segment in segments] == ["exploration", "consolidation", "refinement"]
    assert [(segment.start, segment.end) for segment in segments] == [(0, 49), (50, 99), (100, 143)]
    middle, c = segments[1], phased_film["gini"]
    slope = theilslopes(c[50:100]).slope
    assert middle.slope == pytest.approx(slope * 144 / (np.quantile(c, 0.98) - np.quantile(c, 0.02)))
    assert middle.change == pytest.approx(slope * 50 / (np.diff(c).std() / np.sqrt(2)))
    assert segments[0].churn > 2 > segments[2].churn


def test_falling_concentration_is_dissolution_and_equal_neighbours_merge():
    n = 60
    c = np.r_[np.linspace(0.8, 0.3, 40), np.full(20, 0.3)] + 0.005 * np.random.default_rng(21).standard_normal(n)
    segments = label_segments(c, np.full(n, 0.1), np.full(n, 0.1), [20, 40])
    assert [(s.label, s.start, s.end) for s in segments] == [("dissolution", 0, 39), ("refinement", 40, 59)]


@pytest.mark.parametrize("seed", range(3))
def test_transition_of_a_logistic_loss_is_dated(seed):
    """A logistic fall has 10 % behind it at centre - log(9) widths, 90 % at centre + log(9) widths."""
    rng = np.random.default_rng([22, seed])
    centre, width = rng.uniform(50, 90), rng.uniform(2, 4)
    loss = 0.2 + 3.6 / (1 + np.exp((np.arange(144) - centre) / width)) + 0.01 * rng.standard_normal(144)
    found = transition(loss)
    assert found.plateau == pytest.approx(3.8, abs=0.03)
    assert found.final == pytest.approx(0.2, abs=0.03)
    expected = [centre - np.log(9) * width, centre, centre + np.log(9) * width]
    assert np.abs(np.array([found.start, found.half, found.end]) - np.ceil(expected)).max() <= 1


def test_transition_leaves_aside_the_first_descent():
    i = np.arange(150)
    loss = 3 + 6 * np.exp(-i / 3) - 2.5 / (1 + np.exp(-(i - 80) / 3))
    found = transition(loss)
    assert found.plateau == pytest.approx(3, abs=0.05)
    assert (found.start, found.half, found.end) == (74, 80, 87)


def test_no_plateau_no_transition():
    rng = np.random.default_rng(23)
    assert transition(4 + 0.01 * rng.standard_normal(100)) is None
    assert transition(np.geomspace(5, 0.01, 100)[:40]) is None


def test_agreement_with_behaviour():
    change = transition(np.repeat([4.0, 2.0, 0.0], [40, 10, 50]))
    assert (change.start, change.half, change.end) == (40, 40, 50)
    assert near_transition([34, 35, 45, 55, 56], change) == [False, True, True, True, False]
    assert circular_shift_p([30], [33], 100) == (1, 11 / 100)  # 11 of 100 places lie within 5 of one boundary
    assert circular_shift_p([30, 70], [28, 73], 100) == (2, 6 / 100)  # shifts -7..3 and -2..8 share -2..3
    assert circular_shift_p([], [3], 100) is None


def write_study(folder, series, loss=None, effects=("total", "direct"), drop=None):
    """Write the three input files as the stages before do."""
    rows = []
    for effect in effects:
        for name in (*WEIGHT_METRICS, *PATH_METRICS, "churn", "noise_floor", "excess_churn"):
            if (effect == "direct" and name not in PATH_METRICS) or name == drop:
                continue
            values = [None if np.isnan(value) else float(value) for value in series[name]]
            rows += [(int(step), effect, name, value) for step, value in zip(series["steps"], values, strict=True)]
    table = pl.DataFrame(rows, schema=["step", "effect", "metric", "estimate"], orient="row", infer_schema_length=None)
    bounds = [pl.col("estimate").alias(name) for name in ("corrected", "low", "high")]
    table.with_columns(bounds).write_parquet(folder / "metrics.parquet")
    n = len(series["steps"])
    if loss is None:
        loss = 0.2 + 3.6 / (1 + np.exp((np.arange(n) - 75) / 3))
        loss = loss + 0.01 * np.random.default_rng(24).standard_normal(n)
    score = 0.8 - loss / 5
    rows = [(int(s), "loss_second", None, float(v)) for s, v in zip(series["steps"], loss, strict=True)]
    for head, share in (("L0H0", 0.5), ("L1H0", 1.0)):
        rows += [
            (int(s), "prefix_matching", head, float(share * v)) for s, v in zip(series["steps"], score, strict=True)
        ]
    table = pl.DataFrame(rows, schema=["step", "quantity", "node", "estimate"], orient="row", infer_schema_length=None)
    table.with_columns(low="estimate", high="estimate").write_parquet(folder / "behaviour.parquet")
    displacement = np.diff(series["arc_length"], prepend=np.nan)
    pl.DataFrame(
        {
            "step": series["steps"],
            "path": [f"checkpoints/{step}" for step in series["steps"]],
            "sha256": ["0" * 64] * n,
            "bytes": [1] * n,
            "tokens": series["steps"] * 1024.0,
            "displacement": [None if np.isnan(value) else value for value in displacement],
            "arc_length": series["arc_length"],
        }
    ).write_csv(folder / "series.tsv", separator="\t")
    return [folder / name for name in ("metrics.parquet", "behaviour.parquet", "series.tsv")]


def test_switched_study_end_to_end(tmp_path, switched_film):
    paths = write_study(tmp_path, switched_film)
    command = [sys.executable, "-m", "phasegraph.phases", "--out", str(tmp_path / "phases.json"), "--bootstraps", "99"]
    for option, path in zip(("--metrics", "--behaviour", "--manifest"), paths, strict=True):
        command += [option, str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    text = (tmp_path / "phases.json").read_text()
    found = json.loads(text)
    assert printed == found["sentences"]
    assert found["checkpoints"] == {"n": 144, "first": 0, "last": 572, "dropped": []}
    for test in ("test_a", "test_b"):
        steps = [boundary["step"] for boundary in found[test]["boundaries"]]
        assert any(abs(step - 320) <= 8 for step in steps)
    assert all(b["step"] == 4 * b["index"] for b in found["test_a"]["boundaries"])
    assert any(b["kind"] == "abrupt" for b in found["test_a"]["boundaries"])
    assert not found["smooth_drift_suffices"]
    assert found["sentences"][0].startswith("Smooth drift does not suffice")
    assert found["settings"]["path_effect"] == "direct"
    change = found["behaviour"]["transition"]
    assert abs(change["half"] - 300) <= 4
    assert found["segments"][0]["start_step"] == 0
    assert found["segments"][-1]["end_step"] == 572
    assert {(row["max_changes"], row["min_size"]) for row in found["sensitivity"]} == {(3, 5), (5, 5), (3, 3), (3, 8)}
    again = tmp_path / "again.json"
    run_study(*paths, again, Settings(bootstraps=99))
    assert again.read_text() == text


def test_smooth_study_end_to_end(tmp_path, smooth_film):
    found = run_study(*write_study(tmp_path, smooth_film), tmp_path / "phases.json", Settings(bootstraps=99))
    assert found["smooth_drift_suffices"]
    assert found["test_b"]["boundaries"] == []
    assert found["sentences"][0].startswith("Smooth drift suffices")
    assert all(boundary["kind"] == "gradual" for boundary in found["test_a"]["boundaries"])


def test_too_few_checkpoints_are_said_to_be_too_few(tmp_path, smooth_film):
    short = {name: values[:10] for name, values in smooth_film.items()}
    found = run_study(*write_study(tmp_path, short), tmp_path / "phases.json", Settings(bootstraps=99))
    assert found["test_a"] is None and found["test_b"] is None and found["smooth_drift_suffices"] is None
    assert found["sentences"][0].startswith("Not tested for phases: 10 checkpoints are too few")


def test_a_checkpoint_with_the_weights_of_the_one_before_is_left_out(tmp_path, smooth_film):
    doubled = {name: np.r_[values[:1], values] for name, values in smooth_film.items()}
    doubled["steps"] = np.r_[0, 1, smooth_film["steps"][1:]]
    doubled["churn"][1] = 0.0
    tables = read_tables(*write_study(tmp_path, doubled))
    assert tables.left_out == {1: "same weights as step 0"}
    np.testing.assert_array_equal(tables.steps, smooth_film["steps"])
    np.testing.assert_array_equal(tables.levels["gini"], smooth_film["gini"])
    np.testing.assert_allclose(tables.behaviour["prefix_matching"].max(), 0.8, atol=0.1)


def test_further_quantities_of_behaviour_change_nothing(tmp_path, smooth_film):
    paths = write_study(tmp_path, smooth_film)
    before = read_tables(*paths)
    table = pl.read_parquet(paths[1])
    effects = table.filter(pl.col("node") == "L0H0").with_columns(estimate=9.0)
    names = ("answer_kl_total", "answer_logit_difference_total")
    further = [effects.with_columns(quantity=pl.lit(q), node=pl.lit(n)) for q in names for n in ("embed", "L0MLP")]
    pl.concat([table, *further]).write_parquet(paths[1])
    after = read_tables(*paths)
    for name in ("loss_second", "prefix_matching"):
        np.testing.assert_array_equal(after.behaviour[name], before.behaviour[name])


def test_paths_are_those_of_the_direct_effect_where_there_is_one(tmp_path, smooth_film):
    paths = write_study(tmp_path, smooth_film, effects=("total",))
    assert read_tables(*paths).path_effect == "total"
    table = pl.read_parquet(paths[0])
    halved = table.filter(pl.col("metric").is_in(PATH_METRICS))
    halved = halved.with_columns(pl.lit("direct").alias("effect"), pl.col("estimate") / 2)
    pl.concat([table, halved]).write_parquet(paths[0])
    tables = read_tables(*paths)
    assert tables.path_effect == "direct"
    np.testing.assert_array_equal(tables.levels["efficiency"], smooth_film["efficiency"] / 2)


def test_undefined_betweenness_is_left_out_by_name(tmp_path, smooth_film):
    holed = smooth_film | {"gini_betweenness": np.where(np.arange(144) < 2, np.nan, smooth_film["gini_betweenness"])}
    tables = read_tables(*write_study(tmp_path, holed))
    assert tables.undefined == {"gini_betweenness": "undefined at 2 checkpoints, first at step 0"}
    assert "gini_betweenness" not in tables.levels


def test_wrong_tables_are_named(tmp_path, smooth_film):
    paths = write_study(tmp_path, smooth_film, drop="gini_sqrt")
    with pytest.raises(PhasegraphError, match=r"metrics.parquet has no metric gini_sqrt"):
        read_tables(*paths)
    paths = write_study(tmp_path, smooth_film)
    with pytest.raises(PhasegraphError, match=r"absent.parquet is missing"):
        read_tables(tmp_path / "absent.parquet", *paths[1:])
    with pytest.raises(PhasegraphError, match=r"behaviour.parquet has no column effect"):
        read_tables(paths[1], *paths[1:])
    manifest = paths[2].read_text().splitlines(keepends=True)
    paths[2].write_text("".join(manifest[:-1]))
    with pytest.raises(PhasegraphError, match=r"series.tsv: no arc_length for step 572"):
        read_tables(*paths)
    paths[2].write_text("".join(manifest))
    behaviour = pl.read_parquet(paths[1])
    behaviour.filter((pl.col("step") != 8) | (pl.col("quantity") != "loss_second")).write_parquet(paths[1])
    with pytest.raises(PhasegraphError, match=r"quantity loss_second is missing at step 8"):
        read_tables(*paths)


def test_a_user_mistake_is_one_line(tmp_path):
    command = [sys.executable, "-m", "phasegraph.phases", "--out", str(tmp_path / "phases.json")]
    command += [part for name in ("metrics", "behaviour", "manifest") for part in (f"--{name}", str(tmp_path / name))]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "is missing" in result.stderr
    assert not (tmp_path / "phases.json").exists()


def test_json_holds_no_nan_and_six_digits():
    value = {"a": np.array([1 / 3, np.nan, np.inf]), "b": (np.int64(3), np.bool_(True), None), "c": "x"}
    assert plain(value) == {"a": [0.333333, None, None], "b": [3, True, None], "c": "x"}

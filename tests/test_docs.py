"""The pages show what their simulations found, and those measure a known truth. About 10 seconds."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from phasegraph.jackknife import delete_group
from phasegraph.types import GROUPS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
simulated, intervals, null_calibration, changes, seeds = map(
    importlib.import_module, ("simulated", "intervals", "null_calibration", "changes", "seeds")
)


@pytest.mark.parametrize(
    "benchmark, page",
    [
        (intervals, "docs/network.md"),
        (null_calibration, "docs/network.md"),
        (changes, "docs/phases.md"),
        (seeds, "docs/phases.md"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_the_page_shows_what_was_simulated(benchmark, page):
    text = (ROOT / page).read_text()
    name = benchmark.__name__
    for table in benchmark.tables(json.loads((ROOT / f"benchmarks/{name}.json").read_text())):
        assert table in text, f"run python benchmarks/{name}.py --tables and put the tables into {page}"


def test_many_prompts_measure_the_truth():
    _, structure = simulated.layered(3, 2)
    rng = np.random.default_rng(0)
    true = simulated.heterogeneous(structure, rng, 1.0)[None]
    few, many = (simulated.measured(true, structure, prompts, rng)[0] for prompts in (32, 32 * 256))
    errors = [np.abs(np.log(of[0, structure.mask] / true[0, structure.mask])).mean() for of in (few, many)]
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.4)  # as the root of the number of prompts
    assert not few[:, ~structure.mask].any()
    assert few.shape == (GROUPS + 1, 9, 9)


def test_intervals_of_weights_cover_the_truth():
    """Weights are ratios of means over prompts, for which the jackknife is right: 90 % of 200 x 27 intervals."""
    _, structure = simulated.layered(3, 2)
    rng = np.random.default_rng(1)
    true = simulated.heterogeneous(structure, rng, 1.0)
    inside = []
    for _ in range(200):
        found = delete_group(simulated.measured(true[None], structure, 128, rng)[0][:, structure.mask])
        inside.append((found.low <= true[structure.mask]) & (true[structure.mask] <= found.high))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_coverage_is_counted_right():
    """Means of normal values, whose jackknife interval is Student's exactly, and one that never covers."""
    rng = np.random.default_rng(2)
    rows, wrong = [], []
    for _ in range(500):
        groups = rng.normal(size=(GROUPS, 4))
        replicates = np.concatenate([groups.mean(0)[None], (groups.sum(0) - groups) / (GROUPS - 1)])
        rows.append(intervals.covers(replicates, np.zeros((1, 4)), "mean"))
        wrong.append(intervals.covers(replicates, np.full((1, 4), 9.0), "mean"))
    found = intervals.summary(rows)
    assert found["corrected"] == pytest.approx(0.9, abs=0.02) and found["plain"] == pytest.approx(found["corrected"])
    assert found["bias"] == pytest.approx(0, abs=0.1)
    assert intervals.summary(wrong)["corrected"] == 0


def test_planted_structure_is_where_it_was_planted():
    _, structure = simulated.layered(6, 4)
    rng = np.random.default_rng(3)
    weights = simulated.heterogeneous(structure, rng, 0.35)
    changed = simulated.planted_triangles(weights, structure, rng, 4.0, count=15) / np.where(structure.mask, weights, 1)
    assert ((changed == 0) | np.isclose(changed, 1) | np.isclose(changed, 4)).all()
    assert np.isclose(changed, 4).sum() == 45
    edges = np.isclose(changed, 4)
    assert ((edges @ edges.astype(int)) * edges).sum() >= 15  # triangles
    clique = simulated.planted_clique(weights, structure, rng, 2.0, size=6) / np.where(structure.mask, weights, 1)
    assert np.isclose(clique, 2).sum() == 15
    within, modules = simulated.planted_modules(weights, rng, 2.0)
    same = structure.mask & np.equal.outer(modules, modules)
    assert np.allclose(within, np.where(same, 2, 1) * weights)


def test_uniform_p_has_no_distance():
    p = np.arange(1, 101) / 100
    found = null_calibration.summary([(one, 0.0) for one in p])
    assert (found["p05"], found["p01"]) == (0.05, 0.01)
    assert found["distance"] == pytest.approx(0)
    assert null_calibration.summary([(0.02, 0.0)] * 5)["distance"] == pytest.approx(0.98)


def test_noise_is_what_it_is_called():
    """Variance 1, the autocorrelations of the Yule-Walker equations, the correlation between columns: 400 series."""
    rng = np.random.default_rng(4)
    for ar, expected in [((), 0), ((0.9,), 0.9), ((0.6, 0.25), 0.6 / (1 - 0.25))]:
        series = np.array([changes.noise(rng, *ar) for _ in range(400)])  # [400, N, D]
        assert (series**2).mean() == pytest.approx(1, abs=0.06)
        assert (series[:, 1:] * series[:, :-1]).mean() == pytest.approx(expected, abs=0.06)
        assert (series[..., 0] * series[..., 1]).mean() == pytest.approx(changes.CORRELATION, abs=0.06)


def test_changes_are_planted_and_judged_where_they_are():
    steps, places = changes.changes(np.random.default_rng(5), 3)
    assert np.flatnonzero(np.diff(steps, axis=0).any(1)).tolist() == [place - 1 for place in places]
    assert [np.abs(steps[place] - steps[place - 1]).sum() for place in places] == [3 * changes.CHANGED] * 2
    judged = {
        (50, 100): (True, True),
        (45, 105): (True, True),
        (44, 100): (False, True),
        (50, 75, 100): (False, True),
        (50,): (False, True),
        (75,): (False, False),
        (): (False, False),
    }
    for found, (exact, some) in judged.items():
        assert changes.outcome(list(found), [50, 100]) == {"exact": exact, "any": some}
    assert [changes.outcome(found, []) for found in ([], [7])] == [{"alarms": False}, {"alarms": True}]

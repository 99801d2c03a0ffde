"""Tests of rates, labels, recurrence and agreement with behaviour in `phasegraph.phases` (about 4 s on one core)."""

import numpy as np
import pytest
from planted_series import film
from scipy.stats import theilslopes

from phasegraph.errors import PhasegraphError
from phasegraph.phases.behaviour import circular_shift_p, near_transition, transition
from phasegraph.phases.labels import label_segments
from phasegraph.phases.rates import FLOOR, block_rates, moved, rates
from phasegraph.phases.recurrence import label_shares, recurrence
from phasegraph.phases.tables import Tables


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


def test_rates_of_blocks_are_those_of_one_replicate():
    rng = np.random.default_rng(29)
    steps, arc = np.arange(12), np.cumsum(np.arange(12.0))
    blocks = {"a": rng.uniform(1, 2, (17, 12)), "b": rng.uniform(1, 2, (17, 12))}
    blocks["a"][:, 0] = blocks["b"][:, 0] = np.nan
    result = block_rates(steps, arc, blocks, 3)
    assert result.columns == ("a", "b")
    expected = np.column_stack([blocks["a"][3, 1:], blocks["b"][3, 1:]]) / np.arange(1, 12)[:, None]
    np.testing.assert_allclose(np.exp(result.values), expected)


def test_labels_of_planted_phases():
    phased_film = film(
        1, lambda i: 0.6 if i < 50 else 0.2 if i < 100 else 0.05, lambda i: 0.02 if 50 <= i < 100 else 0.0
    )
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


def test_recurrence_is_counted_by_hand():
    """16 series: a boundary counts if it is at most 5 checkpoints away, and of several the nearest one."""
    by_group = [[8]] * 10 + [[3, 17]] * 2 + [[14], [], [2, 9], [13]]
    found = recurrence([8, 19], by_group, 10 * np.arange(20))
    assert [row["step"] for row in found] == [80, 190]
    assert found[0]["places"] == [80] * 10 + [30] * 2 + [None, None, 90, 130]
    assert found[0]["share"] == 14 / 16
    assert found[1]["places"] == [None] * 10 + [170] * 2 + [140, None, None, None]
    assert found[1]["share"] == 3 / 16
    assert recurrence([], by_group, np.arange(20)) == []


def test_label_shares_are_counted_by_hand():
    """20 restless checkpoints and 20 calm ones, in 16 series."""
    churn = np.repeat([1.0, 0.1], 20)
    by_group = [[20]] * 10  # the same; in two of them concentration rises over the calm ones
    by_group += [[]] * 3  # one segment, calm by its median: wrong for the first 20
    by_group += [[12]] * 2  # 12 of the first 20 are restless, the rest is calm
    by_group += [[10]]  # 10 of the first 20 are not most of them
    gini = np.full((16, 40), 0.5)
    gini[:2, 20:] += np.linspace(0, 0.4, 20)
    nothing = {"levels": {}, "blocks": {}, "behaviour": {}, "path_effect": "total", "left_out": {}, "undefined": {}}
    tables = Tables(
        steps=np.arange(40),
        arc_length=np.arange(40.0),
        churn={"churn": churn, "noise_floor": np.full(40, 0.01), "excess_churn": churn - 0.01},
        replicates={"gini": gini, "churn": np.tile(churn, (16, 1))},
        **nothing,
    )
    displacement = np.r_[np.nan, np.ones(39)]
    excess, floor = (tables.churn[name] / displacement for name in ("excess_churn", "noise_floor"))
    segments = label_segments(np.full(40, 0.5), excess, floor, [20])
    assert [segment.label for segment in segments] == ["exploration", "refinement"]
    assert label_shares(segments, tables, by_group) == [12 / 16, 14 / 16]
    tables.replicates["churn"][:4] = 0.1  # restless no more
    assert label_shares(segments, tables, by_group) == [8 / 16, 14 / 16]

"""How long rankings last: against direct formulas, scipy, simulation and planted series (about 8 s)."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import kendalltau

from phasegraph.network import agreement, roles, stability

pytestmark = pytest.mark.filterwarnings("error")

TOTAL = "total"


def webber(x, y, p):
    """Rank-biased overlap as its authors write it: two lists of sets of tied items, extrapolated."""
    ranked = np.isfinite(x) & np.isfinite(y)
    items = np.flatnonzero(ranked)

    def up_to(scores, depth):
        return {i for i in items if (scores[items] > scores[i]).sum() < depth}

    n = len(items)
    agreements = []
    for depth in range(1, n + 1):
        s, t = up_to(x, depth), up_to(y, depth)
        agreements.append(2 * len(s & t) / (len(s) + len(t)))
    return agreements[-1] * p**n + (1 - p) / p * sum(a * p**d for d, a in enumerate(agreements, start=1))


def test_overlap_against_the_direct_formula():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (2, 12, 15)).astype(float)  # many ties
    x[:3], y[:3] = rng.random((2, 3, 15))
    x[6:][rng.random((6, 15)) < 0.2] = np.nan
    y[6:][rng.random((6, 15)) < 0.2] = np.nan
    for p in (0.9, 0.5):
        expected = [webber(a, b, p) for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(agreement.rank_biased_overlap(x, y, p)[0], expected, atol=1e-12)


def test_overlap_by_hand():
    up, down = np.arange(4.0)[None], -np.arange(4.0)[None]
    # agreements of 4 3 2 1 with 1 2 3 4: 0, 0, 2/3, 1, and 1 beyond
    assert agreement.rank_biased_overlap(up, down, 0.5)[0] == pytest.approx(0.125 * 2 / 3 + 0.125)
    rng = np.random.default_rng(1)
    x = rng.random((5, 30))
    np.testing.assert_allclose(agreement.rank_biased_overlap(x, np.exp(3 * x))[0], 1)
    apart = np.repeat(np.arange(400.0)[None], 2, axis=0)
    apart[1, :200] += 1000  # the first 200 of the one are the last 200 of the other
    overlap, chance = agreement.rank_biased_overlap(apart[:1], apart[1:])
    assert overlap == pytest.approx(0, abs=1e-9) and agreement.corrected(overlap, chance) < 0
    tied = np.zeros((1, 30))
    overlap, chance = agreement.rank_biased_overlap(tied, tied)
    assert (overlap[0], chance[0]) == (pytest.approx(1), pytest.approx(1))
    assert np.isnan(agreement.corrected(overlap, chance))
    assert np.isnan(agreement.rank_biased_overlap(np.full((1, 3), np.nan), tied[:, :3])[0])


@pytest.mark.parametrize(("nodes", "known"), [(30, 0.32), (408, 0.03)])
def test_chance_of_overlap_against_simulation(nodes, known):
    rng = np.random.default_rng(2)
    overlap, chance = agreement.rank_biased_overlap(*rng.random((2, 1500, nodes)))
    assert np.ptp(chance) < 1e-12
    error = overlap.std() / np.sqrt(len(overlap))
    assert abs(overlap.mean() - chance[0]) < 3 * error
    assert chance[0] == pytest.approx(known, abs=0.006)
    assert abs(agreement.corrected(overlap, chance).mean()) < 3 * error / (1 - chance[0])
    tied = rng.integers(0, 5, nodes) * 1.0  # the level depends on the ties
    shuffled = rng.permuted(np.tile(tied, (1500, 1)), axis=1)
    overlap, chance = agreement.rank_biased_overlap(np.tile(tied, (1500, 1)), shuffled)
    assert abs(overlap.mean() - chance[0]) < 3 * overlap.std() / np.sqrt(len(overlap))


def test_tau_of_all_pairs_against_scipy(monkeypatch):
    rng = np.random.default_rng(6)
    scores = rng.integers(0, 6, (6, 20)).astype(float)
    for missing in (False, True):
        if missing:
            scores[3:][rng.random((3, 20)) < 0.2] = np.nan
            scores[:, 4] = np.nan
        expected = [[kendalltau(a, b, nan_policy="omit").statistic for b in scores] for a in scores]
        np.testing.assert_allclose(roles.kendall_matrix(scores), expected, atol=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(roles, "PAIRS", 7)
            np.testing.assert_allclose(roles.kendall_matrix(scores), expected, atol=1e-12)
    assert np.isnan(roles.kendall_matrix(np.array([[1, 1, 1.0], [1, 2, 3]]))).tolist() == [[True, True], [True, False]]


def test_jaccard_is_corrected_for_chance():
    rng = np.random.default_rng(7)
    found = agreement.shared_holders(rng.random((60, 30)), 3)
    above = np.triu_indices(60, 1)
    assert abs(found.jaccard[above].mean()) < 0.01
    assert found.jaccard.diagonal() == pytest.approx(1) and found.persistence.diagonal() == pytest.approx(1)
    sets = [(set(rng.permutation(9)[:4]), set(rng.permutation(9)[:2])) for _ in range(20000)]
    simulated = np.mean([len(a & b) / len(a | b) for a, b in sets])
    assert agreement.chance_jaccard(9, 4, 2) == pytest.approx(simulated, abs=0.005)
    nobody = agreement.shared_holders(np.stack([np.zeros(9), rng.random(9)]), 3)  # all tie: no holder
    assert np.isnan(nobody.jaccard).tolist() == [[True, True], [True, False]]
    assert np.isnan(agreement.shared_holders(rng.random((2, 3)), 3).persistence).all()  # no choice


def test_what_holders_share_by_hand():
    scores = np.array([[9, 8, 7, 1, 2, 3, 4, 5], [9, 1, 7, 8, 2, 3, 4, 5], [9, 8, 7, 7, 7, 7, np.nan, 1]])
    found = agreement.shared_holders(scores, 3)  # holders 0 1 2; 0 2 3; 0 1, since four tie for the third place
    assert found.persistence_chance[0, 1] == pytest.approx(3 / 8)
    assert found.persistence[0, 1] == pytest.approx((2 / 3 - 3 / 8) / (1 - 3 / 8))
    assert found.jaccard[0, 1] == pytest.approx((1 / 2 - found.jaccard_chance[0, 1]) / (1 - found.jaccard_chance[0, 1]))
    chance = (2 / 8 + 3 / 8) / 2
    assert found.persistence[0, 2] == pytest.approx(((2 / 3 + 2 / 2) / 2 - chance) / (1 - chance))


def ranked(holding, nodes, rng, replicates=17, noise=0.0):
    """Scores [S, R, N] of series of holders, the rest in random order."""
    scores = rng.random((len(holding), 1, nodes)) + np.zeros((1, replicates, 1))
    for step, top in enumerate(holding):
        scores[step][:, list(top)] += 1
    return scores + rng.normal(0, noise, (1, replicates, nodes))


def table_of(by_role, k=3, reliable=None):
    found = {(TOTAL, role, "raw"): stability.agreements(scores, k) for role, scores in by_role.items()}
    return stability.stability_table(found, reliable or {})


def value(table, quantity, role="spreader", lag=None, column="estimate"):
    lags = pl.col("lag").is_null() if lag is None else pl.col("lag") == lag
    return table.filter((pl.col("quantity") == quantity) & (pl.col("role") == role) & lags)[column].item()


def test_constant_and_random_holders():
    rng = np.random.default_rng(8)
    constant = table_of({"spreader": ranked([(2, 5, 7)] * 40, 30, rng)})
    assert value(constant, "mean_persistence") == pytest.approx(1)
    assert value(constant, "mean_persistence", column="chance") == pytest.approx(3 / 30)
    assert value(constant, "half_life") is None and value(constant, "half_life", column="largest_lag") == 39
    assert value(constant, "mean_persistence", column="pairs") == 40 * 39 / 2
    by_chance = table_of({"spreader": ranked([rng.permutation(30)[:3] for _ in range(60)], 30, rng)})
    for quantity, lag in (("mean_persistence", None), ("persistence", 1), ("jaccard", 1), ("rbo", 1), ("tau", 1)):
        spread = 0.15 / np.sqrt(60) if quantity != "tau" else 0.13 / np.sqrt(60)
        assert abs(value(by_chance, quantity, lag=lag)) < 4 * spread


def test_half_life_of_a_planted_turnover():
    rng = np.random.default_rng(9)
    nodes, k, leave, steps = 160, 32, 2, 150
    holding = [rng.permutation(nodes)[:k]]
    for _ in range(steps - 1):  # some leave at every checkpoint, and random outsiders come
        outside = np.setdiff1d(np.arange(nodes), holding[-1])
        holding.append(np.concatenate([rng.permutation(holding[-1])[leave:], rng.permutation(outside)[:leave]]))
    table = table_of({"spreader": ranked(holding, nodes, rng, replicates=2)}, k)
    rate = 1 - leave / k / (1 - k / nodes)  # excess persistence after one checkpoint: a holder may also come back
    for lag in (1, 4, 10):
        assert value(table, "persistence", lag=lag) == pytest.approx(rate**lag, abs=0.03)
    excess = rate ** np.arange(1, steps)
    overlap = k * (excess * (1 - k / nodes) + k / nodes)
    chance = agreement.chance_jaccard(nodes, k, k)
    jaccard = (overlap / (2 * k - overlap) - chance) / (1 - chance)
    expected = int(np.argmax(jaccard < jaccard[0] / 2)) + 1
    assert abs(value(table, "half_life") - expected) <= 1


def test_stable_spreaders_and_dynamic_gatherers():
    rng = np.random.default_rng(10)
    stable, dynamic = [(2, 5, 7)] * 30, [rng.permutation(30)[:3] for _ in range(30)]
    for noise in (0, 0.3):
        scores = [ranked(holding, 30, rng, noise=noise) for holding in (stable, dynamic)]
        for one, two, sign in ((0, 1, 1), (1, 0, -1)):
            table = table_of({"spreader": scores[one], "gatherer": scores[two]})
            difference = value(table, "mean_persistence", "spreader-gatherer")
            parts = [value(table, "mean_persistence", role) for role in ("spreader", "gatherer")]
            assert difference == pytest.approx(parts[0] - parts[1]) and sign * difference > 0.5
            low, high = (value(table, "mean_persistence", "spreader-gatherer", column=c) for c in ("low", "high"))
            assert low <= difference <= high and (low < high) == bool(noise)
            assert sign * (low + high) > 0.5


def test_table_against_brute_force():
    rng = np.random.default_rng(11)
    scores = rng.random((9, 17, 20)).cumsum(0)
    table = table_of({"gatherer": scores}, k=4)
    top = [[set(np.argsort(-scores[t, r])[:4]) for t in range(9)] for r in range(17)]
    for lag in (1, 2, 3, 8):
        shares = np.array([[len(a[t] & a[t + lag]) / 4 for t in range(9 - lag)] for a in top]).mean(1)  # [17]
        expected = (shares - 4 / 20) / (1 - 4 / 20)
        error = np.sqrt(15 / 16 * ((expected[1:] - expected[1:].mean()) ** 2).sum())
        assert value(table, "persistence", "gatherer", lag) == pytest.approx(expected[0])
        assert value(table, "persistence", "gatherer", lag, "high") - expected[0] == pytest.approx(
            1.7530503556925 * error
        )
        assert value(table, "persistence", "gatherer", lag, "pairs") == 9 - lag
        if lag != 3:
            tau = np.mean([kendalltau(scores[t, 0], scores[t + lag, 0]).statistic for t in range(9 - lag)])
            overlap = np.mean([webber(scores[t, 0], scores[t + lag, 0], 0.9) for t in range(9 - lag)])
            chance = value(table, "rbo", "gatherer", lag, "chance")
            assert value(table, "tau", "gatherer", lag) == pytest.approx(tau)
            assert value(table, "rbo", "gatherer", lag) == pytest.approx((overlap - chance) / (1 - chance))
    lags = {name: table.filter(pl.col("quantity") == name)["lag"].to_list() for name in ("tau", "jaccard")}
    assert lags == {"tau": [1, 2, 4, 8], "jaccard": list(range(1, 9))}
    series = stability.with_the_one_before(stability.agreements(scores, 4))
    assert np.isnan(series["tau"][0]).all() and series["rbo"].shape == (9, 17)
    assert series["tau"][5, 3] == pytest.approx(kendalltau(scores[4, 3], scores[5, 3]).statistic)


def test_a_checkpoint_without_holders_is_left_out_everywhere():
    rng = np.random.default_rng(12)
    scores = ranked([(2, 5, 7)] * 6, 12, rng)
    scores[2, 5] = 0  # nobody stands out in one replicate of one checkpoint
    table = table_of({"spreader": scores})
    assert value(table, "mean_persistence") == pytest.approx(1)
    assert value(table, "mean_persistence", column="pairs") == 15 - 5
    for few in (scores[:1], np.full((3, 17, 1), np.nan)):
        table = table_of({"spreader": few})
        assert table["estimate"].null_count() == len(table) > 0
        assert all(len(one) == len(few) for one in stability.with_the_one_before(stability.agreements(few, 3)).values())


def test_reliability_of_halves():
    rng = np.random.default_rng(13)
    halves = rng.random((50, 2, 4, 30))
    estimate, chance, count = stability.reliability(halves, 3)
    assert abs(estimate) < 0.05 and (chance, count) == (pytest.approx(3 / 30), 50)
    halves[:, :, :, [1, 4]] += 1  # two of three are certain; the third is one of the 28 others
    expected = ((2 + 1 / 28) / 3 - 3 / 30) / (1 - 3 / 30)
    estimate, chance, count = stability.reliability(halves, 3)
    assert estimate == pytest.approx(expected, abs=0.02)
    halves[7, 0, 2] = 0  # nobody stands out
    halves[8, :, :, :27] = np.nan  # no choice
    assert stability.reliability(halves, 3)[2] == 48
    table = table_of({}, reliable={(TOTAL, "spreader", "raw"): (estimate, chance, count)})
    assert value(table, "reliability") == estimate and value(table, "reliability", column="low") is None


def test_lags_are_powers_of_two():
    for steps in (0, 1, 2, 3, 4, 5, 154):
        assert stability.powers_of_two(steps) == [lag for lag in (1, 2, 4, 8, 16, 32, 64, 128) if lag < steps]

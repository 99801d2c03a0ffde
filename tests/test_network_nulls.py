"""Null models: what they keep, that they are random otherwise, and what stands out against them (about 15 s)."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from phasegraph.model.nodes import nodes_of
from phasegraph.network import suite
from phasegraph.network.expectation import expected_weights
from phasegraph.network.metrics import gini
from phasegraph.network.nulls import BOUND, Blocks, compare, draw, shuffle_blocks, shuffle_ratio
from phasegraph.network.significance import against_nulls
from phasegraph.types import Effect

pytestmark = pytest.mark.filterwarnings("error")


def layered(layers=6, heads=4):
    nodes = nodes_of(layers, heads)
    layer = np.array([node.layer for node in nodes])
    return suite.structure_of(nodes, layer[:, None] < layer)


def heterogeneous(rng, structure, noise=0.3, spread=0.7):
    """Outer product of random strengths, with lognormal noise."""
    size = len(structure.mask)
    strengths = np.outer(rng.lognormal(-3, spread, size), rng.lognormal(-3, spread, size))
    return strengths * np.exp(rng.normal(0, noise, (size, size))) * structure.mask


def drawn(null, weights, structure, draws, seed=0):
    return np.concatenate([*draw(null, weights, structure.mask, structure.classes, draws, [seed])])


def by_block(matrices, structure):
    """Sorted weights [D, size] of every block."""
    for a, b in itertools.product(range(structure.classes.max() + 1), repeat=2):
        block = np.outer(structure.classes == a, structure.classes == b) & structure.mask
        yield np.sort(matrices[:, block], axis=-1)


def uniform_p(values):
    """P-value of uniform ranks: the p that `compare` gives are discrete, so they are spread out over their steps."""
    rng = np.random.default_rng(99)
    steps = 2 / (1 + 99)
    return kstest(np.array(values) - rng.random(len(values)) * steps, "uniform").pvalue


# --- what is kept --------------------------------------------------------------------------------------------------


def test_the_block_shuffle_keeps_the_weights_of_every_block():
    structure = layered()
    weights = heterogeneous(np.random.default_rng(0), structure)
    graphs = drawn("block", weights, structure, 20)
    assert graphs.shape == (20, 30, 30) and not graphs[:, ~structure.mask].any()
    for ours, theirs in zip(by_block(graphs, structure), by_block(weights[None], structure), strict=True):
        np.testing.assert_array_equal(ours, np.broadcast_to(theirs, ours.shape))
    assert (np.mean(graphs[:, structure.mask] == weights[structure.mask], axis=1) < 0.35).all()  # 30 blocks have 1 edge


def test_the_ratio_shuffle_keeps_strengths_and_nearly_the_ratios():
    structure = layered()
    weights = heterogeneous(np.random.default_rng(1), structure, noise=1)
    graphs = drawn("ratio", weights, structure, 50)
    assert graphs.shape == (50, 30, 30) and not graphs[:, ~structure.mask].any()
    for axis in (0, 1):
        strengths = weights.sum(axis)
        np.testing.assert_allclose(graphs.sum(axis + 1), np.tile(strengths, (50, 1)), rtol=1e-8, atol=1e-8)
    expected = np.where(structure.mask, expected_weights(weights, structure.mask), 1)
    of_graphs, of_weights = (np.sort((x / expected)[..., structure.mask], -1) for x in (graphs, weights))
    np.testing.assert_allclose(of_graphs.mean(0), of_weights, rtol=0.25, atol=0.02)
    assert np.abs(of_graphs.std(1).mean() / of_weights.std() - 1) < 0.1
    rearranged = [
        np.corrcoef(np.log((x / expected)[structure.mask]), np.log((weights / expected)[structure.mask]))[0, 1]
        for x in graphs
    ]
    assert max(rearranged) < 0.5


def test_nodes_without_strength_stay_without_and_give_no_zeros_to_others():
    structure = layered()
    weights = heterogeneous(np.random.default_rng(2), structure)
    weights[[1, 7, 8]] = 0
    weights[:, 21] = 0
    graphs = drawn("ratio", weights, structure, 20)
    assert len(graphs) == 20
    np.testing.assert_array_equal(graphs > 0, np.broadcast_to(weights > 0, graphs.shape))


def test_null_weights_are_bounded():
    structure = layered(3, 3)
    weights = heterogeneous(np.random.default_rng(3), structure, noise=2)
    weights *= 1.9 / weights.max()
    graphs = drawn("ratio", weights, structure, 200)
    assert graphs.max() == BOUND  # some draw would have been above
    assert drawn("ratio", 10 * weights, structure, 200).max() == pytest.approx(19)


# --- what is random ------------------------------------------------------------------------------------------------


def test_all_permutations_are_equally_likely():
    mask = np.zeros((5, 5), bool)
    mask[0, 1:4] = mask[:4, 4] = True  # one node before three peers, one after
    classes = np.array([0, 1, 1, 1, 2])
    weights = np.arange(25.0).reshape(5, 5) * mask
    graphs = shuffle_blocks(weights, mask, Blocks(mask, classes), 6000, np.random.default_rng(4))
    out, into = graphs[:, 0, 1:4].argsort(1) @ [9, 3, 1], graphs[:, 1:4, 4].argsort(1) @ [9, 3, 1]
    counts = np.unique(out, return_counts=True)[1]
    assert len(counts) == 6 and chisquare(counts).pvalue > 0.01
    both = np.unique(out * 100 + into, return_counts=True)[1]  # blocks are permuted independently
    assert len(both) == 36 and chisquare(both).pvalue > 0.01
    assert (graphs[:, 0, 4] == weights[0, 4]).all()


def test_ordering_puts_values_where_keys_are():
    mask = np.zeros((5, 5), bool)
    mask[0, 1:4] = mask[:4, 4] = True
    blocks = Blocks(mask, np.array([0, 1, 1, 1, 2]))
    values = np.array([7.0, 5, 6, 100, 2, 3, 1])  # edges 0->1..3, 0->4, 1..3->4
    keys = np.array([[0.1, 0.3, 0.2, -5, 9, 8, 7]])
    np.testing.assert_array_equal(blocks.ordered(values, keys), [[5, 7, 6, 100, 3, 2, 1]])


@pytest.mark.parametrize("null", ["block", "ratio"])
def test_the_same_seed_gives_the_same_graphs_however_many(null):
    structure = layered()
    weights = heterogeneous(np.random.default_rng(5), structure)
    many, few = drawn(null, weights, structure, 300), drawn(null, weights, structure, 7)
    np.testing.assert_allclose(many[:7], few, rtol=1e-6)
    np.testing.assert_array_equal(many, drawn(null, weights, structure, 300))
    assert not np.isclose(many, drawn(null, weights, structure, 300, seed=1)).all((1, 2)).any()
    assert len(np.unique(many.reshape(300, -1), axis=0)) == 300


def test_graphs_without_structure_have_null_graphs_or_none():
    structure = layered()
    blocks, rng = Blocks(structure.mask, structure.classes), np.random.default_rng(6)
    for weights in (np.zeros((30, 30)), np.where(structure.mask, 0.5, 0)):
        for shuffle in (shuffle_blocks, shuffle_ratio):
            graphs = shuffle(weights, structure.mask, blocks, 5, rng)
            np.testing.assert_allclose(graphs, np.tile(weights, (5, 1, 1)), atol=1e-8)
    empty = np.zeros((1, 1), bool)
    for null in ("block", "ratio"):
        assert not np.concatenate([*draw(null, np.zeros((1, 1)), empty, np.zeros(1, int), 9, [0])]).any()


# --- comparison ----------------------------------------------------------------------------------------------------


def test_comparison_by_hand():
    values = np.arange(1.0, 20)  # 19 of them
    found = compare(np.array([0.0, 10, 17.5, np.nan]), np.tile(values[:, None], (1, 4)))
    np.testing.assert_allclose(found.p, [2 * 1 / 20, 1, 2 * 3 / 20, np.nan])
    np.testing.assert_allclose(found.z[:3], (np.array([0, 10, 17.5]) - 10) / values.std(ddof=1))
    np.testing.assert_allclose([found.mean, found.low, found.high], np.tile([[10], [1.9], [18.1]], (1, 4)))
    assert np.isnan(found.z[3]) and found.draws.tolist() == [19] * 4
    values[3] = np.nan  # 18 are too few
    few = compare(np.array([0.0]), values[:, None])
    assert few.draws == 18 and np.isnan([value[0] for value in few[:-1]]).all()


def test_what_a_null_model_keeps_has_no_z():
    rng = np.random.default_rng(7)
    kept = 3 * (1 + 1e-9 * rng.normal(size=(50, 1)))
    for observed in (3.0, 3 * (1 + 1e-8), 4.0):
        found = compare(np.array([observed]), kept)
        assert np.isnan(found.z).all() and np.isnan(found.p).all() and found.mean == pytest.approx(3)
    all_missing = compare(np.array([1.0]), np.full((50, 1), np.nan))
    assert all_missing.draws == 0 and np.isnan(all_missing.mean)


def test_p_of_exchangeable_values_is_uniform():
    values = np.random.default_rng(8).lognormal(0, 2, (100, 4000))
    found = compare(values[0], values[1:])
    assert uniform_p(found.p) > 0.01
    assert np.mean(found.p <= 0.1) == pytest.approx(0.1, abs=0.015)
    assert found.p.min() == pytest.approx(2 / 100)


# --- what stands out -----------------------------------------------------------------------------------------------


def metrics_of(graphs, structure):
    found = suite.of_strengths(graphs, structure) | suite.of_triangles(graphs, structure)
    return found | suite.of_paths(graphs, structure)


def compared(null, weights, structure, draws=99, seed=0, metrics=metrics_of):
    observed = metrics(weights[None], structure)
    of_draws = metrics(drawn(null, weights, structure, draws, seed), structure)
    return {name: compare(value, of_draws[name][:, None]) for name, value in observed.items()}


def test_p_is_uniform_on_graphs_drawn_from_the_null():
    """Which it is not if null graphs are systematically more even, as without restoring the ratios' values."""
    structure = layered()
    p = {}
    for seed in range(60):
        weights = heterogeneous(np.random.default_rng(seed), structure, noise=1)
        observed = drawn("ratio", weights, structure, 1, seed)[0]
        for name, found in compared("ratio", observed, structure, seed=1000 + seed).items():
            p.setdefault(name, []).append(found.p[0])
    for name in ("clustering_out", "clustering_middleman", "clustering_in", "efficiency", "gini_betweenness", "width"):
        assert uniform_p(p[name]) > 0.01, name
    for name in ("gini_out_strength", "gini_in_strength", "skip_length"):  # functions of the strengths
        assert np.isnan(p[name]).all(), name


def test_differences_of_strength_stand_out_against_blocks_only():
    structure = layered()
    stands_out = {"block": {}, "ratio": {}}
    for seed, null in itertools.product(range(40), stands_out):
        weights = heterogeneous(np.random.default_rng(seed), structure)
        for name, found in compared(null, weights, structure, seed=seed).items():
            stands_out[null].setdefault(name, []).append(found.p[0] <= 0.05)
    rates = {null: {name: np.mean(values) for name, values in of.items()} for null, of in stands_out.items()}
    for name in ("gini_out_strength", "gini_in_strength", "clustering_middleman", "efficiency"):
        assert rates["block"][name] > 0.7, (name, rates)
    assert max(rates["ratio"].values()) <= 0.2 and np.mean([*rates["ratio"].values()]) < 0.1, rates


def test_planted_triangles_stand_out_against_both():
    """Above the one and below the other: with the same strengths, weight that is spread out closes more triangles."""
    structure = layered()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weights = heterogeneous(rng, structure, spread=0.3)
        for _ in range(12):
            u, m, v = np.sort(rng.choice(6, 3, replace=False)) * 5 + rng.integers(0, 5, 3)
            weights[[u, m, u], [m, v, v]] = 27 * np.exp(-6)
        for null, sign in (("block", 1), ("ratio", -1)):
            found = compared(null, weights, structure, metrics=suite.of_triangles)["clustering_middleman"]
            assert sign * found.z[0] > 3 and found.p[0] == 2 / 100


def test_planted_communities_stand_out_against_both_and_nothing_does_where_there_are_none():
    structure = layered()
    for strength, stands_out in ((4, True), (1, False)):
        rng = np.random.default_rng(11)
        group = rng.integers(0, 3, 30)
        weights = heterogeneous(rng, structure, spread=0.5) * np.where(np.equal.outer(group, group), strength, 1)
        for null in ("block", "ratio"):
            found = compared(null, weights, structure, draws=19, metrics=suite.of_communities)["modularity"]
            assert (found.z[0] > 4 and found.p[0] == 0.1) == stands_out


def test_a_checkpoint_is_compared_by_effect():
    structure = layered()
    rng = np.random.default_rng(12)
    weights = {effect: np.stack([heterogeneous(rng, structure)] * 2) for effect in Effect}
    metrics = {}
    for effect, of in weights.items():
        found = metrics_of(of, structure) | suite.of_flow(of, structure) | suite.of_weights(of, structure)
        found |= suite.of_communities(of, structure)
        metrics |= {f"{effect}.{name}": values for name, values in found.items()}
    plan = suite.planned_draws(30, 399)
    assert plan.searches < plan.paths == plan.cheap == 399
    result = against_nulls(weights, Effect.DIRECT, structure, metrics, 399, [0, 512])
    table = dict(zip(result["null_names"].tolist(), result["nulls"], strict=True))
    columns = result["null_columns"].tolist()
    assert result["nulls"].shape == (len(table), 7)
    for name, row in table.items():
        effect, metric, null = name.split(".")
        composed = {"max_flow", *suite.of_paths(weights[effect], structure)}
        composed |= {*suite.of_triangles(weights[effect], structure)}
        searched = {"max_flow", *suite.of_communities(weights[effect][:1], structure)}
        assert (effect == "direct") == (metric in composed)
        assert row[columns.index("draws")] == (plan.searches if metric in searched else 399)
        assert (row[columns.index("low")] <= row[columns.index("high")]) or np.isnan(row[0]), (name, null)
    ginis = table["total.gini_out_strength.block"], table["total.gini_out_strength.ratio"]
    assert np.isfinite(ginis[0][columns.index("z")]) and np.isnan(ginis[1][columns.index("z")])
    observed = metrics["total.gini_out_strength"][0]
    assert ginis[1][0] == pytest.approx(observed) == pytest.approx(gini(weights["total"][0].sum(1)[:25]))
    assert not against_nulls(weights, Effect.DIRECT, structure, metrics, 0, [0])["nulls"].size

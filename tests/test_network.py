"""The network stage against networkx, scipy, closed forms, brute force and planted answers (about 10 s)."""

import itertools
import subprocess
import sys

import networkx as nx
import numpy as np
import polars as pl
import pytest
from scipy.stats import kendalltau, spearmanr

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.model.nodes import describe_graph, nodes_of
from phasegraph.network import distances, graph, metrics, roles, scores
from phasegraph.network.__main__ import main
from phasegraph.series.manifest import write_manifest
from phasegraph.series.table import Audited
from phasegraph.types import Kind, Node

pytestmark = pytest.mark.filterwarnings("error")


def components(layers=6, heads=4):
    return nodes_of(layers, heads)


def mask_of(nodes):
    layer = np.array([node.layer for node in nodes])
    return layer[:, None] < layer


def replicates(groups):
    """Estimate and leave-one-out means [17, ...] of group values [16, ...]."""
    left_out = [np.delete(groups, k, axis=0).mean(0) for k in range(len(groups))]
    return np.concatenate([groups.mean(0)[None], left_out])


def random_edges(rng, mask, count=1):
    return np.exp(rng.normal(-4, 1, (count, *mask.shape))) * mask


def save_nodes(path, nodes):
    lines = [f"{n.index}\t{n.name}\t{n.layer}\t{n.kind}\t{'' if n.head is None else n.head}" for n in nodes]
    path.write_text("\n".join(["index\tname\tlayer\tkind\thead", *lines]) + "\n")


# --- reading -------------------------------------------------------------------------------------------------------


def test_nodes_and_mask_come_back_as_written(tmp_path):
    nodes = components()
    save_nodes(tmp_path / "nodes.tsv", nodes)
    np.save(tmp_path / "mask.npy", mask_of(nodes))
    assert graph.read_nodes(tmp_path / "nodes.tsv") == nodes
    np.testing.assert_array_equal(graph.read_mask(tmp_path / "mask.npy", 30), mask_of(nodes))
    is_mlp = np.array([node.kind is Kind.MLP for node in nodes])
    layer = np.array([node.layer for node in nodes])
    sequential = mask_of(nodes) | ((layer[:, None] == layer) & ~is_mlp[:, None] & is_mlp)
    np.save(tmp_path / "mask.npy", sequential)
    np.testing.assert_array_equal(graph.read_mask(tmp_path / "mask.npy", 30), sequential)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("L2H1", "L2H9"),
        ("11\tL2H1", "12\tL2H1"),
        ("index", "number"),
        ("L2MLP\t2\tmlp\t", "L2MLP\t2\tmlp\t4"),
        ("head\t1", "x\t1"),
    ],
)
def test_a_wrong_nodes_file_is_named(tmp_path, old, new):
    path = tmp_path / "nodes.tsv"
    save_nodes(path, components())
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PhasegraphError, match=r"nodes\.tsv: line"):
        graph.read_nodes(path)


def test_embedding_and_logits_have_their_places(tmp_path):
    path = tmp_path / "nodes.tsv"
    nodes = nodes_of(2, 2, embed=True, logits=True)
    for ends in (nodes, nodes[:-1], [Node(n.index - 1, n.layer, n.kind, n.head) for n in nodes[1:]]):
        save_nodes(path, ends)
        assert graph.read_nodes(path) == ends
    assert graph.are_components(nodes).tolist() == [False, *[True] * 6, False]
    save_nodes(path, nodes)
    good = path.read_text()
    for old, new in (
        ("embed\t-1\tembed", "embed\t0\tembed"),
        ("logits\t2\tlogits", "logits\t3\tlogits"),
        ("3\tL0MLP\t0\tmlp", "3\tembed\t-1\tembed"),
        ("3\tL0MLP\t0\tmlp", "3\tlogits\t1\tlogits"),
        ("embed\t-1\tembed\t", "embed\t-1\tembed\t0"),
        ("0\tembed\t-1\tembed\t", "0\tL-1H0\t-1\thead\t0"),
    ):
        assert old in good
        path.write_text(good.replace(old, new))
        with pytest.raises(PhasegraphError, match=r"nodes\.tsv: line"):
            graph.read_nodes(path)
    only = nodes_of(1, 4, embed=True, logits=True)
    with pytest.raises(PhasegraphError, match="no edge between components"):
        graph.between_components(mask_of(only), graph.are_components(only))


def test_a_mask_that_is_no_partial_order_is_refused(tmp_path):
    path = tmp_path / "mask.npy"
    mask = mask_of(components())
    for row, column, value, why in ((0, 0, True, "partial order"), (0, 29, False, "partial order")):
        wrong = mask.copy()
        wrong[row, column] = value
        np.save(path, wrong)
        with pytest.raises(PhasegraphError, match=why):
            graph.read_mask(path, 30)
    np.save(path, mask)
    with pytest.raises(PhasegraphError, match=r"mask\.npy.*expected bool \[29, 29\]"):
        graph.read_mask(path, 29)
    np.save(path, np.zeros_like(mask))
    with pytest.raises(PhasegraphError, match="no edge is possible"):
        graph.read_mask(path, 30)


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        ((3, 2, 25), np.nan, r"512\.npy: weight 2 -> 25 .* replicate 3, is NaN.*exclude this checkpoint"),
        ((0, 2, 25), np.inf, r"512\.npy: .* is infinite"),
        ((0, 2, 25), -0.01, r"512\.npy: .* is negative"),
        ((16, 25, 2), 0.5, r"512\.npy: .* is not a possible edge"),
        ((16, 25, 2), np.nan, r"512\.npy: .* is not a possible edge"),
    ],
)
def test_wrong_edges_are_refused_by_name(tmp_path, where, value, why):
    mask = mask_of(components())
    edges = random_edges(np.random.default_rng(0), mask, 17).astype(np.float32)
    edges[where] = value
    np.save(tmp_path / "512.npy", edges)
    with pytest.raises(PhasegraphError, match=why):
        graph.read_edges(tmp_path / "512.npy", mask)


def test_edges_of_another_shape_damaged_or_missing(tmp_path):
    mask, path = mask_of(components()), tmp_path / "8.npy"
    with pytest.raises(PhasegraphError, match=r"8\.npy: no such file"):
        graph.read_edges(path, mask)
    np.save(path, np.zeros((16, 30, 30), np.float32))
    with pytest.raises(PhasegraphError, match=r"8\.npy: float32 \[16, 30, 30\], expected"):
        graph.read_edges(path, mask)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PhasegraphError, match=r"8\.npy: not a readable"):
        graph.read_edges(path, mask)


def test_rounding_errors_below_zero_become_zero(tmp_path):
    mask = mask_of(components())
    edges = random_edges(np.random.default_rng(0), mask, 17).astype(np.float32)
    edges[:, 0, 29] = -3e-8
    np.save(tmp_path / "8.npy", edges)
    read = graph.read_edges(tmp_path / "8.npy", mask)
    np.testing.assert_array_equal(read, np.maximum(edges, 0))
    assert read.dtype == np.float64


# --- metrics -------------------------------------------------------------------------------------------------------


def test_closed_forms_of_concentration():
    n = 40
    assert metrics.gini(np.full(n, 0.3)) == pytest.approx(0, abs=1e-12)
    assert metrics.gini(np.eye(n)[7]) == pytest.approx((n - 1) / n)
    assert metrics.gini(np.arange(n, 0, -1.0)) == pytest.approx((n - 1) / (3 * n))
    np.testing.assert_allclose(metrics.effective_number(np.full((2, n), 0.3)), n)
    np.testing.assert_allclose(metrics.effective_number(np.eye(n)[7]), 1)
    entropy, simpson = metrics.effective_number(0.5 ** np.arange(60))  # geometric: entropy 2 log 2, sum p^2 = 1/3
    assert (entropy, simpson) == (pytest.approx(4), pytest.approx(3))
    assert metrics.top_share(np.full(300, 2.0), 0.01) == pytest.approx(3 / 300)
    assert metrics.top_share(np.arange(1, 101.0), 0.10) == pytest.approx(sum(range(91, 101)) / 5050)


def test_against_networkx():
    rng = np.random.default_rng(1)
    nodes = components()
    mask = mask_of(nodes)
    edges = random_edges(rng, mask, 3)
    edges[:, rng.random(mask.shape) < 0.3] = 0
    values, betweenness = metrics.path_metrics(edges, mask)
    strengths = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    for r, weights in enumerate(edges):
        reference = nx.DiGraph()
        reference.add_nodes_from(range(30))
        reference.add_edges_from(
            (u, v, {"weight": weights[u, v], "length": 1 / weights[u, v]}) for u, v in np.argwhere(weights > 0).tolist()
        )
        expected = nx.betweenness_centrality(reference, weight="length", normalized=False)
        np.testing.assert_allclose(betweenness[r] * mask.sum(), [expected[v] for v in range(30)], rtol=0, atol=1e-10)
        lengths = dict(nx.all_pairs_dijkstra_path_length(reference, weight="length"))
        inverse = [1 / d for u in lengths for v, d in lengths[u].items() if u != v]
        assert values["efficiency"][r] == pytest.approx(sum(inverse) / mask.sum(), abs=1e-10)
        for name, degree in (("out_strength", reference.out_degree), ("in_strength", reference.in_degree)):
            expected = dict(degree(weight="weight"))
            np.testing.assert_allclose(strengths[f"{name}.raw"][r], [expected[v] for v in range(30)], atol=1e-10)


def paths_by_enumeration(weights):
    """Efficiency sum and betweenness of a DAG in topological order by listing every path."""
    n = len(weights)
    total, betweenness = 0.0, np.zeros(n)
    for s, t in itertools.combinations(range(n), 2):
        found = {}
        for size in range(t - s):
            for middle in itertools.combinations(range(s + 1, t), size):
                steps = itertools.pairwise((s, *middle, t))
                if all(weights[u, v] > 0 for u, v in itertools.pairwise((s, *middle, t))):
                    found[middle] = sum(1 / weights[u, v] for u, v in steps)
        if found:
            shortest = min(found.values())
            total += 1 / shortest
            best = [middle for middle, length in found.items() if length < shortest * (1 + 1e-9)]
            for middle in best:
                betweenness[list(middle)] += 1 / len(best)
    return total, betweenness


@pytest.mark.parametrize("ties", [False, True])
def test_paths_against_enumeration(ties):
    rng = np.random.default_rng(2)
    mask = np.triu(np.ones((8, 8), bool), 1)
    weights = 1 / rng.integers(1, 5, (20, 8, 8)) if ties else rng.lognormal(-3, 1.5, (20, 8, 8))
    edges = weights * mask * (rng.random((20, 8, 8)) < 0.8)
    values, betweenness = metrics.path_metrics(edges, mask)
    for r in range(20):
        total, expected = paths_by_enumeration(edges[r])
        assert values["efficiency"][r] == pytest.approx(total / mask.sum(), abs=1e-10)
        np.testing.assert_allclose(betweenness[r] * mask.sum(), expected, atol=1e-10)
    assert betweenness.max() > 0


def test_betweenness_of_a_full_relay_is_the_share_of_its_pairs():
    nodes = components(layers=3, heads=3)  # 4 nodes a layer; everything runs through one node of the middle layer
    mask = mask_of(nodes)
    edges = np.where(mask, 1e-3, 0)
    edges[:4, 5] = edges[5, 8:] = 1
    values, betweenness = metrics.path_metrics(edges[None], mask)
    assert values["gini_betweenness"] == pytest.approx(3 / 4)  # one of the four nodes that can stand between has all
    result = scores.betweenness_scores(betweenness, mask, scores.classes(nodes))
    assert result["betweenness.raw"][0, 5] == pytest.approx(16 / 48)
    assert result["betweenness.per_edge"][0, 5] == pytest.approx(1)
    assert result["betweenness.block"][0, 5] == pytest.approx(1 - 1 / 3)
    assert np.isnan(result["betweenness.per_edge"][0, [0, 11]]).all()


def test_degenerate_graphs():
    nodes = components()
    mask = mask_of(nodes)
    equal, zero, dead = np.where(mask, 0.25, 0), np.zeros(mask.shape), random_edges(np.random.default_rng(3), mask)[0]
    dead[10:15] = 0  # layer 2 reaches nothing
    edges = np.stack([equal, zero, dead])
    weight = metrics.weight_metrics(edges, mask)
    path, betweenness = metrics.path_metrics(edges, mask)
    assert weight["n_eff_entropy"][0] == pytest.approx(375)
    assert weight["gini"][0] == pytest.approx(0, abs=1e-12)
    assert path["efficiency"][0] == pytest.approx(0.25)  # the direct edge is the shortest path
    for name in ("gini_out_strength", "gini_in_strength"):  # 1..5 layers of five nodes on that side; no sixth
        assert weight[name][0] == pytest.approx(metrics.gini(np.arange(1, 6.0))) == pytest.approx(4 / 15)
    assert (weight["mean_weight"][1], path["efficiency"][1]) == (0, 0)
    for name in ("gini", "gini_sqrt", "n_eff_entropy", "n_eff_simpson", "top1_share", "gini_out_strength"):
        assert np.isnan(weight[name][1]) and np.isfinite(weight[name][[0, 2]]).all()
    assert np.isnan(path["gini_betweenness"][:2]).all()  # nobody stands between in either
    assert (betweenness[2, 10:15] == 0).all()
    block = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))[
        "out_strength.block"
    ]
    heads = [node.index for node in nodes if node.kind is Kind.HEAD and node.layer < 5]
    np.testing.assert_allclose(block[0, heads], 0, atol=1e-12)
    assert np.isnan(block[1]).all() and np.isnan(block[2, 10:15]).all()
    assert np.isfinite(block[2, [h for h in heads if h // 5 != 2]]).all()


# --- node scores and roles -----------------------------------------------------------------------------------------


def test_block_score_by_hand():
    nodes = components(layers=2, heads=3)
    mask = mask_of(nodes)
    edges = np.zeros((1, 8, 8))
    edges[0, :4, 4:] = [[1, 1, 1, 8], [2, 2, 2, 4], [4, 4, 4, 2], [3, 3, 3, 3]]
    result = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    # head -> head block: median 2; head -> MLP block: median 4; the lone MLP has no peers, the last layer no edges
    out = [(3 * np.log(1 / 2) + np.log(8 / 4)) / 4, 0, (3 * np.log(4 / 2) + np.log(2 / 4)) / 4]
    np.testing.assert_allclose(result["out_strength.block"][0, :3], out, atol=1e-12)
    assert np.isnan(result["out_strength.block"][0, 3:]).all()
    np.testing.assert_allclose(result["out_strength.per_edge"][0, :4], [11 / 4, 10 / 4, 14 / 4, 3])
    assert np.isnan(result["in_strength.block"][0, [0, 1, 2, 3, 7]]).all()
    np.testing.assert_allclose(result["in_strength.block"][0, 4:7], 0, atol=1e-12)
    edges[0, 0, 4] = 0  # a zero counts as a thousandth of the median, not as minus infinity
    result = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    expected = (np.log(1e-3) + 2 * np.log(1 / 2) + np.log(8 / 4)) / 4
    assert result["out_strength.block"][0, 0] == pytest.approx(expected)


def test_block_scores_have_no_layer_preference_but_raw_ones_do():
    rng = np.random.default_rng(4)
    nodes = components(layers=8, heads=6)
    mask = mask_of(nodes)
    layer = np.array([node.layer for node in nodes])
    decay = np.exp(-0.3 * np.abs(layer[:, None] - layer) - 0.2 * layer[:, None])
    graphs = np.stack([random_edges(rng, mask)[0] * decay * rng.lognormal(0, 0.5, (56, 1)) for _ in range(60)])
    _, betweenness = metrics.path_metrics(graphs, mask)
    peers = scores.classes(nodes)
    result = scores.strength_scores(graphs, mask, peers, graph.are_components(nodes)) | scores.betweenness_scores(
        betweenness, mask, peers
    )

    def preference(name):
        kept = np.isfinite(result[name][0])
        return np.mean([spearmanr(values[kept], layer[kept]).statistic for values in result[name]])

    assert preference("out_strength.raw") < -0.5
    assert preference("in_strength.raw") > 0.3
    for name in ("out_strength.block", "in_strength.block", "betweenness.block"):
        assert abs(preference(name)) < 0.1


def test_planted_roles_are_found_where_raw_scores_miss_them():
    rng = np.random.default_rng(5)
    nodes = components()
    mask = mask_of(nodes)
    edges = np.exp(rng.normal(-4, 0.3, (1, 30, 30))) * mask
    spreader, gatherer = 21, 6  # L4H1 has five targets only, L1H1 five sources
    edges[:, spreader] *= 3
    edges[:, :, gatherer] *= 3
    result = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    for name, planted in (("out_strength", spreader), ("in_strength", gatherer)):
        assert roles.rank_nodes(result[f"{name}.block"])[0, planted] == 1
        assert not roles.holders(result[f"{name}.raw"], 3)[0, planted]


def test_ranks_and_holders():
    values = np.array([0.5, np.nan, 0.9, 0.0, 0.5, 0.0])
    np.testing.assert_array_equal(roles.rank_nodes(values), [2, np.nan, 1, 4, 2, 4])
    assert roles.holders(values, 2).tolist() == [False, False, True, False, False, False]  # the tie straddles the cut
    assert roles.holders(values, 4).tolist() == [True, False, True, False, True, False]
    assert [roles.holder_count(n) for n in (8, 30, 408)] == [3, 3, 41]


def test_kendall_tau_b_against_scipy():
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 6, (2, 5, 30)).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    y[rng.random(y.shape) < 0.2] = np.nan
    expected = [kendalltau(a, b, nan_policy="omit").statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(roles.kendall_tau_b(x, y), expected, atol=1e-12)
    assert np.isnan(roles.kendall_tau_b(np.ones((1, 5)), np.arange(5.0)[None]))


def test_jaccard_is_corrected_for_chance():
    rng = np.random.default_rng(7)
    x, y = rng.random((2, 4000, 30))
    assert abs(roles.excess_jaccard(x, y, 3).mean()) < 0.01
    assert (roles.excess_jaccard(x, x, 3) == 1).all()
    sets = [(set(rng.permutation(9)[:4]), set(rng.permutation(9)[:2])) for _ in range(20000)]
    simulated = np.mean([len(a & b) / len(a | b) for a, b in sets])
    assert roles.chance_jaccard(9, 4, 2) == pytest.approx(simulated, abs=0.005)
    assert np.isnan(roles.excess_jaccard(np.zeros((1, 9)), x[:1, :9], 3))  # all tie: no holder


def test_strengths_with_embedding_and_logits_by_hand():
    nodes = nodes_of(2, 1, embed=True, logits=True)  # embed, L0H0, L0MLP, L1H0, L1MLP, logits
    edges = np.zeros((1, 6, 6))
    edges[0, 0, 1:] = 5, 4, 3, 2, 1
    edges[0, 1, 3:], edges[0, 2, 3:], edges[0, 3:5, 5] = (7, 8, 9), (0.5, 1, 2), (4, 6)
    mask, of = mask_of(nodes), graph.are_components(nodes)
    result = scores.strength_scores(edges, mask, scores.classes(nodes), of)
    np.testing.assert_array_equal(result["out_strength.raw"][0], [14, 15, 1.5, 0, 0, 0])
    np.testing.assert_array_equal(result["in_strength.raw"][0], [0, 0, 0, 7.5, 9, 21])
    np.testing.assert_array_equal(result["out_strength.per_edge"][0], [3.5, 7.5, 0.75, *[np.nan] * 3])
    np.testing.assert_array_equal(result["in_strength.per_edge"][0], [*[np.nan] * 3, 3.75, 4.5, 5.25])
    assert roles.eligible("spreader", mask, of).tolist() == [True, True, True, False, False, False]
    assert roles.eligible("gatherer", mask, of).tolist() == [False, False, False, True, True, True]
    assert not roles.eligible("gatekeeper", mask, of).any()


# --- jackknife -----------------------------------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_the_textbook_interval():
    groups = np.random.default_rng(8).normal(3, 2, (16, 5))
    result = delete_group(replicates(groups))
    error = groups.std(0, ddof=1) / 4
    np.testing.assert_allclose(result.corrected, groups.mean(0))
    np.testing.assert_allclose(result.standard_error, error)
    np.testing.assert_allclose(result.high - result.low, 2 * 1.7530503556925 * error)  # t_15 at 95 %


def test_jackknife_removes_the_bias_of_a_square():
    groups = np.random.default_rng(9).normal(1, 2, (4000, 16))
    squares = replicates(groups.T) ** 2  # E = 1 + 4 / 16
    result = delete_group(squares)
    np.testing.assert_allclose(result.corrected, groups.mean(1) ** 2 - groups.var(1, ddof=1) / 16)
    assert result.estimate.mean() == pytest.approx(1.25, abs=0.06)
    assert result.corrected.mean() == pytest.approx(1, abs=0.06)
    stepwise = delete_group(squares, smooth=np.arange(4000) > 0)
    assert stepwise.corrected[0] == result.estimate[0] and stepwise.corrected[1] == result.corrected[1]
    assert (stepwise.low[0] + stepwise.high[0]) / 2 == pytest.approx(result.estimate[0])


def test_jackknife_passes_a_failed_replicate_on():
    values = np.ones((17, 3))
    values[5, 1] = np.nan
    for smooth in (True, False):
        result = delete_group(values, smooth)
        assert result.estimate.tolist() == [1, 1, 1]
        for part in result[1:]:
            assert np.isnan(part).tolist() == [False, True, False]


# --- distances -----------------------------------------------------------------------------------------------------


def test_distances_against_scipy():
    rng = np.random.default_rng(10)
    vectors = np.round(rng.lognormal(0, 1, (7, 200)), 1)  # with ties
    expected = 1 - spearmanr(vectors, axis=1).statistic
    result = distances.distance_matrix(distances.standard_ranks(vectors))
    np.testing.assert_allclose(result, expected, atol=1e-12)
    np.testing.assert_array_equal(result, result.T)
    assert np.isnan(distances.standard_ranks(np.ones(5))).all()


def test_halves_are_means_of_their_groups():
    groups = np.random.default_rng(11).lognormal(0, 1, (16, 50))
    splits = distances.half_splits(16)
    assert (splits.sum(1) == 8).all() and len(np.unique(splits, axis=0)) > 1
    halves = distances.half_ranks(replicates(groups), splits)
    for k, split in enumerate(splits):
        np.testing.assert_allclose(halves[0, k], distances.standard_ranks(groups[split].mean(0)), atol=1e-12)
        np.testing.assert_allclose(halves[1, k], distances.standard_ranks(groups[~split].mean(0)), atol=1e-12)


def test_noise_floor_is_zero_without_noise():
    weights = np.tile(np.random.default_rng(12).lognormal(0, 1, 50).astype(np.float32).astype(float), (17, 1))
    halves = distances.half_ranks(weights, distances.half_splits(16))
    assert distances.noise_floor(halves) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("shared", "own"), [(0.3, 0.02), (0, 0.3)])
def test_excess_churn_is_the_true_churn_whether_or_not_noise_is_shared(shared, own):
    rng = np.random.default_rng(13)
    splits = distances.half_splits(16)
    for change in (0, 0.15):
        excess, churn, floor, truth = [], [], [], []
        for _ in range(30):
            before = rng.lognormal(-4, 1.2, 375)
            after = before * np.exp(rng.normal(0, change, 375))
            prompts = rng.normal(0, shared, (16, 375))
            both = [replicates(mu * np.exp(prompts + rng.normal(0, own, (16, 375)))) for mu in (before, after)]
            halves = [distances.half_ranks(w, splits) for w in both]
            excess.append(distances.excess_churn(*halves))
            floor.append(distances.noise_floor(halves[0]))
            churn.append(1 - spearmanr(both[0][0], both[1][0]).statistic)
            truth.append(1 - spearmanr(before, after).statistic)
        assert np.mean(excess) == pytest.approx(np.mean(truth), rel=0.1, abs=2e-4)
        if shared and not change:
            assert np.mean(churn) - np.mean(floor) < -0.005  # what subtracting the floor from churn would claim


# --- both sub-commands ---------------------------------------------------------------------------------------------

STEPS = (0, 2, 16, 100, 200, 1000)
TURN = 100
SPREADER = 12  # L2H2


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Six checkpoints of 30 nodes: a planted spreader, and a reorganisation just before step TURN."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(14)
    nodes = components()
    mask = mask_of(nodes)
    save_graph(root, nodes, mask)
    wiring, prompts = random_edges(rng, mask)[0], np.exp(rng.normal(0, 0.2, (16, 30, 30)))
    wiring[SPREADER] *= 4
    for step in STEPS:
        if step == TURN:
            wiring = wiring * np.exp(rng.normal(0, 0.5, mask.shape))
        for suffix, factor in (("", 1), (".direct", np.exp(rng.normal(0, 0.3, mask.shape)))):
            groups = wiring * factor * prompts * np.exp(rng.normal(0, 0.02, (16, 30, 30)))
            np.save(root / "edges" / f"{step}{suffix}.npy", replicates(groups).astype(np.float32))
    return root


def arguments(root, step, out):
    words = ["checkpoint", "--edges", root / "edges" / f"{step}.npy", "--direct", root / "edges" / f"{step}.direct.npy"]
    return [str(word) for word in (*words, "--graph", root / "edges" / f"{step}.more.npz", "--out", out)]


def gather_arguments(root, out):
    steps = STEPS[::-1]  # in no useful order
    lists = ["--network", *(str(root / "network" / f"{s}.npz") for s in steps)]
    lists += ["--edges", *(str(root / "edges" / f"{s}.npy") for s in steps)]
    outputs = {"metrics": "parquet", "roles": "parquet", "distances": "npy", "replicates": "npz"}
    paths = [x for name, kind in outputs.items() for x in (f"--{name}", str(out / f"{name}.{kind}"))]
    files = ["--manifest", root / "series.tsv", "--nodes", root / "nodes.tsv", "--mask", root / "mask.npy"]
    return ["gather", *lists, *paths, *map(str, files)]


def save_graph(root, nodes, mask):
    """Write what both commands read besides edges."""
    (root / "edges").mkdir()
    save_nodes(root / "nodes.tsv", nodes)
    np.save(root / "mask.npy", mask)
    for step in STEPS:
        np.savez(root / "edges" / f"{step}.more.npz", **describe_graph(nodes, mask))
    write_manifest([Audited(step, f"{step}", used=True) for step in STEPS], root / "series.tsv")


def run(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["phasegraph.network", *words])
    main()


@pytest.fixture(scope="module")
def gathered(study):
    with pytest.MonkeyPatch.context() as patch:
        for step in STEPS:
            run(patch, arguments(study, step, study / "network" / f"{step}.npz"))
        run(patch, gather_arguments(study, study))
    return study


def test_metrics_table(gathered):
    table = pl.read_parquet(gathered / "metrics.parquet")
    assert table.columns == ["step", "effect", "metric", "estimate", "corrected", "low", "high"]
    assert table.select("step", "effect", "metric").is_unique().all()
    assert table["step"].unique().sort().to_list() == list(STEPS)
    edges = np.load(gathered / "edges" / "200.npy")[0].astype(float)
    row = table.row(by_predicate=(pl.col("step") == 200) & (pl.col("metric") == "mean_weight"), named=True)
    assert row["estimate"] == pytest.approx(edges[mask_of(components())].mean())
    assert row["low"] < row["corrected"] < row["high"]
    for metric in ("churn", "excess_churn", "tau_gatekeeper_raw", "gini_betweenness"):  # around the estimate
        rows = table.filter((pl.col("metric") == metric) & (pl.col("step") == TURN))
        np.testing.assert_allclose((rows["low"] + rows["high"]) / 2, rows["estimate"])
        assert (rows["low"] < rows["high"]).all()
    assert set(table.filter(pl.col("metric") == "efficiency")["effect"]) == {"total", "direct"}

    def series(metric):
        return table.filter(pl.col("metric") == metric).sort("step")["estimate"].to_list()

    churn, excess = series("churn"), series("excess_churn")
    vectors = [np.load(gathered / "edges" / f"{s}.npy")[0][mask_of(components())] for s in STEPS]
    expected = [1 - spearmanr(a, b).statistic for a, b in itertools.pairwise(vectors)]
    assert churn[0] is None and excess[0] is None
    np.testing.assert_allclose(churn[1:], expected, atol=1e-12)
    turn = STEPS.index(TURN)
    assert excess[turn] > 0.05
    assert max(abs(value) for i, value in enumerate(excess) if i not in (0, turn)) < 2e-4
    assert min(series("noise_floor")) > 1e-3
    for metric in ("tau_spreader_raw", "tau_gatherer_block", "tau_gatekeeper_raw"):
        stability = series(metric)
        assert stability[0] is None and min(stability[1:]) == stability[turn]


def test_roles_table(gathered):
    table = pl.read_parquet(gathered / "roles.parquet")
    columns = "step node layer kind role effect score_kind estimate low high rank holder"
    assert table.columns == columns.split()
    assert len(table) == len(STEPS) * 30 * 9
    ranked = table.drop_nulls()
    np.testing.assert_allclose((ranked["low"] + ranked["high"]) / 2, ranked["estimate"], atol=1e-12)
    assert (ranked["low"] <= ranked["high"]).all() and ranked["role"].n_unique() == 3
    spreaders = table.filter((pl.col("role") == "spreader") & (pl.col("score_kind") == "block"))
    assert spreaders.filter(pl.col("rank") == 1)["node"].to_list() == ["L2H2"] * len(STEPS)
    assert (spreaders.group_by("step").agg(pl.col("holder").sum())["holder"] == 3).all()
    assert spreaders.filter(pl.col("kind") == "mlp")["rank"].null_count() == 6 * len(STEPS)
    last = table.filter((pl.col("role") == "spreader") & (pl.col("layer") == 5))
    assert last["estimate"].null_count() == len(last) and not last["holder"].any()
    assert set(table.filter(pl.col("role") == "gatekeeper")["effect"]) == {"direct"}
    assert set(table.filter(pl.col("role") != "gatekeeper")["effect"]) == {"total"}


def test_distances_and_replicates(gathered):
    matrix = np.load(gathered / "distances.npy")
    turn = STEPS.index(TURN)
    regime = np.arange(len(STEPS)) >= turn
    same = np.equal.outer(regime, regime)
    assert matrix.dtype == np.float64 and matrix[same].max() < matrix[~same].min()
    with np.load(gathered / "replicates.npz") as file:
        steps, names, values = file["steps"], file["names"].tolist(), file["values"]
    assert steps.tolist() == list(STEPS) and values.shape == (len(STEPS), 17, len(names))
    mask = mask_of(components())
    before, after = (np.load(gathered / "edges" / f"{s}.npy")[5][mask] for s in (2, 16))
    churn = values[2, 5, names.index("total.churn")]
    assert churn == pytest.approx(1 - spearmanr(before, after).statistic, abs=1e-12)
    edges = np.load(gathered / "edges" / "16.npy")[:, mask].astype(float)
    np.testing.assert_allclose(values[2, :, names.index("total.gini")], metrics.gini(edges))


def test_the_same_command_gives_the_same_bytes(gathered, tmp_path, monkeypatch):
    run(monkeypatch, arguments(gathered, 16, tmp_path / "16.npz"))
    assert (tmp_path / "16.npz").read_bytes() == (gathered / "network" / "16.npz").read_bytes()
    run(monkeypatch, gather_arguments(gathered, tmp_path))
    for name in ("metrics.parquet", "roles.parquet", "distances.npy", "replicates.npz"):
        assert (tmp_path / name).read_bytes() == (gathered / name).read_bytes()


def test_embedding_and_logits_change_nothing_between_components(gathered, tmp_path, monkeypatch):
    nodes = nodes_of(6, 4, embed=True, logits=True)
    mask = mask_of(nodes)
    save_graph(tmp_path, nodes, mask)
    rng = np.random.default_rng(15)
    for step, suffix in itertools.product(STEPS, ("", ".direct")):
        edges = random_edges(rng, mask, 17).astype(np.float32)
        edges[:, 0] *= 50  # everything depends on the embedding
        edges[:, 1:-1, 1:-1] = np.load(gathered / "edges" / f"{step}{suffix}.npy")
        np.save(tmp_path / "edges" / f"{step}{suffix}.npy", edges)
    for step in STEPS:
        run(monkeypatch, arguments(tmp_path, step, tmp_path / "network" / f"{step}.npz"))
    run(monkeypatch, gather_arguments(tmp_path, tmp_path))
    np.testing.assert_array_equal(*(np.load(root / "distances.npy") for root in (gathered, tmp_path)))
    before, after = (pl.read_parquet(root / "metrics.parquet") for root in (gathered, tmp_path))
    assert before.drop("estimate", "corrected", "low", "high").equals(
        after.drop("estimate", "corrected", "low", "high")
    )
    for column in ("estimate", "corrected", "low", "high"):
        np.testing.assert_allclose(*(t[column].cast(float).fill_null(-9) for t in (before, after)), atol=1e-11)
    before, after = (pl.read_parquet(root / "roles.parquet") for root in (gathered, tmp_path))
    ends = after.filter(pl.col("node").is_in(["embed", "logits"]))
    inner = after.filter(~pl.col("node").is_in(["embed", "logits"]))
    for column in ("step", "node", "layer", "kind", "role", "effect", "score_kind", "rank", "holder"):
        assert before[column].equals(inner[column]), column
    for column in ("estimate", "low", "high"):
        np.testing.assert_allclose(*(t[column].fill_null(-9) for t in (before, inner)), atol=1e-11)
    assert ends["rank"].null_count() == len(ends) == len(STEPS) * 2 * 9 and not ends["holder"].any()
    assert set(ends["layer"]) == {-1, 6}
    known = ends.drop_nulls("estimate")
    assert set(known.select("node", "role", "score_kind").iter_rows()) == {
        (node, role, kind)
        for node, role in (("embed", "spreader"), ("logits", "gatherer"))
        for kind in ("raw", "per_edge")
    }
    edges = np.load(tmp_path / "edges" / "16.npy")[0].astype(float)
    raw = known.filter((pl.col("step") == 16) & (pl.col("score_kind") == "raw"))
    found = dict(raw.select("node", "estimate").iter_rows())
    assert found == pytest.approx({"embed": edges[0, 1:-1].sum(), "logits": edges[1:-1, -1].sum()})


def test_the_graph_of_a_checkpoint_comes_back_as_written_and_damage_is_named(tmp_path):
    nodes = nodes_of(2, 2, embed=True, logits=True)
    mask = mask_of(nodes)
    path = tmp_path / "8.more.npz"
    np.savez(path, **describe_graph(nodes, mask), total=np.zeros(3))
    found, possible = graph.read_graph(path)
    assert found == nodes
    np.testing.assert_array_equal(possible, mask)
    for harm in (path.read_bytes()[:-40], b"", None):
        path.unlink()
        if harm is not None:
            path.write_bytes(harm)
        with pytest.raises(PhasegraphError, match=r"8\.more\.npz: missing or damaged"):
            graph.read_graph(path)
        path.touch()
    np.savez(path, **describe_graph(nodes, mask | mask.T))
    with pytest.raises(PhasegraphError, match=r"8\.more\.npz: not a strict partial order"):
        graph.read_graph(path)


def test_gather_names_what_does_not_fit(gathered, tmp_path, monkeypatch):
    words = gather_arguments(gathered, tmp_path)
    edges = str(gathered / "edges" / "16.npy")
    cases = {
        "lists step 16, but there is no file of it": [w for w in words if w != edges],
        "direct.npy: its name is no step": [w.replace("16.npy", "16.direct.npy") for w in words],
        "16.npy: the same step as": [x for w in words for x in ([w, w] if w == edges else [w])],
        "absent/16.npz: no such file": [w.replace("network/16.npz", "absent/16.npz") for w in words],
        "16.npz: damaged": [w.replace(f"{gathered / 'network' / '16.npz'}", f"{tmp_path / '16.npz'}") for w in words],
    }
    (tmp_path / "16.npz").write_bytes((gathered / "network" / "16.npz").read_bytes()[:500])
    for message, arguments_ in cases.items():
        with pytest.raises(PhasegraphError, match=message):
            run(monkeypatch, arguments_)
    total_only = [w for w in arguments(gathered, 16, tmp_path / "16.npz") if "direct" not in w]
    run(monkeypatch, total_only)
    with pytest.raises(PhasegraphError, match=r"16\.npz: other nodes, metrics or effects"):
        run(monkeypatch, cases["16.npz: damaged"])
    assert not list(tmp_path.glob("*.parquet"))


def test_a_mistake_is_one_line_and_the_checkpoint_command_is_light(study, tmp_path):
    broken = tmp_path / "16.npy"
    edges = np.load(study / "edges" / "16.npy")
    edges[:, 0, 29] = np.nan
    np.save(broken, edges)
    words = [str(broken) if w.endswith("16.npy") else w for w in arguments(study, 16, tmp_path / "16.npz")]
    failed = subprocess.run([sys.executable, "-m", "phasegraph.network", *words], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith(f"phasegraph: error: {broken}: weight 0 -> 29")
    assert list(tmp_path.iterdir()) == [broken]
    code = "import sys; from phasegraph.network.__main__ import main; main(); print(*sys.modules)"
    words = arguments(study, 16, tmp_path / "16.npz")
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert not {"polars", "torch", "pandas", "scipy"} & set(ran.stdout.split())

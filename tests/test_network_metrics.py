"""Metrics, paths, flow, centralities, expectation against networkx, bctpy, igraph, brute force, closed forms (6 s).

Of these functions those of paths, flow and Katz centrality need a directed acyclic graph, so that Zachary's karate club
is no graph for them; the others take it.
"""

import itertools

import bct
import networkx as nx
import numpy as np
import pytest
from scipy.optimize import minimize

from phasegraph.model.nodes import nodes_of
from phasegraph.network import graph, metrics, scores
from phasegraph.network.centrality import harmonic, hubs_and_authorities, katz
from phasegraph.network.clustering import SCALE, triangles
from phasegraph.network.expectation import balance, expected_weights
from phasegraph.network.flow import max_flow, widest_path
from phasegraph.network.paths import betweenness, levels, shortest_paths, tree_betweenness
from phasegraph.types import Kind

pytestmark = pytest.mark.filterwarnings("error")

SEED = 20


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


def layered(layers=6, heads=4, sequential=False):
    """Nodes, layer of each, and possible edges of a model."""
    nodes = nodes_of(layers, heads)
    layer = np.array([node.layer for node in nodes])
    is_mlp = np.array([node.kind is Kind.MLP for node in nodes])
    within = (layer[:, None] == layer) & ~is_mlp[:, None] & is_mlp
    return nodes, layer, (layer[:, None] < layer) | (within & sequential)


def random_edges(rng, mask, count=3, absent=0.0):
    edges = np.exp(rng.normal(-4, 1, (count, *mask.shape))) * mask
    return np.where(rng.random(edges.shape) < absent, 0, edges)


def of_paths(edges, mask):
    """Metrics and betweenness [R, N] as the checkpoint command computes them."""
    trees = shortest_paths(edges, mask)
    through = np.stack([betweenness(*one, mask) for one in zip(edges, trees.distances, strict=True)])
    return metrics.path_metrics(trees, through, mask), through


def in_networkx(weights):
    reference = nx.DiGraph()
    reference.add_nodes_from(range(len(weights)))
    for u, v in np.argwhere(weights > 0).tolist():
        reference.add_edge(u, v, weight=weights[u, v], length=1 / weights[u, v])
    return reference


def listed(by_node):
    return [by_node[node] for node in range(len(by_node))]


def all_paths(mask, source, target):
    """Every path of a graph whose nodes are in topological order."""
    for size in range(target - source):
        for middle in itertools.combinations(range(source + 1, target), size):
            path = (source, *middle, target)
            if all(mask[u, v] for u, v in itertools.pairwise(path)):
                yield path


# --- concentration -------------------------------------------------------------------------------------------------


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


def test_gini_is_half_the_relative_mean_difference(rng):
    values = rng.lognormal(0, 1.5, 50)
    differences = np.abs(values[:, None] - values).mean()
    assert metrics.gini(values) == pytest.approx(differences / (2 * values.mean()), abs=1e-12)


def test_square_roots_have_metrics_of_their_own(rng):
    _, _, mask = layered()
    edges = random_edges(rng, mask)
    found, of_roots = metrics.weight_metrics(edges, mask), metrics.weight_metrics(np.sqrt(edges), mask)
    found |= metrics.strength_metrics(edges, mask)
    of_roots |= metrics.strength_metrics(np.sqrt(edges), mask)
    names = [name for name in found if name.endswith("_sqrt")]
    assert len(names) == 7
    for name in names:
        np.testing.assert_allclose(found[name], of_roots[name.removesuffix("_sqrt")], atol=1e-12)


# --- strengths and paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequential", [False, True])
def test_strengths_and_paths_are_those_of_networkx(rng, sequential):
    nodes, _, mask = layered(sequential=sequential)
    edges = random_edges(rng, mask, absent=0.3)
    values, through = of_paths(edges, mask)
    trees = shortest_paths(edges, mask)
    out, into = harmonic(trees.distances, mask)
    strengths = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    for r, weights in enumerate(edges):
        reference = in_networkx(weights)
        expected = nx.betweenness_centrality(reference, weight="length", normalized=False)
        np.testing.assert_allclose(through[r], listed(expected), rtol=0, atol=1e-10)
        lengths = np.full(mask.shape, np.inf)
        for u, found in nx.all_pairs_dijkstra_path_length(reference, weight="length"):
            lengths[u, list(found)] = list(found.values())
        np.testing.assert_allclose(trees.distances[r], lengths, rtol=1e-12)
        assert values["efficiency"][r] == pytest.approx((1 / lengths[mask]).mean(), abs=1e-10)
        for ours, directed, possible in ((into, reference, mask.sum(0)), (out, reference.reverse(), mask.sum(1))):
            expected = np.array(listed(nx.harmonic_centrality(directed, distance="length")))
            some = possible > 0
            np.testing.assert_allclose(ours[r, some], expected[some] / possible[some], rtol=0, atol=1e-10)
            assert np.isnan(ours[r, ~some]).all()
        for name, degree in (("out_strength", reference.out_degree), ("in_strength", reference.in_degree)):
            np.testing.assert_allclose(strengths[f"{name}.raw"][r], listed(dict(degree(weight="weight"))), atol=1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_paths_against_enumeration(rng, ties):
    mask = np.triu(np.ones((8, 8), bool), 1)
    weights = 1 / rng.integers(1, 5, (20, 8, 8)) if ties else rng.lognormal(-3, 1.5, (20, 8, 8))
    edges = weights * mask * (rng.random((20, 8, 8)) < 0.8)
    values, through = of_paths(edges, mask)
    tied = 0
    for r, weights in enumerate(edges):
        total, expected = 0.0, np.zeros(8)
        for ends in itertools.combinations(range(8), 2):
            lengths = {p: sum(1 / weights[e] for e in itertools.pairwise(p)) for p in all_paths(weights > 0, *ends)}
            if lengths:
                total += 1 / min(lengths.values())
                best = [path for path, length in lengths.items() if length < min(lengths.values()) * (1 + 1e-9)]
                tied += len(best) > 1
                for path in best:
                    expected[list(path[1:-1])] += 1 / len(best)
        assert values["efficiency"][r] == pytest.approx(total / mask.sum(), abs=1e-10)
        np.testing.assert_allclose(through[r], expected, atol=1e-10)
    assert through.max() > 0 and (tied > 20) == ties


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_trees_are_paths_of_the_distances(rng, sequential, dtype):
    """Also where nodes are not in topological order, and with edges below the floor."""
    _, _, mask = layered(sequential=sequential)
    order = rng.permutation(30)
    mask = mask[order[:, None], order]
    edges = random_edges(rng, mask, count=5, absent=0.5).astype(dtype)
    edges[rng.random(edges.shape) < 0.1] *= 1e-9
    trees = shortest_paths(edges, mask)
    assert trees.distances.dtype == dtype
    steps = 0
    for r, source, target in itertools.product(range(5), range(30), range(30)):
        length, node = 0.0, target
        while trees.before[r, source, node] >= 0:
            previous = trees.before[r, source, node]
            assert mask[previous, node] and edges[r, previous, node] > graph.FLOOR
            length, node, steps = length + 1 / edges[r, previous, node], previous, steps + 1
        reached = node == source
        assert trees.distances[r, source, target] == pytest.approx(length if reached else np.inf, rel=1e-5)
    assert steps > 1000


@pytest.mark.parametrize("sequential", [False, True])
def test_counting_trees_is_betweenness_where_no_lengths_tie(rng, sequential):
    _, _, mask = layered(sequential=sequential)
    order = rng.permutation(30)
    mask = mask[order[:, None], order]
    edges = random_edges(rng, mask, count=6, absent=0.4)
    trees = shortest_paths(edges, mask)
    _, through = of_paths(edges, mask)
    assert through.max() > 10
    np.testing.assert_allclose(tree_betweenness(trees.before, mask), through, atol=1e-9)


def test_many_graphs_at_once_are_each_as_alone(rng):
    _, _, mask = layered(8, 8)
    edges = random_edges(rng, mask, count=40, absent=0.1)
    together = shortest_paths(edges, mask)
    for r in (0, 17, 39):
        alone = shortest_paths(edges[r : r + 1], mask)
        np.testing.assert_array_equal(together.distances[r], alone.distances[0])
        np.testing.assert_array_equal(together.before[r], alone.before[0])


def test_levels_are_antichains_in_topological_order(rng):
    _, _, mask = layered(sequential=True)
    order = rng.permutation(30)
    mask = mask[order[:, None], order]
    groups = levels(mask)
    assert sorted(np.concatenate(groups).tolist()) == list(range(30))
    for i, group in enumerate(groups):
        assert not mask[np.ix_(group, group)].any()
        assert not any(mask[np.ix_(group, before)].any() for before in groups[:i])


def test_betweenness_of_a_full_relay_is_the_share_of_its_pairs():
    nodes, _, mask = layered(layers=3, heads=3)  # 4 nodes a layer; everything runs through one of the middle layer
    edges = np.where(mask, 1e-3, 0)
    edges[:4, 5] = edges[5, 8:] = 1
    values, through = of_paths(edges[None], mask)
    assert values["gini_betweenness"] == pytest.approx(3 / 4)  # one of the four nodes that can stand between has all
    result = scores.betweenness_scores(through / mask.sum(), mask, scores.classes(nodes))
    assert result["betweenness.raw"][0, 5] == pytest.approx(16 / 48)
    assert result["betweenness.per_edge"][0, 5] == pytest.approx(1)
    assert result["betweenness.block"][0, 5] == pytest.approx(1 - 1 / 3)
    assert np.isnan(result["betweenness.per_edge"][0, [0, 11]]).all()


# --- further centralities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "heads"), [(6, 4), (9, 22)])  # all singular vectors, the first two only
def test_katz_and_hits_are_those_of_networkx(rng, layers, heads):
    _, _, mask = layered(layers, heads)
    edges = random_edges(rng, mask, count=2, absent=0.2)
    hubs, authorities, ratio = hubs_and_authorities(edges)
    paths = katz(edges)
    for r, weights in enumerate(edges):
        values = np.linalg.svd(weights, compute_uv=False)
        assert ratio[r] == pytest.approx(values[0] / values[1], rel=1e-9)
        reference = in_networkx(weights)
        for ours, expected in zip((hubs, authorities), nx.hits(reference, tol=1e-14, max_iter=1000), strict=True):
            np.testing.assert_allclose(ours[r] / ours[r].sum(), listed(expected), rtol=0, atol=1e-10)
            assert np.linalg.norm(ours[r]) == pytest.approx(1)
        attenuation = 1 / values[0]
        expected = nx.katz_centrality_numpy(reference.reverse(), attenuation, normalized=False, weight="weight")
        np.testing.assert_allclose(paths[r], np.array(listed(expected)) - 1, rtol=0, atol=1e-10)


def test_katz_is_the_sum_over_all_paths(rng):
    mask = np.triu(np.ones((8, 8), bool), 1)
    weights = random_edges(rng, mask, count=1)[0]
    scale = np.linalg.svd(weights, compute_uv=False)[0]
    expected = np.zeros(8)
    for source, target in itertools.combinations(range(8), 2):
        for path in all_paths(mask, source, target):
            expected[source] += np.prod([weights[e] / scale for e in itertools.pairwise(path)])
    np.testing.assert_allclose(katz(weights[None])[0], expected, atol=1e-12)


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_triangles_are_fagiolos(rng, absent):
    """All three places together, with his denominator, are the clustering coefficient of networkx and bctpy."""
    _, _, mask = layered()
    edges = random_edges(rng, mask, absent=absent)
    found = triangles(edges, mask)
    possible = np.zeros((3, 30))
    closed = np.zeros((3, 3, 30))
    for u, m, v in itertools.permutations(range(30), 3):
        if mask[u, m] and mask[m, v] and mask[u, v]:
            for place, node in enumerate((u, m, v)):
                possible[place, node] += 1
                closed[:, place, node] += np.cbrt(edges[:, u, m] * edges[:, m, v] * edges[:, u, v]) / SCALE
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found, closed / possible, rtol=0, atol=1e-12)
    for r, weights in enumerate(edges):
        sums = (np.nan_to_num(found[r]) * possible).sum(0)  # [N]
        degrees = (weights > 0).sum(0) + (weights > 0).sum(1)
        ours = sums * SCALE / weights.max() / (degrees * (degrees - 1))
        np.testing.assert_allclose(
            ours, listed(nx.clustering(in_networkx(weights), weight="weight")), rtol=0, atol=1e-10
        )
        np.testing.assert_allclose(ours, bct.clustering_coef_wd(weights / weights.max()), rtol=0, atol=1e-10)


# --- mixing --------------------------------------------------------------------------------------------------------


def test_assortativity_is_igraphs_and_a_weighted_correlation(rng):
    _, layer, mask = layered()
    edges = random_edges(rng, mask, count=4, absent=0.2)
    found = metrics.mixing_metrics(edges, layer)["assortativity"]
    for r, weights in enumerate(edges):
        out, into = weights.sum(1), weights.sum(0)
        sources, targets = np.nonzero(weights)
        by_edge = np.cov(out[sources], into[targets], aweights=weights[sources, targets], bias=True)
        assert found[r] == pytest.approx(by_edge[0, 1] / np.sqrt(by_edge[0, 0] * by_edge[1, 1]), abs=1e-10)
        reference = graph.to_igraph(weights, mask, floor=0)
        expected = reference.assortativity(out.tolist(), into.tolist(), directed=True, weights="weight")
        assert found[r] == pytest.approx(expected, abs=1e-10)


def test_skip_length_by_hand():
    layer = np.array([0, 0, 1, 3])
    edges = np.zeros((2, 4, 4))
    edges[0, 0, 2], edges[0, 1, 3], edges[0, 2, 3] = 0.5, 0.25, 0.25  # gaps 1, 3, 2
    edges[1, 0, 3] = 7
    np.testing.assert_allclose(metrics.mixing_metrics(edges, layer)["skip_length"], [1.75, 3])


# --- flow ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 1e-4])
def test_max_flow_is_that_of_networkx(rng, scale):
    _, layer, mask = layered(sequential=True)
    edges = random_edges(rng, mask, absent=0.6) * scale
    first, last = layer == 0, layer == 5
    flows = max_flow(edges, mask, first, last)
    for r, weights in enumerate(edges):
        reference = in_networkx(weights)
        reference.add_edges_from([("s", u) for u in np.flatnonzero(first).tolist()], capacity=np.inf)
        reference.add_edges_from([(v, "t") for v in np.flatnonzero(last).tolist()], capacity=np.inf)
        for u, v in np.argwhere(weights > 0).tolist():
            reference[u][v]["capacity"] = weights[u, v]
        assert flows[r] == pytest.approx(nx.maximum_flow_value(reference, "s", "t"), abs=1e-10 * scale)
    assert (flows < edges[:, first].sum((1, 2))).all()


def test_widest_path_against_all_paths(rng):
    layer = np.repeat([0, 1, 2, 3], 2)
    mask = layer[:, None] < layer
    mask[0, 1] = mask[6, 7] = True  # as in sequential blocks
    edges = random_edges(rng, mask, count=40, absent=0.5)
    width, paths = widest_path(edges, mask, layer == 0, layer == 3)
    for r, weights in enumerate(edges):
        every = [path for ends in itertools.product((0, 1), (6, 7)) for path in all_paths(mask, *ends)]
        assert width[r] == max(min(weights[e] for e in itertools.pairwise(path)) for path in every)
        path = paths[r][paths[r] >= 0].tolist()
        assert bool(path) == (width[r] > 0)
        if path:
            assert layer[path[0]] == 0 and layer[path[-1]] == 3
            assert min(weights[e] for e in itertools.pairwise(path)) == width[r]
    assert (width > 0).sum() > 30
    width, paths = widest_path(edges, np.zeros_like(mask), layer == 0, layer == 3)
    assert np.isnan(width).all() and (paths == -1).all()


# --- expectation ---------------------------------------------------------------------------------------------------


def test_the_expectation_has_the_strengths_and_the_largest_entropy(rng):
    _, _, mask = layered()
    edges = random_edges(rng, mask)
    expected = expected_weights(edges, mask)
    assert not expected[:, ~mask].any()
    for axis in (1, 2):
        np.testing.assert_allclose(expected.sum(axis), edges.sum(axis), rtol=1e-8, atol=1e-9 * edges.sum(axis).mean())

    def entropy(weights):
        return -(weights[mask] * np.log(weights[mask])).sum()

    for _ in range(200):  # move weight round a rectangle: all strengths stay
        (u, v), (s, t) = rng.choice(10, 2, replace=False), 20 + rng.choice(10, 2, replace=False)
        moved = expected[0].copy()
        step = rng.choice([-1, 1]) * 0.3 * moved[np.ix_([u, v], [s, t])].min()
        moved[[u, v], [s, t]] += step
        moved[[u, v], [t, s]] -= step
        assert entropy(moved) < entropy(expected[0])


def test_the_expectation_on_all_pairs_is_the_outer_product(rng):
    weights = rng.lognormal(0, 1, (12, 12))
    found = expected_weights(weights, np.ones((12, 12), bool))
    np.testing.assert_allclose(found, np.outer(weights.sum(1), weights.sum(0)) / weights.sum(), rtol=1e-9)


def test_the_expectation_solves_the_dual_problem(rng):
    layer = np.repeat([0, 1, 2], 2)
    mask = layer[:, None] < layer
    weights = random_edges(rng, mask, count=1)[0]
    weights /= weights.sum()
    rows, columns = mask.any(1), mask.any(0)

    def dual(x):
        logs = x[:4, None] + x[4:]
        inner = np.exp(logs) * mask[rows][:, columns]
        gradient = np.concatenate([inner.sum(1), inner.sum(0)])
        wanted = np.concatenate([weights.sum(1)[rows], weights.sum(0)[columns]])
        return inner.sum() - wanted @ x, gradient - wanted

    solution = minimize(dual, np.zeros(8), jac=True, method="BFGS", options={"gtol": 1e-12}).x
    expected = np.exp(solution[:4, None] + solution[4:]) * mask[rows][:, columns]
    np.testing.assert_allclose(expected_weights(weights, mask)[rows][:, columns], expected, atol=1e-8)


def test_sums_that_no_scaling_gives_are_told():
    kernels = np.array([[[1.0, 0], [1, 0]], [[1, 1], [1, 1]]])
    balanced, found = balance(kernels, np.ones((2, 2)), np.ones((2, 2)))
    assert found.tolist() == [False, True]
    np.testing.assert_allclose(balanced[1], 0.5)


# --- published and degenerate graphs -------------------------------------------------------------------------------


def test_zachary():
    club = nx.karate_club_graph()
    weights = nx.to_numpy_array(club, weight=None)
    others = ~np.eye(34, dtype=bool)
    through = graph.to_igraph(weights, others).betweenness(weights="length")
    assert through[0] / 2 == pytest.approx(231.0714285714286, abs=1e-10)  # both directions of every pair
    mixing = metrics.mixing_metrics(weights[None], np.zeros(34, int))
    assert mixing["assortativity"][0] == pytest.approx(-0.47561309768461413, abs=1e-12)
    degrees = np.array([degree for _, degree in club.degree])
    strengths = scores.strength_scores(weights[None], others, np.zeros(34, int), np.ones(34, bool))
    np.testing.assert_array_equal(strengths["out_strength.raw"][0], degrees)
    np.testing.assert_array_equal(strengths["in_strength.raw"][0], degrees)
    hubs, authorities, _ = hubs_and_authorities(weights[None])
    expected = listed(nx.eigenvector_centrality_numpy(club, weight=None))
    np.testing.assert_allclose(hubs[0], expected, atol=1e-10)
    np.testing.assert_allclose(authorities[0], expected, atol=1e-10)
    closed = triangles(SCALE * weights[None], others)[0] * 33 * 32  # every triangle in both directions
    np.testing.assert_allclose(closed, np.tile(2 * np.array(listed(nx.triangles(club))), (3, 1)), atol=1e-9)


def test_degenerate_graphs(rng):
    nodes, layer, mask = layered()
    equal, zero, dead = np.where(mask, 0.25, 0), np.zeros(mask.shape), random_edges(rng, mask)[0]
    dead[10:15] = 0  # layer 2 reaches nothing
    edges = np.stack([equal, zero, dead])
    weight = metrics.weight_metrics(edges, mask) | metrics.strength_metrics(edges, mask)
    path, through = of_paths(edges, mask)
    assert weight["n_eff_entropy"][0] == pytest.approx(375)
    assert weight["gini"][0] == pytest.approx(0, abs=1e-12)
    assert path["efficiency"][0] == pytest.approx(0.25)  # the direct edge is the shortest path
    for name in ("gini_out_strength", "gini_in_strength"):  # 1..5 layers of five nodes on that side; no sixth
        assert weight[name][0] == pytest.approx(metrics.gini(np.arange(1, 6.0))) == pytest.approx(4 / 15)
    assert (weight["mean_weight"][1], path["efficiency"][1]) == (0, 0)
    for name in set(weight) - {"mean_weight"}:
        assert np.isnan(weight[name][1]) and np.isfinite(weight[name][[0, 2]]).all()
    assert np.isnan(path["gini_betweenness"][:2]).all()  # nobody stands between in either
    assert (through[2, 10:15] == 0).all()
    mixing = metrics.mixing_metrics(edges, layer)
    gaps = (layer - layer[:, None])[mask]
    assert mixing["skip_length"][0] == pytest.approx(gaps.mean())
    assert np.isnan([values[1] for values in mixing.values()]).all()
    hubs, authorities, ratio = hubs_and_authorities(edges)
    assert np.isnan(hubs[1]).all() and np.isnan(authorities[1]).all() and np.isnan(ratio[1])
    assert np.isnan(katz(edges)[1]).all() and np.isfinite(katz(edges)[[0, 2]]).all()
    assert (expected_weights(edges, mask)[1] == 0).all()
    assert (
        max_flow(edges, mask, layer == 0, layer == 5)[1],
        widest_path(edges, mask, layer == 0, layer == 5)[0][1],
    ) == (
        0,
        0,
    )
    two = np.where(np.equal.outer(layer, [*layer]) | ~mask, 0, 1.0)
    two[layer > 1] = two[:, layer > 1] = 0  # all strengths of a side are equal
    assert np.isnan(metrics.mixing_metrics(two[None], layer)["assortativity"][0])
    block = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    block = block["out_strength.block"]
    heads = [node.index for node in nodes if node.kind is Kind.HEAD and node.layer < 5]
    np.testing.assert_allclose(block[0, heads], 0, atol=1e-12)
    assert np.isnan(block[1]).all() and np.isnan(block[2, 10:15]).all()
    assert np.isfinite(block[2, [h for h in heads if h // 5 != 2]]).all()

"""Backbones by hand and against closed forms and simulation; GraphML read back by networkx (about 3 s)."""

import xml.etree.ElementTree as ElementTree

import networkx as nx
import numpy as np
import pytest

from phasegraph.model.nodes import mask_of, nodes_of
from phasegraph.network import backbones
from phasegraph.network.backbones import disparity_filter, percolation_backbone, strongest_edges, write_graphml

pytestmark = pytest.mark.filterwarnings("error")


def chain_of_layers(layers, width):
    layer = np.repeat(np.arange(layers), width)
    return layer, layer[:, None] < layer


def edges_of(kept):
    return {tuple(edge) for edge in np.argwhere(kept).tolist()}


def matrix(size, edges):
    weights = np.zeros((size, size))
    for (source, target), weight in edges.items():
        weights[source, target] = weight
    return weights


# --- the strongest edges -------------------------------------------------------------------------------------------


def test_strongest_edges_by_hand():
    mask = np.triu(np.ones((5, 5), dtype=bool), 1)  # 10 edges
    weights = np.zeros((5, 5))
    weights[mask] = [5, 1, 9, 2, 7, 3, 8, 4, 10, 6]
    weights[4, 0] = 99  # not possible
    assert edges_of(strongest_edges(weights, mask)) == {(2, 4)}
    assert edges_of(strongest_edges(weights, mask, 0.2)) == {(2, 4), (0, 3)}
    assert edges_of(strongest_edges(weights, mask, 0.21)) == {(2, 4), (0, 3), (1, 4)}
    assert edges_of(strongest_edges(weights, mask, 1.0)) == edges_of(mask)
    weights[0, 3] = weights[1, 4]  # 8 is second and third
    assert edges_of(strongest_edges(weights, mask, 0.2)) == {(2, 4)}
    assert edges_of(strongest_edges(weights, mask, 0.3)) == {(2, 4), (0, 3), (1, 4)}


def test_how_many_edges_are_strongest():
    rng = np.random.default_rng(0)
    for layers, width in ((3, 5), (6, 5), (5, 10)):
        _, mask = chain_of_layers(layers, width)
        weights = rng.exponential(size=mask.shape) * mask
        for percent in (1, 7, 10, 29, 100):  # .07 * 100 and .29 * 100 are no whole numbers in binary
            kept = strongest_edges(weights, mask, percent / 100)
            assert kept.sum() == -(-percent * mask.sum() // 100)
            assert weights[kept].min() > max(weights[mask & ~kept], default=0)
    sparse = np.where(rng.random(mask.shape) < 0.03, weights, 0)
    np.testing.assert_array_equal(strongest_edges(sparse, mask), sparse > 0)


# --- disparity -----------------------------------------------------------------------------------------------------


def test_disparity_by_hand():
    # 0 -> 2, 3, 4 and 1 -> 2, 3, 4; the share p of one of three edges is significant if (1 - p)^2 < alpha
    mask = np.zeros((5, 5), dtype=bool)
    mask[:2, 2:] = True
    weights = matrix(5, {(0, 2): 8, (0, 3): 1, (0, 4): 1, (1, 2): 3, (1, 3): 3, (1, 4): 4})
    # out of 0: .04, .81, .81; out of 1: .49, .49, .36
    # into 2 (two edges, 1 - p): 3/11 and 8/11; into 3: 3/4 and 1/4; into 4: 4/5 and 1/5
    assert edges_of(disparity_filter(weights, mask)) == {(0, 2)}
    assert edges_of(disparity_filter(weights, mask, 0.21)) == {(0, 2), (1, 4)}
    assert edges_of(disparity_filter(weights, mask, 0.26)) == {(0, 2), (1, 4), (1, 3)}
    assert edges_of(disparity_filter(weights, mask, 0.039)) == set()
    assert edges_of(disparity_filter(weights * 1e-9, mask, 0.21)) == {(0, 2), (1, 4)}


def test_the_only_possible_edge_is_not_significant_but_the_only_one_with_weight_is():
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 1] = mask[2, 3] = True
    weights = matrix(4, {(0, 1): 1.0, (2, 3): 5.0})
    assert not disparity_filter(weights, mask, 0.999).any()
    mask[0, 3] = True
    assert edges_of(disparity_filter(weights, mask)) == {(0, 1), (2, 3)}  # out of 0, into 3


def test_disparity_is_its_closed_form():
    rng = np.random.default_rng(1)
    layer, mask = chain_of_layers(5, 4)
    weights = np.exp(rng.normal(-4, 1.5, mask.shape)) * mask
    for alpha in (0.01, 0.05, 0.3):
        expected = set()
        for i, j in np.argwhere(mask).tolist():
            later, earlier = (layer > layer[i]).sum(), (layer < layer[j]).sum()
            out = (1 - weights[i, j] / weights[i].sum()) ** (later - 1)
            into = (1 - weights[i, j] / weights[:, j].sum()) ** (earlier - 1)
            if out < alpha or into < alpha:
                expected.add((i, j))
        assert expected
        assert edges_of(disparity_filter(weights, mask, alpha)) == expected


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_chance_keeps_the_share_of_edges_that_it_should(alpha):
    rng = np.random.default_rng(2)
    star = np.zeros((13, 13), dtype=bool)
    star[0, 1:] = True  # the targets have one possible edge each: only the source's end counts
    both = np.zeros((24, 24), dtype=bool)
    both[:12, 12:] = True
    kept_one, kept_either = [], []
    for _ in range(3000):
        weights = np.zeros(star.shape)
        weights[0, 1:] = rng.dirichlet(np.ones(12))
        kept_one.append(disparity_filter(weights, star, alpha)[star].mean())
    for _ in range(600):  # exponential weights, given their sum, are uniform on the simplex
        kept_either.append(disparity_filter(rng.exponential(size=both.shape) * both, both, alpha)[both].mean())
    error = np.std(kept_one) / np.sqrt(len(kept_one))
    assert np.mean(kept_one) == pytest.approx(alpha, abs=4 * error)
    error = np.std(kept_either) / np.sqrt(len(kept_either))  # the ends agree in part, being about the same weight
    assert alpha + 4 * error < np.mean(kept_either) < 2 * alpha - alpha**2 - 4 * error


# --- percolation ---------------------------------------------------------------------------------------------------


def test_percolation_keeps_a_path_and_no_higher_threshold_does():
    rng = np.random.default_rng(3)
    layer, mask = chain_of_layers(4, 3)
    for _ in range(20):
        weights = np.exp(rng.normal(-4, 1, mask.shape)) * mask * (layer - layer[:, None] == 1)

        def connects(kept):
            graph = nx.from_numpy_array(kept.astype(int), create_using=nx.DiGraph)
            return any(nx.has_path(graph, s, t) for s in range(3) for t in range(9, 12))

        width = max(w for w in weights[weights > 0] if connects(weights >= w))
        kept = percolation_backbone(weights, mask, width)
        assert connects(kept)
        assert weights[kept].min() == width
        assert not connects(kept & (weights > width))
        assert weights[mask & ~kept].max() < width


# --- degenerate graphs ---------------------------------------------------------------------------------------------


def test_degenerate_graphs():
    _, mask = chain_of_layers(3, 4)
    equal = mask * 0.25
    assert not strongest_edges(equal, mask).any()  # all tie across the cut
    np.testing.assert_array_equal(strongest_edges(equal, mask, 1), mask)
    assert not disparity_filter(equal, mask).any()
    np.testing.assert_array_equal(percolation_backbone(equal, mask, 0.25), mask)
    one, none = np.zeros((1, 1)), np.zeros((1, 1), dtype=bool)
    for weights, possible in ((np.zeros(mask.shape), mask), (one, none), (one + 3, none)):
        assert not strongest_edges(weights, possible).any()
        assert not strongest_edges(weights, possible, 1).any()
        assert not disparity_filter(weights, possible, 1).any()
        assert not percolation_backbone(weights, possible, 0.0).any()
    assert not percolation_backbone(equal, mask, 0.0).any()


# --- GraphML -------------------------------------------------------------------------------------------------------


@pytest.fixture
def graph():
    nodes = nodes_of(3, 2, embed=True, logits=True)
    mask = mask_of(nodes, parallel=False)
    weights = np.exp(np.random.default_rng(4).normal(-8, 4, mask.shape)) * mask
    return nodes, mask, weights, strongest_edges(weights, mask, 0.1)


def test_networkx_reads_back_what_was_written(graph, tmp_path):
    nodes, _, weights, kept = graph
    assert not (kept.any(0) | kept.any(1)).all()  # there is an isolated node
    scores = {
        "out_strength": weights.sum(1),
        "in_strength": weights.sum(0, dtype=np.float64),
        "betweenness": np.linspace(0, 1 / 3, len(nodes)),
        "community": np.arange(len(nodes)) % 3,
    }
    write_graphml(tmp_path / "a.graphml", nodes, weights, kept, scores)
    found = nx.read_graphml(tmp_path / "a.graphml")
    assert found.is_directed() and not found.is_multigraph()
    by_name = nx.relabel_nodes(found, {key: data["name"] for key, data in found.nodes(data=True)})
    assert list(by_name) == [node.name for node in nodes]
    for node, data in zip(nodes, by_name.nodes.values(), strict=True):
        assert (data["kind"], data["layer"]) == (str(node.kind), node.layer)
        assert data["head"] == (-1 if node.head is None else node.head)
        assert all(isinstance(data[name], float) for name in ("layer", "head", "x", "y", *scores))
        for name, values in scores.items():
            assert data[name] == pytest.approx(values[node.index], rel=1e-12)
    edges = {(nodes[i].name, nodes[j].name): weights[i, j] for i, j in np.argwhere(kept)}
    assert set(by_name.edges) == set(edges)
    for edge, weight in edges.items():
        assert by_name.edges[edge] == pytest.approx({"weight": weight, "sqrt_weight": weight**0.5}, rel=1e-12)


def test_layers_lie_above_one_another_and_heads_side_by_side(graph, tmp_path):
    nodes, _, weights, kept = graph
    write_graphml(tmp_path / "a.graphml", nodes, weights, kept, {})
    drawn = [(data["x"], data["y"]) for data in nx.read_graphml(tmp_path / "a.graphml").nodes.values()]
    assert [(x / backbones.SPACING, y / backbones.SPACING) for x, y in drawn] == [
        (1, -1),
        *[(0, 0), (1, 0), (2, 0)],
        *[(0, 1), (1, 1), (2, 1)],
        *[(0, 2), (1, 2), (2, 2)],
        (1, 3),
    ]


def test_attributes_have_their_types_and_what_is_not_finite_is_left_out(graph, tmp_path):
    nodes, _, weights, kept = graph
    scores = {"betweenness": np.full(len(nodes), np.nan), "in_strength": weights.sum(0)}
    scores["in_strength"][:3] = np.nan, np.inf, -np.inf
    path = tmp_path / "a.graphml"
    write_graphml(path, nodes, weights, kept, scores)
    space = "{http://graphml.graphdrawing.org/xmlns}"
    root = ElementTree.parse(path).getroot()
    declared = {key.get("id"): key for key in root.iter(f"{space}key")}
    types = {(key.get("for"), key.get("attr.name")): key.get("attr.type") for key in declared.values()}
    strings = {("node", "name"), ("node", "label"), ("node", "kind")}
    doubles = {("node", name) for name in ("layer", "head", "x", "y", "betweenness", "in_strength")}
    doubles |= {("edge", "weight"), ("edge", "sqrt_weight")}
    assert types == dict.fromkeys(strings, "string") | dict.fromkeys(doubles, "double")
    for datum in root.iter(f"{space}data"):
        if declared[datum.get("key")].get("attr.type") == "double":
            assert np.isfinite(float(datum.text))
    found = list(nx.read_graphml(path).nodes.values())
    assert not any("betweenness" in data for data in found)
    assert ["in_strength" in data for data in found] == [False] * 3 + [True] * (len(nodes) - 3)


def test_the_same_graph_gives_the_same_bytes(graph, tmp_path):
    nodes, _, weights, kept = graph
    for name in ("a.graphml", "b.graphml"):
        write_graphml(tmp_path / name, nodes, weights, kept, {"in_strength": weights.sum(0)})
    assert (tmp_path / "a.graphml").read_bytes() == (tmp_path / "b.graphml").read_bytes()


def test_a_graph_without_edges_or_with_one_node(graph, tmp_path):
    nodes, mask, weights, _ = graph
    write_graphml(tmp_path / "a.graphml", nodes, weights, np.zeros_like(mask), {"community": np.zeros(len(nodes))})
    found = nx.read_graphml(tmp_path / "a.graphml")
    assert (len(found), found.number_of_edges()) == (len(nodes), 0)
    assert "boolean" not in (tmp_path / "a.graphml").read_text()
    one = nodes_of(1, 0)
    write_graphml(tmp_path / "b.graphml", one, np.zeros((1, 1)), np.zeros((1, 1), dtype=bool), {"community": [0]})
    assert [data["name"] for data in nx.read_graphml(tmp_path / "b.graphml").nodes.values()] == ["L0MLP"]

"""Communities against brute force, leidenalg, Zachary's karate club and planted answers (about 4 s)."""

import random

import igraph
import leidenalg
import networkx as nx
import numpy as np
import pytest

from phasegraph.network.communities import adjusted_rand, communities, follow, match, modularity
from phasegraph.network.expectation import expected_weights

pytestmark = pytest.mark.filterwarnings("error")


def layered(layers, width):
    layer = np.repeat(np.arange(layers), width)
    return layer, layer[:, None] < layer


def random_edges(rng, mask, spread=1.0):
    return np.exp(rng.normal(-4, spread, mask.shape)) * mask


def all_partitions(nodes):
    """Every way to divide up nodes, as labels in the order of first nodes."""
    found = [[0]]
    for _ in range(nodes - 1):
        found = [[*labels, label] for labels in found for label in range(max(labels) + 2)]
    return np.array(found)  # [Bell number, N]


def by_definition(labels, weights, expected):
    pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if labels[i] == labels[j]]
    return sum(weights[i, j] - expected[i, j] for i, j in pairs) / weights.sum()


# --- the optimum ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_all_partitions_is_found(seed):
    rng = np.random.default_rng(seed)
    mask = layered(4, 2)[1] if seed % 2 else np.triu(rng.random((8, 8)) < 0.8, 1)
    weights = random_edges(rng, mask, 1.5)
    expected = expected_weights(weights, mask)
    assert not np.isnan(expected).any()
    partitions = all_partitions(8)  # [4140, 8]
    together = partitions[:, :, None] == partitions[:, None]
    values = (together * (weights - expected)).sum((1, 2)) / weights.sum()
    best = partitions[values.argmax()]
    found = communities(weights, mask)
    assert found.modularity == pytest.approx(values.max(), abs=1e-12)
    assert found.modularity == pytest.approx(by_definition(found.labels, weights, expected), abs=1e-12)
    np.testing.assert_array_equal(found.labels, best)


@pytest.mark.parametrize(("seed", "strength"), [(0, 1), (1, 1), (2, 1), (3, 4), (4, 4)])
def test_leidenalg_finds_nothing_better(seed, strength):
    rng = np.random.default_rng(seed)
    mask = layered(6, 5)[1]
    block = rng.integers(0, 3, 30)
    weights = random_edges(rng, mask) * np.where(np.equal.outer(block, block), strength, 1)
    expected = expected_weights(weights, mask)
    directed = igraph.Graph(30, np.argwhere(mask).tolist(), directed=True)
    criterion = leidenalg.CPMVertexPartition
    options = {"weights": ((weights - expected) / weights.sum())[mask].tolist(), "resolution_parameter": 0}

    def search(seed):
        return leidenalg.find_partition(directed, criterion, **options, n_iterations=-1, seed=seed)

    found = communities(weights, mask)
    qualities = [search(seed).quality() for seed in range(8)]
    assert found.modularity >= max(qualities) - 1e-10
    if strength > 1:  # without communities neither search is sure of the optimum
        assert found.modularity == pytest.approx(max(qualities), abs=1e-10)
    ours = criterion(directed, found.labels.tolist(), **options)
    assert found.modularity == pytest.approx(ours.quality(), abs=1e-10)


def test_zachary():
    club = nx.karate_club_graph()
    weights = nx.to_numpy_array(club, weight=None)
    found = communities(weights, np.ones((34, 34), dtype=bool))
    assert found.modularity == pytest.approx(0.4197896120973046, abs=1e-12)
    groups = [set(np.flatnonzero(found.labels == label).tolist()) for label in range(found.labels.max() + 1)]
    assert nx.community.modularity(club, groups, weight=None) == pytest.approx(found.modularity, abs=1e-12)


# --- what is found -------------------------------------------------------------------------------------------------


def test_layers_are_communities_against_the_ordinary_expectation_only():
    layer, mask = layered(6, 16)
    ordinary, masked = [], []
    for seed in range(4):
        weights = random_edges(np.random.default_rng(seed), mask, 0.5) * np.exp(-np.abs(layer - layer[:, None]))
        everywhere = np.outer(weights.sum(1), weights.sum(0)) / weights.sum()
        found = communities(weights, mask, restarts=5, expected=everywhere)
        groups = [set(np.flatnonzero(found.labels == label).tolist()) for label in range(found.labels.max() + 1)]
        directed = nx.from_numpy_array(weights, create_using=nx.DiGraph)
        assert nx.community.modularity(directed, groups) == pytest.approx(found.modularity, abs=1e-12)
        ordinary.append(adjusted_rand(found.labels, layer))
        masked.append(adjusted_rand(communities(weights, mask, restarts=5).labels, layer))
    assert min(ordinary) > 0.2  # an early and a late half
    assert max(np.abs(masked)) < 0.05


@pytest.mark.parametrize("size", [5, 17])
def test_planted_communities_are_found_whole(size):
    rng = np.random.default_rng(size)
    _, mask = layered(6, size)
    block = rng.integers(0, 3, len(mask))
    weights = random_edges(rng, mask, 0.5) * np.where(np.equal.outer(block, block), 4, 1)
    found = communities(weights, mask, restarts=5)
    assert adjusted_rand(found.labels, block) == 1
    assert found.agreement == 1
    expected = expected_weights(weights, mask)
    assert found.modularity == pytest.approx(modularity(block, weights, expected), abs=1e-12)
    assert found.labels[0] == 0 and sorted(set(found.labels.tolist())) == [0, 1, 2]
    first = [np.flatnonzero(found.labels == label)[0] for label in range(3)]
    assert first == sorted(first)


def test_restarts_disagree_where_there_are_no_communities():
    rng = np.random.default_rng(5)
    _, mask = layered(12, 8)
    weights = random_edges(rng, mask)
    found = communities(weights, mask, restarts=6)
    assert 0 < found.agreement < 0.6
    one = communities(weights, mask, restarts=1)
    assert np.isnan(one.agreement)
    assert one.modularity <= found.modularity


# --- the search leaves no traces, and nothing leaves traces in it --------------------------------------------------


def test_the_seed_decides_and_other_random_numbers_are_left_alone():
    _, mask = layered(12, 8)
    weights = random_edges(np.random.default_rng(6), mask)
    random.seed(1)
    drawn = igraph.Graph.Erdos_Renyi(30, 0.5).get_edgelist()
    random.seed(1)
    state = random.getstate()
    first = communities(weights, mask, restarts=2, seed=3)
    assert random.getstate() == state
    assert igraph.Graph.Erdos_Renyi(30, 0.5).get_edgelist() == drawn
    again = communities(weights, mask, restarts=2, seed=3)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.modularity, first.agreement) == (again.modularity, again.agreement)
    others = [communities(weights, mask, restarts=2, seed=seed).labels.tolist() for seed in range(4, 8)]
    assert first.labels.tolist() not in others
    random.seed(1)
    with pytest.raises(TypeError):
        communities(weights, mask, restarts="2")
    with pytest.raises(ValueError, match="empty"):
        communities(weights, mask, restarts=0)
    assert igraph.Graph.Erdos_Renyi(30, 0.5).get_edgelist() == drawn


def test_the_scale_of_the_weights_does_not_matter():
    _, mask = layered(6, 5)
    weights = random_edges(np.random.default_rng(7), mask)
    before = communities(weights, mask, restarts=3)
    for scale in (2.0**-60, 2.0**40):  # exact in binary
        after = communities(weights * scale, mask, restarts=3)
        np.testing.assert_array_equal(after.labels, before.labels)
        assert (after.modularity, after.agreement) == (before.modularity, before.agreement)


# --- degenerate graphs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "mask"),
    [
        (np.zeros((6, 6)), np.triu(np.ones((6, 6), dtype=bool), 1)),
        (np.zeros((6, 6)), np.zeros((6, 6), dtype=bool)),
        (np.zeros((1, 1)), np.zeros((1, 1), dtype=bool)),
    ],
)
def test_without_weight_there_are_no_communities(weights, mask):
    found = communities(weights, mask)
    assert found.labels.tolist() == list(range(len(mask)))
    assert np.isnan(found.modularity) and np.isnan(found.agreement)
    assert np.isnan(modularity(found.labels, weights, weights))


def test_an_expectation_that_could_not_be_found_gives_no_communities():
    mask = np.triu(np.ones((4, 4), dtype=bool), 1)
    found = communities(mask * 1.0, mask, expected=np.full((4, 4), np.nan))
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert np.isnan(found.modularity)


def test_what_is_as_expected_has_modularity_zero():
    mask = np.zeros((2, 2), dtype=bool)
    mask[0, 1] = True
    assert communities(mask * 0.3, mask).modularity == 0
    _, mask = layered(2, 4)
    assert communities(mask * 0.3, mask).modularity == pytest.approx(0, abs=1e-9)


def test_nodes_without_weight_are_communities_of_their_own():
    rng = np.random.default_rng(8)
    block = np.tile([0, 1], 8)
    _, mask = layered(4, 4)
    impossible, unused = 5, 10
    mask[impossible], mask[:, impossible] = False, False
    weights = random_edges(rng, mask, 0.3) * np.where(np.equal.outer(block, block), 5, 1)
    weights[unused], weights[:, unused] = 0, 0
    found = communities(weights, mask)
    assert adjusted_rand(found.labels, np.where(np.arange(16) == 5, 2, np.where(np.arange(16) == 10, 3, block))) == 1
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 2, 0, 1, 0, 1, 3, 1, 0, 1, 0, 1]


# --- comparing partitions ------------------------------------------------------------------------------------------


def test_adjusted_rand_by_counting_pairs():
    rng = np.random.default_rng(9)
    pairs = np.triu_indices(20, 1)
    for groups in (2, 3, 6):
        a, b = rng.integers(-1, groups, (2, 20)) * 7
        same_a, same_b = (np.equal.outer(x, x)[pairs] for x in (a, b))
        chance = same_a.sum() * same_b.sum() / len(pairs[0])
        expected = ((same_a & same_b).sum() - chance) / ((same_a.sum() + same_b.sum()) / 2 - chance)
        assert adjusted_rand(a, b) == pytest.approx(expected, abs=1e-12)
    whole, single = np.zeros(5), np.arange(5)
    assert adjusted_rand(whole, whole + 3) == adjusted_rand(single, single[::-1]) == 1
    assert adjusted_rand(whole, single) == 0
    assert adjusted_rand([4], [2]) == 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0, 0, 1, 1, 2], [2, 2, 0, 0, 1], [0, 0, 1, 1, 2]),  # other names
        ([0, 0, 0, 1, 1], [0, 1, 1, 2, 2], [2, 0, 0, 1, 1]),  # a split: the larger part is the old one
        ([5, 5, 5, 3, 3], [0, 0, 0, 0, 0], [5, 5, 5, 5, 5]),  # a merger: so is the larger member
        ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]),
        ([0, 0, 0, 0], [0, 1, 2, 2], [1, 2, 0, 0]),
        # greedy would give 0 its four nodes and leave nothing to the other: three and three are more
        ([0] * 7 + [1] * 3, [0] * 4 + [1] * 3 + [0] * 3, [1] * 4 + [0] * 3 + [1] * 3),
    ],
)
def test_matching_by_hand(before, after, expected):
    assert match(np.array(before), np.array(after)).tolist() == expected


def test_fresh_labels_start_where_they_are_told():
    assert match(np.array([0, 0, 1]), np.array([0, 1, 2]), fresh=9).tolist() in ([0, 9, 1], [9, 0, 1])


def test_following_a_series_never_revives_a_label():
    series = np.array(
        [
            [0, 0, 0, 1, 1, 1],
            [0, 1, 1, 2, 2, 2],  # node 0 leaves: a new community, 2
            [0, 0, 0, 1, 1, 1],  # and comes back: 2 has ended
            [0, 0, 0, 1, 1, 2],  # node 5 leaves: not 2 again
        ]
    )
    assert follow(series).tolist() == [
        [0, 0, 0, 1, 1, 1],
        [2, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 3],
    ]

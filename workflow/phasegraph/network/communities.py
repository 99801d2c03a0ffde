"""Communities: groups of nodes that influence each other more than position and strengths explain.

Modularity sums, over the pairs within a community, what the weights exceed an expectation by. The ordinary expectation
of a directed graph lies half on edges that are impossible here, and what it finds is early against late layers. Against
`phasegraph.network.expectation.expected_weights`, whose mass lies on the possible edges only, layers do not count
(Speidel, Takaguchi & Masuda, Eur. Phys. J. B 88:203, 2015, for graphs without weights).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import igraph
import numpy as np

from phasegraph.network.expectation import expected_weights

ITERATIONS = 2
"""Rounds of one search. igraph's "until nothing changes" never ends on some graphs, and 10 rounds find hardly more
(benchmarks/null_calibration.py)."""


class Communities(NamedTuple):
    """The best partition found of one graph with N nodes."""

    labels: np.ndarray
    """int [N]: community of each node, numbered from 0 in the order of their first nodes."""
    modularity: float
    """Of this partition; NaN if there is no weight to divide up."""
    others: tuple[np.ndarray, ...]
    """Partitions of the other restarts, each [N]."""

    @property
    def agreement(self) -> float:
        """Mean adjusted Rand index of this partition with those of the other restarts; NaN without any."""
        return float(np.mean([adjusted_rand(self.labels, other) for other in self.others])) if self.others else np.nan


def communities(
    weights: np.ndarray, mask: np.ndarray, restarts: int = 20, seed: int = 0, expected: np.ndarray | None = None
) -> Communities:
    """Divide a graph's nodes into communities of the largest modularity.

    Parameters
    ----------
    weights
        float64 [N, N], >= 0, 0 outside the mask; row = source, column = target. Its scale does not matter.
    mask
        bool [N, N], the possible edges.
    restarts
        How often to search, each time in another random order; the best result counts. At least 1.
    seed
        The same seed gives the same result, whatever else draws random numbers.
    expected
        float64 [N, N], weights to expect; by default `expected_weights` of the graph.

    Returns
    -------
    Communities
        A node without weight is a community of its own. All nodes are, and the numbers are NaN, if no weight is
        positive or if the expectation is NaN.

    Notes
    -----
    Leiden algorithm (Traag, Waltman & van Eck, Sci. Rep. 9, 2019) on the undirected graph of (W - E) + (W - E)^T,
    which has the same sum within communities as W - E. At resolution 0 the constant Potts model is that sum, and allows
    for negative weights. The quality that igraph 1.0 returns divides by the resolution and is not used.
    """
    weights = np.where(mask, weights, 0.0)
    expected = expected_weights(weights, mask) if expected is None else expected
    if not (weights > 0).any() or np.isnan(expected).any():
        return Communities(np.arange(len(mask)), float("nan"), ())
    weightless = weights.sum(0) + weights.sum(1) == 0  # [N]
    surplus = weights - expected
    upper = np.triu_indices(len(mask), 1)
    gains = (surplus + surplus.T)[upper]  # [pairs], in the order of the edges of a full graph
    # igraph's search depends on the scale of the weights: it takes gains far below .01 for equal, and finds less
    scaled = (gains / max(np.abs(gains).mean(), np.finfo(float).tiny)).tolist()
    graph = _full(len(mask))
    found = []
    with _seeded(seed):
        for _ in range(restarts):
            partition = graph.community_leiden("CPM", weights=scaled, resolution=0, n_iterations=ITERATIONS)
            labels = np.array(partition.membership)  # [N]
            labels[weightless] = len(mask) + np.flatnonzero(weightless)
            found.append(labels)
    best = found.pop(int(np.argmax([gains @ (labels[upper[0]] == labels[upper[1]]) for labels in found])))
    return Communities(_numbered(best), modularity(best, weights, expected), tuple(found))


def modularity(labels: np.ndarray, weights: np.ndarray, expected: np.ndarray) -> float:
    """Share of the weight that lies within communities, less the share that is expected to.

    Parameters
    ----------
    labels
        int [N], community of each node.
    weights, expected
        float64 [N, N], of the same sum.

    Returns
    -------
    float
        ``sum_ij (W_ij - E_ij) [c_i = c_j] / sum_ij W_ij``; NaN if there is no weight. With ``E_ij = s_i t_j / sum W``
        this is the directed modularity of Leicht & Newman, PRL 100 (2008).
    """
    total = weights.sum()
    if not total > 0:
        return float("nan")
    return float(np.where(np.equal.outer(labels, labels), weights - expected, 0).sum() / total)


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Compare two partitions of the same nodes by the adjusted Rand index (Hubert & Arabie, J. Classif. 2, 1985).

    Parameters
    ----------
    a, b
        int [N]; any numbers may stand for the groups, layers for example.

    Returns
    -------
    float
        1 if the partitions are the same, also if there is one group only or N groups; about 0 if they are unrelated.
    """
    return _rand(_numbered(a), _numbered(b))


def match(before: np.ndarray, after: np.ndarray, fresh: int | None = None) -> np.ndarray:
    """Relabel communities so that they keep the label of the one before that they share most nodes with.

    Parameters
    ----------
    before, after
        int [N], two partitions of the same nodes.
    fresh
        First label for communities that continue none; by default the one after the largest in `before`.

    Returns
    -------
    ndarray
        int [N], the partition `after`. Every label of `before` is used at most once, and such that the number of nodes
        that keep their label is largest.

    Notes
    -----
    Kuhn, Nav. Res. Logist. Q. 2 (1955), on the table of shared nodes. Of a community that splits, the larger part keeps
    the label, if no other claims it.
    """
    from scipy.optimize import linear_sum_assignment  # here, since searching communities shall not wait for scipy

    old, rows = np.unique(before, return_inverse=True)
    new, columns = np.unique(after, return_inverse=True)
    shared = np.zeros((len(old), len(new)), dtype=np.int64)
    np.add.at(shared, (rows, columns), 1)
    rows_kept, columns_kept = linear_sum_assignment(shared, maximize=True)
    continued = shared[rows_kept, columns_kept] > 0  # the rest is paired, but has nothing in common
    names = np.full(len(new), -1)
    is_new = np.ones(len(new), dtype=bool)
    is_new[columns_kept[continued]] = False
    names[columns_kept[continued]] = old[rows_kept[continued]]
    names[is_new] = (old.max() + 1 if fresh is None else fresh) + np.arange(is_new.sum())
    return names[columns]


def follow(labels: np.ndarray) -> np.ndarray:
    """Relabel the communities of a series, each graph after the one before it.

    Parameters
    ----------
    labels
        int [S, N], partitions of the same nodes at S checkpoints.

    Returns
    -------
    ndarray
        int [S, N]: the first partition as it is, then each by `match`. A label that has ended is not used again.
    """
    followed = labels[:1].copy()
    for after in labels[1:]:
        followed = np.vstack([followed, match(followed[-1], after, int(followed.max()) + 1)])
    return followed


@lru_cache(maxsize=1)
def _full(nodes: int) -> igraph.Graph:
    """Graph of all pairs of nodes, which takes longer to make than to search when there are many."""
    return igraph.Graph.Full(nodes)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Give groups [N] numbers from 0 in the order of their first nodes."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _rand(a: np.ndarray, b: np.ndarray) -> float:
    """Compare two partitions that `_numbered` has numbered."""
    if np.array_equal(a, b):  # igraph divides 0 by 0 if both have one group or N groups
        return 1.0
    return float(igraph.compare_communities(a.tolist(), b.tolist(), method="adjusted_rand"))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let igraph draw from a generator of its own, and then again from Python's `random`, its default."""
    igraph.set_random_number_generator(random.Random(seed))
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)

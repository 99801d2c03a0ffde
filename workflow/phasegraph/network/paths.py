"""Shortest and widest paths between all nodes of many graphs at once.

The graphs share a mask, a strict partial order, so that one sweep in topological order finds what Dijkstra's algorithm
has to search for, for all sources and all graphs in one operation. With hundreds of null graphs of 30 nodes it takes
a quarter of igraph's time for distances, and with one of 156 nodes half of it (benchmarks/network.py).
"""

from typing import NamedTuple

import numpy as np

from phasegraph.network.graph import FLOOR, to_igraph

AT_ONCE = 2**17
"""Lengths that are compared in one operation. Sources come in strips, each of which skips the nodes before it: no
source of the strip can reach them."""


class Trees(NamedTuple):
    """One shortest path between all nodes of B graphs, with the length 1/w."""

    distances: np.ndarray
    """float [B, N, N]: length of the shortest path; infinite where there is none, 0 from a node to itself."""
    before: np.ndarray
    """int [B, N, N]: the node before the target (column) on a shortest path from the source (row); -1 if none."""


def levels(mask: np.ndarray) -> list[np.ndarray]:
    """Group the nodes that have the same possible sources, in topological order.

    Parameters
    ----------
    mask
        bool [N, N], a strict partial order.

    Returns
    -------
    list of ndarray
        Indices of the nodes of each group; no two of a group are connected.
    """
    columns = {}
    for node in np.argsort(mask.sum(0), kind="stable").tolist():  # who follows another has more sources than it
        columns.setdefault(mask[:, node].tobytes(), []).append(node)
    return [np.array(group) for group in columns.values()]


def shortest_paths(weights: np.ndarray, mask: np.ndarray, floor: float = FLOOR) -> Trees:
    """Find a shortest path between all pairs of nodes.

    Parameters
    ----------
    weights
        float [B, N, N]; distances have its precision.
    mask
        bool [N, N], a strict partial order.
    floor
        Edges of weight <= floor are not travelled.

    Returns
    -------
    Trees
        Of equally short paths the one by the earliest node.
    """
    groups = levels(mask)
    order = np.concatenate(groups)
    batch, size = len(weights), len(order)
    with np.errstate(divide="ignore"):
        lengths = np.where(mask & (weights > floor), 1 / weights, np.inf)[:, order[:, None], order]
    distances = np.full_like(lengths, np.inf)
    distances[:, np.arange(size), np.arange(size)] = 0
    before = np.zeros(lengths.shape, dtype=np.int32)
    start = len(groups[0])
    for group in groups[1:]:
        end = start + len(group)
        into = np.ascontiguousarray(lengths[:, :start, start:end].swapaxes(1, 2))[:, None]  # [B, 1, targets, start]
        strip = max(1, AT_ONCE // (batch * len(group) * start))
        for first in range(0, start, strip):
            rows = slice(first, min(first + strip, start))
            through = distances[:, rows, None, first:start] + into[..., first:]  # [B, rows, targets, last node before]
            shape, through = through.shape[:-1], through.reshape(-1, start - first)
            best = through.argmin(-1)
            distances[:, rows, start:end] = through[np.arange(len(through)), best].reshape(shape)
            before[:, rows, start:end] = best.reshape(shape) + first
        start = end
    linked = np.isfinite(distances) & (distances > 0)
    before = np.where(linked, order[before], -1).astype(np.int32)
    back = np.argsort(order)
    return Trees(distances[:, back[:, None], back], before[:, back[:, None], back])


def tree_betweenness(before: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Count the pairs of nodes whose one shortest path passes through each node: betweenness where no lengths tie.

    Parameters
    ----------
    before
        int [B, N, N], of `shortest_paths`.
    mask
        bool [N, N], of the same.

    Returns
    -------
    ndarray
        float64 [B, N].
    """
    batch, size, _ = before.shape
    beyond = np.zeros((batch * size, size + 1))  # nodes beyond a node in the tree of a source; a place for "none"
    steps = before.reshape(-1, size)
    rows = np.arange(batch * size)
    for target in np.concatenate(levels(mask))[::-1].tolist():
        beyond[rows, steps[:, target]] += np.where(steps[:, target] >= 0, 1 + beyond[:, target], 0)
    beyond = beyond[:, :size].reshape(batch, size, size)
    beyond[:, np.arange(size), np.arange(size)] = 0  # a source does not stand between
    return beyond.sum(1)


def betweenness(weights: np.ndarray, distances: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sum over pairs of nodes the share of their shortest paths that pass through each node, [N].

    Parameters
    ----------
    weights
        float64 [N, N], one graph.
    distances
        float64 [N, N], of `shortest_paths`.
    mask
        bool [N, N].

    Returns
    -------
    ndarray
        float64 [N] (Freeman, Sociometry 40, 1977). Equally short paths share their pair. By igraph, on the edges that
        are themselves the shortest path between their ends: no other edge is on a shortest path.
    """
    with np.errstate(divide="ignore"):
        shortest = mask & (1 / weights <= distances * (1 + 1e-9))
    return np.array(to_igraph(weights, shortest).betweenness(weights="length"))

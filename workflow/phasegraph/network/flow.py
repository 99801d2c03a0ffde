"""How much can pass from the first layer to the last: the widest path and the maximum flow.

Both compose edges, so they are about candidate routes on direct effects, and count every detour twice on total ones.
"""

import igraph
import numpy as np

from phasegraph.network.paths import levels


def widest_path(
    weights: np.ndarray, mask: np.ndarray, sources: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the path whose weakest edge is strongest, from any source to any target.

    Parameters
    ----------
    weights
        float [B, N, N], >= 0.
    mask
        bool [N, N], a strict partial order.
    sources, targets
        bool [N], disjoint.

    Returns
    -------
    width : ndarray
        [B]: weight of that weakest edge, 0 if every path has an edge of weight 0, NaN if the mask leads from no source
        to any target. It is the percolation threshold too: the largest weight at which the edges that are as strong
        still connect both sides.
    path : ndarray
        int [B, N]: the nodes of the path, first to last, then -1; all -1 where the width is 0 or NaN.
    """
    batch, size = len(weights), len(mask)
    width = np.where(sources, np.inf, -np.inf)[None].repeat(batch, 0).astype(weights.dtype)  # [B, N], up to each node
    before = np.full((batch, size), -1)
    for group in levels(mask):
        for node in group.tolist():
            into = np.flatnonzero(mask[:, node])
            if sources[node] or not len(into):
                continue
            through = np.minimum(width[:, into], weights[:, into, node])  # [B, sources of the node]
            best = through.argmax(-1)
            width[:, node] = through[np.arange(batch), best]
            before[:, node] = into[best]
    ends = np.flatnonzero(targets)
    if not len(ends) or not sources.any():
        return np.full(batch, np.nan), np.full((batch, size), -1)
    last = ends[width[:, ends].argmax(-1)]  # [B]
    widest = width[np.arange(batch), last]
    widest = np.where(np.isfinite(widest), widest, np.nan)
    return widest, np.array([_walk(*row) for row in zip(before, last, widest > 0, strict=True)])


def _walk(before: np.ndarray, last: int, exists: bool) -> np.ndarray:
    """Nodes of the path that ends at `last`, padded with -1."""
    path = [int(last)] if exists else []
    while path and before[path[0]] >= 0:
        path.insert(0, int(before[path[0]]))
    return np.array(path + [-1] * (len(before) - len(path)))


def max_flow(weights: np.ndarray, mask: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Largest flow from all sources together to all targets together, with the weights as capacities.

    Parameters
    ----------
    weights, mask, sources, targets
        As of `widest_path`.

    Returns
    -------
    ndarray
        float64 [B], in units of weight; NaN if there is no source or no target. It is the weight of the lightest set of
        edges whose removal parts the two (Ford & Fulkerson, Canad. J. Math. 8, 1956).
    """
    if not sources.any() or not targets.any():
        return np.full(len(weights), np.nan)
    tails, heads = np.nonzero(mask)
    size = len(mask)
    # One node that feeds all sources and one that drains all targets, by edges that never are the bottleneck.
    into, out_of = np.flatnonzero(sources), np.flatnonzero(targets)
    ends = np.column_stack(
        [np.append(np.full(len(into), size), out_of), np.append(into, np.full(len(out_of), size + 1))]
    )
    edges = np.vstack([np.column_stack([tails, heads]), ends])
    graph = igraph.Graph(size + 2, edges, directed=True)
    flows = []
    for graph_weights in weights:
        inner = graph_weights[tails, heads].astype(np.float64)
        capacity = np.concatenate([inner, np.full(len(ends), inner.sum() + 1)])
        flows.append(graph.maxflow_value(size, size + 1, capacity=capacity.tolist()))
    return np.array(flows)

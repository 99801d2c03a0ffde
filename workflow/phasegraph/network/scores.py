"""How much each component spreads, gathers or stands between: raw, per possible edge, and against its peers.

Position explains most of a raw score: an early head has more targets, a late one more sources, a middle one more pairs
to stand between. So each score comes three times: ``raw``, ``per_edge`` (divided by what position allows) and ``block``
(compared with the peers, the other nodes of the same layer and kind, which have the same position). What `block` drops
is real influence too, hence the three beside one another.

A score counts components (heads and MLPs) at the other end of an edge, so that it does not depend on whether embedding
and logits are measured. These two have strengths as well, but nobody is their peer.
"""

import numpy as np

from phasegraph.types import Node

RATIO_FLOOR = 1e-3
"""An edge weaker than this times its block's median counts as exactly that weak, so that one zero among many edges does
not decide a mean of logarithms. Relative to the median, so scaling all weights changes no score."""


def classes(nodes: list[Node]) -> np.ndarray:
    """Class of each node, int [N]: nodes of the same layer and kind are peers."""
    keys = {key: number for number, key in enumerate(dict.fromkeys((n.layer, n.kind) for n in nodes))}
    return np.array([keys[n.layer, n.kind] for n in nodes])


def strength_scores(
    edges: np.ndarray, mask: np.ndarray, peers: np.ndarray, components: np.ndarray
) -> dict[str, np.ndarray]:
    """Out-strength to, and in-strength from, the components of the model.

    Parameters
    ----------
    edges
        float64 [R, N, N], R replicates.
    mask
        bool [N, N], the same for all nodes of a class.
    peers
        int [N], the class of each node.
    components
        bool [N], false for the embedding and the logits.

    Returns
    -------
    dict of str to ndarray
        ``out_strength.raw`` [R, N]: sum of a node's weights to components (0 without a possible edge).
        ``out_strength.per_edge``: their mean over the possible edges (NaN without any).
        ``out_strength.block``: their mean log ratio to the median of their block, the edges between the same two
        classes. The same for ``in_strength``.

    Notes
    -----
    A node that is alone in its class (the one MLP of a layer, the embedding, the logits) has no block score but NaN:
    its edges are compared with each other only, which says nothing about it against another component. That covers
    blocks of a single edge, whose ratio is 1 whatever the weight. Edges of a block whose median is 0 have no ratio and
    are left out; weights of 0 in other blocks count as `RATIO_FLOOR`.
    """
    ratios = np.full(edges.shape, np.nan)
    sources, targets = np.nonzero(mask)
    ratios[:, mask] = _log_ratios(edges[:, mask], peers[sources] * (peers.max() + 1) + peers[targets])
    alone = np.bincount(peers)[peers] < 2  # [N]
    scores = {}
    for name, axis in (("out_strength", 2), ("in_strength", 1)):
        counted = mask & np.expand_dims(components, 2 - axis)  # [N, N], by what is at the other end
        raw = np.where(counted, edges, 0).sum(axis)  # [R, N]
        possible = counted.sum(axis - 1)  # [N]
        compared = np.where(counted, ratios, np.nan)
        found = np.isfinite(compared).sum(axis)
        with np.errstate(invalid="ignore"):
            block = np.where(alone, np.nan, np.nansum(compared, axis) / found)
            scores |= {f"{name}.raw": raw, f"{name}.per_edge": raw / possible, f"{name}.block": block}
    return scores


def betweenness_scores(betweenness: np.ndarray, mask: np.ndarray, peers: np.ndarray) -> dict[str, np.ndarray]:
    """Betweenness of every node.

    Parameters
    ----------
    betweenness
        float64 [R, N], as a share of the number of possible edges (see `phasegraph.network.metrics.path_metrics`).
    mask
        bool [N, N], a strict partial order.
    peers
        int [N], the class of each node.

    Returns
    -------
    dict of str to ndarray
        ``betweenness.raw`` [R, N]: as given. ``betweenness.per_edge``: mean share of the shortest paths that pass the
        node over the pairs that it can stand between, (number of its possible sources) x (number of its possible
        targets); NaN without any. ``betweenness.block``: that minus the mean of its class; NaN for a node alone in it.

    Notes
    -----
    Not a log ratio to a median as for strengths: at 30 nodes half of all betweennesses, and so many medians, are 0.
    """
    pairs = mask.sum(0) * mask.sum(1)  # [N]
    with np.errstate(invalid="ignore"):
        per_pair = betweenness * mask.sum() / pairs  # [R, N]
    members = np.equal.outer(peers, peers) / np.bincount(peers)[peers]  # [N, N], averages over a class
    block = per_pair - np.nan_to_num(per_pair) @ members  # a class is wholly NaN or not at all
    block[:, np.bincount(peers)[peers] < 2] = np.nan
    return {"betweenness.raw": betweenness, "betweenness.per_edge": per_pair, "betweenness.block": block}


def _log_ratios(weights: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Logarithm of each weight [R, E] over the median of its block, given blocks [E]; NaN where the median is 0."""
    order = np.argsort(blocks, kind="stable")
    _, starts, sizes = np.unique(blocks[order], return_index=True, return_counts=True)
    medians = np.empty_like(weights)
    for size in np.unique(sizes):  # blocks of one size at a time: there are a few sizes, but thousands of blocks
        members = order[starts[sizes == size, None] + np.arange(size)]  # [blocks, size]
        medians[:, members] = np.median(weights[:, members], axis=-1, keepdims=True)
    medians[medians == 0] = np.nan
    return np.log(np.maximum(weights / medians, RATIO_FLOOR))

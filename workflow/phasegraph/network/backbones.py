"""Backbones: the few edges of a dense graph to draw or to count, and the file that graph programs open.

Nearly every possible edge has some weight, so that what is drawn or counted needs a rule. No rule is right for all
purposes, hence three: the strongest edges, the edges that are strong for their ends, and the edges down to the strength
that it takes to get from the first layer to the last.
"""

from collections.abc import Mapping
from pathlib import Path

import igraph
import numpy as np

from phasegraph.network.metrics import strongest_count
from phasegraph.types import Backbone, Kind, Node

SPACING = 100.0
"""Distance of neighbouring nodes in a drawing; graph programs draw nodes 10 to 40 wide."""


def strongest_edges(weights: np.ndarray, mask: np.ndarray, share: float = 0.10) -> np.ndarray:
    """Keep the strongest of the possible edges.

    Parameters
    ----------
    weights
        float64 [N, N], >= 0; row = source, column = target.
    mask
        bool [N, N], the possible edges.
    share
        Which part of the possible edges to keep, above 0 and up to 1; rounded up to whole edges.

    Returns
    -------
    ndarray
        bool [N, N]. Edges that tie across the cut are all left out (otherwise the order of the nodes would decide), and
        so are edges without weight: there may be fewer than `share`.
    """
    kept = np.zeros(mask.shape, dtype=bool)
    possible = weights[mask]  # [E]
    count = strongest_count(share, len(possible))
    strongest_left_out = np.sort(possible)[::-1][count] if count < len(possible) else 0
    kept[mask] = possible > max(strongest_left_out, 0)
    return kept


def disparity_filter(weights: np.ndarray, mask: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """Keep the edges that carry more of a node's strength than chance would give to one of its possible edges.

    Parameters
    ----------
    weights
        float64 [N, N], >= 0; row = source, column = target.
    mask
        bool [N, N], the possible edges.
    alpha
        Level of significance. Where strength is divided up at random (uniformly), this is the share of edges that are
        kept for one end. For either end it is more, but less than ``2 alpha - alpha^2``: .07 for .05 with 12 possible
        edges at each end, since a weight that is large at one end is mostly so at the other.

    Returns
    -------
    ndarray
        bool [N, N]: significant among the edges out of their source or among those into their target. The only possible
        edge at an end is not significant there.

    Notes
    -----
    Serrano, Boguna & Vespignani, PNAS 106 (2009): an edge with the share p of its node's strength has the significance
    ``(1 - p)^(k - 1)``. Here k counts the possible edges, since those without weight are measured too.
    """
    weights = np.where(mask, weights, 0)
    kept = np.zeros(mask.shape, dtype=bool)
    for axis in (1, 0):  # out of the source, into the target
        strength = weights.sum(axis, keepdims=True)
        degree = mask.sum(axis, keepdims=True)
        share = weights / np.where(strength > 0, strength, 1)
        kept |= (degree > 1) & (np.maximum(1 - share, 0) ** np.maximum(degree - 1, 0) < alpha)
    return kept & (weights > 0)


def percolation_backbone(weights: np.ndarray, mask: np.ndarray, width: float) -> np.ndarray:
    """Keep the edges that are at least as strong as the strongest path from the first layer to the last.

    Parameters
    ----------
    weights
        float64 [N, N], >= 0; row = source, column = target.
    mask
        bool [N, N], the possible edges.
    width
        The largest threshold at which there is such a path, which is the weight of the weakest edge of the widest path
        (see `phasegraph.network.paths`), computed from the same weights; 0 if there is none.

    Returns
    -------
    ndarray
        bool [N, N]; nothing if there is no path.
    """
    return mask & (weights >= width) & (weights > 0) & (width > 0)


def backbones_of(weights: np.ndarray, mask: np.ndarray, width: float) -> dict[Backbone, np.ndarray]:
    """Edges of each backbone, bool [N, N], from weights and possible edges [N, N] and the width of the widest path."""
    return {
        Backbone.TOP10: strongest_edges(weights, mask),
        Backbone.DISPARITY: disparity_filter(weights, mask),
        Backbone.PERCOLATION: percolation_backbone(weights, mask, width),
    }


def positions(nodes: list[Node]) -> np.ndarray:
    """Place the nodes of a drawing: layers upwards, heads from left to right, then the MLP.

    Parameters
    ----------
    nodes
        All nodes of the graph.

    Returns
    -------
    ndarray
        float64 [N, 2]: x and y, in units of `SPACING`. Embedding and logits stand in the middle.
    """
    heads = 1 + max((node.head for node in nodes if node.head is not None), default=-1)
    columns = {Kind.MLP: heads, Kind.EMBED: heads / 2, Kind.LOGITS: heads / 2}
    return np.array([(columns.get(node.kind, node.head), node.layer) for node in nodes], dtype=np.float64)


def write_graphml(
    path: str | Path, nodes: list[Node], weights: np.ndarray, kept: np.ndarray, scores: Mapping[str, np.ndarray]
) -> None:
    """Write a backbone for Gephi, Cytoscape, networkx and the like; the same graph gives the same bytes.

    Parameters
    ----------
    path
        The .graphml file to write.
    nodes
        All nodes; those without an edge stay in.
    weights
        float64 [N, N]; row = source, column = target.
    kept
        bool [N, N], the edges of the backbone.
    scores
        Name -> [N], one more number for each node. What is not finite is left out at that node, which GraphML allows
        and all programs read as missing; spellings of NaN and infinity differ between them.

    Notes
    -----
    Attributes of nodes are ``name``, ``label`` (the same), ``layer``, ``kind``, ``head`` (-1 but for heads), ``x``,
    ``y`` and the scores, of edges ``weight`` and ``sqrt_weight``. Numbers are doubles of 15 digits: igraph writes no
    integers.
    """
    sources, targets = np.nonzero(kept)
    graph = igraph.Graph(len(nodes), np.stack([sources, targets], axis=1).tolist(), directed=True)
    place = positions(nodes) * SPACING
    graph.vs["name"] = graph.vs["label"] = [node.name for node in nodes]  # Cytoscape shows the name, Gephi the label
    graph.vs["layer"] = [node.layer for node in nodes]
    graph.vs["kind"] = [str(node.kind) for node in nodes]
    graph.vs["head"] = [-1 if node.head is None else node.head for node in nodes]
    graph.vs["x"], graph.vs["y"] = place[:, 0].tolist(), place[:, 1].tolist()
    for name, values in scores.items():
        values = np.asarray(values, dtype=np.float64)
        graph.vs[name] = np.where(np.isfinite(values), values, np.nan).tolist()  # igraph leaves NaN out
    if len(sources):  # of no edges, igraph would take the weights for booleans
        graph.es["weight"] = weights[sources, targets].tolist()
        graph.es["sqrt_weight"] = np.sqrt(weights[sources, targets]).tolist()
    graph.write_graphml(str(path))

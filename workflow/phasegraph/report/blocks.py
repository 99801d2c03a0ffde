"""The graph as it is drawn: node by node, or by layer and kind where there are too many nodes."""

from dataclasses import dataclass

import numpy as np

from phasegraph.report.study import StudyData
from phasegraph.types import Kind, Node

MOST = 200
"""Number of nodes above which the nodes of a drawing are the heads and the MLP of a layer."""


@dataclass(frozen=True)
class Drawn:
    """A graph to draw, over the nodes that `drawn_nodes` gives."""

    edges: np.ndarray
    """Weights, float64 [n, n]."""
    mask: np.ndarray
    """Possible edges, bool [n, n]."""
    out_strength: np.ndarray
    """Total effect on all other components, [n]; of a group of heads their mean."""
    balance: np.ndarray
    """(out - in) / (out + in) of the strengths, [n], in [-1, 1]; 0 where both are 0."""


def drawn_nodes(nodes: list[Node]) -> list[Node]:
    """Nodes of the drawing: all, or if there are more than `MOST`, one for all heads and one for the MLP of a layer.

    Embedding and logits stay what they are.
    """
    if len(nodes) <= MOST:
        return nodes
    kinds = dict.fromkeys((node.layer, node.kind) for node in nodes)
    return [Node(i, layer, kind, 0 if kind is Kind.HEAD else None) for i, (layer, kind) in enumerate(kinds)]


def drawn_graph(study: StudyData, step: int) -> Drawn:
    """Graph of one checkpoint over the nodes of the drawing; between groups the mean of the possible edges."""
    total = study.edges(step)[0]  # [N, N]
    edges = study.edges(step, study.path_effect)[0]
    groups = membership(study.nodes)  # [n, N]
    possible = groups @ study.mask @ groups.T  # [n, n], number of edges
    weights = np.divide(groups @ edges @ groups.T, possible, out=np.zeros_like(possible), where=possible > 0)
    sizes = groups.sum(1)
    others = study.components.astype(float)  # strengths leave out what embedding and logits are at the other end of
    out, into = groups @ (total * others).sum(1) / sizes, groups @ (total * others[:, None]).sum(0) / sizes
    both = out + into
    balance = np.divide(out - into, both, out=np.zeros_like(both), where=both > 0)
    return Drawn(weights, possible > 0, out, balance)


def membership(nodes: list[Node]) -> np.ndarray:
    """Which component belongs to which node of the drawing, float64 [n, N] of 0 and 1."""
    if len(nodes) <= MOST:
        return np.eye(len(nodes))
    places = {(node.layer, node.kind): node.index for node in drawn_nodes(nodes)}
    groups = np.zeros((len(places), len(nodes)))
    for node in nodes:
        groups[places[node.layer, node.kind], node.index] = 1
    return groups

"""Change by block: how far the edges between two kinds of components, at two depths, move between checkpoints.

A block holds the possible edges from the heads, or the MLPs, of one layer to those of another. The logarithm of a
block's speed has a standard deviation of about ``1 / sqrt(2 edges)`` where that of a single number has 1.1, and a
reorganisation of part of the wiring is not drowned by what the rest does.
"""

import numpy as np

from phasegraph.network.graph import FLOOR
from phasegraph.types import Kind, Node

BANDS = 6
"""Layers are joined to at most so many bands of neighbours, which makes at most 84 blocks."""


def blocks_of(nodes: list[Node], mask: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Say to which block every possible edge between components belongs.

    Parameters
    ----------
    nodes
        The components are its heads and MLPs.
    mask
        Possible edges between components, bool [N, N].

    Returns
    -------
    names : list of str
        [B], as ``L0 heads > L2 MLPs``, or with bands ``L0-1 heads > L4-5 MLPs``.
    block : ndarray
        int [E], index of each edge's block; edges are those of the mask, row by row.
    """
    layers = sorted({node.layer for node in nodes if node.kind in (Kind.HEAD, Kind.MLP)})
    bands = {layer: part for part in np.array_split(layers, min(BANDS, len(layers))) for layer in part.tolist()}

    def side(node: Node) -> str:
        band = bands[node.layer]
        depth = f"L{band[0]}" if len(band) == 1 else f"L{band[0]}-{band[-1]}"
        return f"{depth} {'heads' if node.kind is Kind.HEAD else 'MLPs'}"

    sides = [side(node) if node.layer in bands else "" for node in nodes]
    classes = list(dict.fromkeys(sides))
    of = np.array([classes.index(name) for name in sides])
    sources, targets = np.nonzero(mask)
    codes, block = np.unique(of[sources] * len(classes) + of[targets], return_inverse=True)
    return [f"{classes[code // len(classes)]} > {classes[code % len(classes)]}" for code in codes], block


def log_weights(weights: np.ndarray) -> np.ndarray:
    """Natural logarithms of weights, those below `phasegraph.network.graph.FLOOR` raised to that."""
    return np.log(np.maximum(np.asarray(weights, dtype=np.float64), FLOOR))


def block_changes(before: np.ndarray, after: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Root mean square change of the edges of each block.

    Parameters
    ----------
    before, after
        [..., E], logarithms of the weights.
    block
        int [E], as from `blocks_of`.

    Returns
    -------
    ndarray
        [..., B].
    """
    squares = (after - before) ** 2
    if not len(block):
        return squares  # a model of one layer has no edges between components
    sizes = np.bincount(block)
    order = np.argsort(block, kind="stable")
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    return np.sqrt(np.add.reduceat(squares[..., order], starts, axis=-1) / sizes)

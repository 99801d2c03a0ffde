"""Further scores of nodes, which decide no role: harmonic centrality, hubs and authorities, Katz centrality.

All of them depend on the layer (Spearman's rho -.7 for Katz, -.5 for hubs), so they are to be read within a layer.
PageRank is left out, since it is the layer index (.9), eigenvector centrality, since a nilpotent matrix has none, and
closeness, which is undefined where nothing is reached.
"""

from typing import NamedTuple

import numpy as np

DENSE = 200
"""Up to so many nodes all singular vectors are computed, above it the first two."""


def harmonic(distances: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of 1 / distance over all nodes that a node can reach, and over all that can reach it.

    Parameters
    ----------
    distances
        float [B, N, N], infinite where there is no path.
    mask
        bool [N, N], a strict partial order.

    Returns
    -------
    out, into : ndarray
        [B, N], in units of weight; NaN for a node that can reach none (that none can reach). Marchiori & Latora,
        Physica A 285 (2000), with the mask's pairs in place of all.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.where(mask, 1 / distances, 0)
        return near.sum(-1) / mask.sum(1), near.sum(-2) / mask.sum(0)


class Singular(NamedTuple):
    """First singular vectors and values of B graphs; NaN where all weights are 0."""

    left: np.ndarray
    """[B, N]."""
    values: np.ndarray
    """[B, 2], the first and the second."""
    right: np.ndarray
    """[B, N]."""


def first_singular(weights: np.ndarray) -> Singular:
    """Decompose matrices float64 [B, N, N] as far as the scores of this module need it."""
    size = weights.shape[-1]
    nothing = np.full(size, np.nan), np.array([np.nan, 1]), np.full(size, np.nan)
    found = [_decompose(graph) if graph.any() and size > 1 else nothing for graph in weights]
    return Singular(*(np.array(part) for part in zip(*found, strict=True)))


def hubs_and_authorities(
    weights: np.ndarray, singular: Singular | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score nodes by their edges to good authorities, and from good hubs.

    Parameters
    ----------
    weights
        float64 [B, N, N], >= 0.
    singular
        Of `first_singular`, if that is known.

    Returns
    -------
    hubs, authorities : ndarray
        [B, N], of length 1: the first pair of singular vectors (Kleinberg, J. ACM 46, 1999).
    ratio : ndarray
        [B]: first over second singular value. Below about 1.2 the vectors are hardly defined. All NaN if all weights
        are 0.
    """
    singular = first_singular(weights) if singular is None else singular
    with np.errstate(divide="ignore"):
        ratio = singular.values[:, 0] / singular.values[:, 1]
    return np.abs(singular.left), np.abs(singular.right), ratio


def katz(weights: np.ndarray, singular: Singular | None = None) -> np.ndarray:
    """Sum of the products of weights along all paths from each node, shortened by the first singular value per edge.

    Parameters
    ----------
    weights
        float64 [B, N, N], of directed acyclic graphs.
    singular
        Of `first_singular`, if that is known.

    Returns
    -------
    ndarray
        [B, N]: ``(I - W / s)^-1 1 - 1``, with s the first singular value (Katz, Psychometrika 18, 1953; any s will do
        without cycles, and this one does not depend on the scale). NaN if all weights are 0.
    """
    first = (first_singular(weights) if singular is None else singular).values[:, 0]
    result = np.full(weights.shape[:2], np.nan)
    for i in np.flatnonzero(np.isfinite(first)):
        result[i] = np.linalg.solve(np.eye(len(weights[i])) - weights[i] / first[i], np.ones(len(weights[i]))) - 1
    return result


def _decompose(graph: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First left singular vector [N], first two singular values [2], first right singular vector [N]."""
    if len(graph) <= DENSE:
        left, values, right = np.linalg.svd(graph)
        return left[:, 0], values[:2], right[0]
    from scipy.sparse.linalg import svds

    left, values, right = svds(graph, k=2, v0=np.ones(len(graph)))  # ascending
    return left[:, 1], values[::-1], right[1]

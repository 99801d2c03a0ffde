"""Further scores of nodes, which decide no role: harmonic centrality, hubs and authorities, Katz centrality.

All of them depend on the layer (Spearman's rho -.7 for Katz, -.5 for hubs), so they are to be read within a layer.
PageRank is left out, since it is the layer index (.9), eigenvector centrality, since a nilpotent matrix has none, and
closeness, which is undefined where nothing is reached.
"""

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


def hubs_and_authorities(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score nodes by their edges to good authorities, and from good hubs.

    Parameters
    ----------
    weights
        float64 [B, N, N], >= 0.

    Returns
    -------
    hubs, authorities : ndarray
        [B, N], of length 1: the first pair of singular vectors (Kleinberg, J. ACM 46, 1999).
    ratio : ndarray
        [B]: first over second singular value. Below about 1.2 the vectors are hardly defined. All NaN if all weights
        are 0.
    """
    size = weights.shape[-1]
    hubs, authorities, ratios = [], [], []
    for graph in weights:
        if not graph.any() or size < 2:
            left, right, values = np.full(size, np.nan), np.full(size, np.nan), np.array([np.nan, 1])
        else:
            left, values, right = _first_singular(graph)
        hubs.append(np.abs(left))
        authorities.append(np.abs(right))
        with np.errstate(divide="ignore"):
            ratios.append(values[0] / values[1])
    return np.array(hubs), np.array(authorities), np.array(ratios)


def _first_singular(graph: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First left singular vector [N], first two singular values [2], first right singular vector [N]."""
    if len(graph) <= DENSE:
        left, values, right = np.linalg.svd(graph)
        return left[:, 0], values[:2], right[0]
    from scipy.sparse.linalg import svds

    left, values, right = svds(graph, k=2, v0=np.ones(len(graph)))  # ascending
    return left[:, 1], values[::-1], right[1]


def katz(weights: np.ndarray) -> np.ndarray:
    """Sum of the products of weights along all paths from each node, shortened by the first singular value per edge.

    Parameters
    ----------
    weights
        float64 [B, N, N], of directed acyclic graphs.

    Returns
    -------
    ndarray
        [B, N]: ``(I - W / s)^-1 1 - 1``, with s the first singular value (Katz, Psychometrika 18, 1953; any s will do
        without cycles, and this one does not depend on the scale). NaN if all weights are 0.
    """
    result = []
    for graph in weights:
        if not graph.any():
            result.append(np.full(len(graph), np.nan))
            continue
        attenuated = graph / (_first_singular(graph)[1][0] if len(graph) > 1 else 1)
        result.append(np.linalg.solve(np.eye(len(graph)) - attenuated, np.ones(len(graph))) - 1)
    return np.array(result).reshape(weights.shape[:2])

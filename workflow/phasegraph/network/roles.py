"""Who holds which role, and how much the order of two rankings agrees.

Spreaders have a high out-strength, gatherers a high in-strength, gatekeepers a high betweenness. A component that
cannot play a role (no possible edge on that side; for the block score, no peers) is not ranked. Nor are the embedding
and the logits, where they are nodes: that all else depends on the one, and the other on all else, is no finding.
"""

import numpy as np
from scipy.stats import rankdata

ROLES = {"spreader": "out_strength", "gatherer": "in_strength", "gatekeeper": "betweenness"}
"""Role -> the node score that decides it."""
SCORE_KINDS = ("raw", "per_edge", "block")
"""The three versions of each score (see `phasegraph.network.scores`)."""
PAIRS = 1 << 15
"""Pairs of nodes that are looked at at a time."""


def eligible(role: str, mask: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Which nodes can have a score in `role`, bool [N]: those with a possible edge (mask [N, N]) to or from components.

    The embedding can spread and the logits can gather, but only components (bool [N]) are ranked.
    """
    out, into = mask[:, components].any(1), mask[components].any(0)
    return {"spreader": out, "gatherer": into, "gatekeeper": out & into}[role]


def holder_count(nodes: int) -> int:
    """How many nodes hold a role: the top decile, and at least three."""
    return max(3, int(np.ceil(nodes / 10)))


def rank_nodes(scores: np.ndarray) -> np.ndarray:
    """Rank of each score along the last axis, 1 = highest, ties share the better rank, NaN stays NaN."""
    return np.where(np.isnan(scores), np.nan, rankdata(_descending(scores), method="min", axis=-1))


def holders(scores: np.ndarray, k: int) -> np.ndarray:
    """Which nodes are among the top `k` along the last axis, bool of the shape of `scores`.

    Nodes that tie across the cut are all left out (otherwise the order of the nodes would decide among zeros), so that
    there may be fewer than k.
    """
    return (rankdata(_descending(scores), method="max", axis=-1) <= k) & ~np.isnan(scores)


def kendall_matrix(scores: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between all pairs of rankings.

    Parameters
    ----------
    scores
        [S, N]; a node that is NaN in either is left out of that pair.

    Returns
    -------
    ndarray
        float64 [S, S], symmetric; NaN where all of one side tie.

    Notes
    -----
    ``sum s_x s_y / sqrt(sum s_x^2 sum s_y^2)`` over pairs of nodes, s the sign of the difference (Kendall, Biometrika
    33, 1945): products of matrices [S, pairs], whose whole numbers single precision holds exactly up to 5,700 nodes.
    """
    scores = scores[:, np.isfinite(scores).any(0)]
    first, second = np.triu_indices(scores.shape[1], 1)
    agreement, untied = np.zeros((2, len(scores), len(scores)))
    for start in range(0, len(first), PAIRS):
        block = slice(start, start + PAIRS)
        signs = np.sign(scores[:, first[block]] - scores[:, second[block]]).astype(np.float32)  # [S, pairs]
        there = np.isfinite(signs)
        signs[~there] = 0
        agreement += signs @ signs.T
        squares = np.abs(signs)
        untied += squares.sum(1)[:, None] if there.all() else squares @ there.T.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return agreement / np.sqrt(untied * untied.T)


def kendall_tau_b(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b, row by row of [R, N] each: float64 [R], as by `kendall_matrix`."""
    return np.array([kendall_matrix(np.stack(pair))[0, 1] for pair in zip(x, y, strict=True)])


def _descending(scores: np.ndarray) -> np.ndarray:
    """Scores in the order of their ranks, NaN last: scipy would leave NaN out itself, but row by row."""
    return np.where(np.isnan(scores), np.inf, -scores)

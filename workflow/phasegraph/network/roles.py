"""Who holds which role, and how long the ranking lasts.

Spreaders have a high out-strength, gatherers a high in-strength, gatekeepers a high betweenness. A component that
cannot play a role (no possible edge on that side; for the block score, no peers) is not ranked. Nor are the embedding
and the logits, where they are nodes: that all else depends on the one, and the other on all else, is no finding.
"""

from functools import lru_cache

import numpy as np
from scipy.stats import hypergeom, rankdata

ROLES = {"spreader": "out_strength", "gatherer": "in_strength", "gatekeeper": "betweenness"}
"""Role -> the node score that decides it."""
SCORE_KINDS = ("raw", "per_edge", "block")
"""The three versions of each score (see `phasegraph.network.scores`)."""


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
    return rankdata(-scores, method="min", axis=-1, nan_policy="omit")


def holders(scores: np.ndarray, k: int) -> np.ndarray:
    """Which nodes are among the top `k` along the last axis, bool of the shape of `scores`.

    Nodes that tie across the cut are all left out (otherwise the order of the nodes would decide among zeros), so that
    there may be fewer than k.
    """
    worst = rankdata(-scores, method="max", axis=-1, nan_policy="omit")
    return worst <= k  # False for NaN


def kendall_tau_b(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b, row by row.

    Parameters
    ----------
    x, y
        [R, N]; a node that is NaN in either is left out of that row.

    Returns
    -------
    ndarray
        [R]; NaN where all of one side tie.

    Notes
    -----
    ``sum s_x s_y / sqrt(sum s_x^2 sum s_y^2)`` over pairs of nodes, s the sign of the difference (Kendall, Biometrika
    33, 1945).
    """
    missing = np.isnan(x) | np.isnan(y)
    first, second = np.triu_indices(x.shape[1], 1)

    def signs(scores: np.ndarray) -> np.ndarray:
        scores = np.where(missing, np.nan, scores)
        return np.nan_to_num(np.sign(scores[:, first] - scores[:, second]))  # [R, pairs], 0 for ties and missing nodes

    sign_x, sign_y = signs(x), signs(y)
    with np.errstate(invalid="ignore"):
        return (sign_x * sign_y).sum(1) / np.sqrt((sign_x**2).sum(1) * (sign_y**2).sum(1))


@lru_cache
def chance_jaccard(nodes: int, a: int, b: int) -> float:
    """Jaccard index to expect of two random sets of a and b out of `nodes` nodes (exact; hypergeometric overlap)."""
    overlap = np.arange(max(0, a + b - nodes), min(a, b) + 1)
    return float(hypergeom.pmf(overlap, nodes, a, b) @ (overlap / (a + b - overlap)))


def excess_jaccard(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Chance-corrected Jaccard index of the top `k`, row by row: (J - c) / (1 - c), c as expected by chance.

    Parameters
    ----------
    x, y
        [R, N]; NaN where a node is not ranked.
    k
        Number of holders.

    Returns
    -------
    ndarray
        [R]: 1 for the same holders, 0 on average for random ones; NaN where there is no holder or no choice.
    """
    top_x, top_y = holders(x, k), holders(y, k)
    both, either = (top_x & top_y).sum(1), (top_x | top_y).sum(1)
    ranked = np.isfinite(x) | np.isfinite(y)
    sizes = zip(ranked.sum(1).tolist(), top_x.sum(1).tolist(), top_y.sum(1).tolist(), strict=True)
    chance = np.array([chance_jaccard(n, a, b) if min(a, b) > 0 and max(a, b) < n else np.nan for n, a, b in sizes])
    with np.errstate(invalid="ignore"):
        return (both / either - chance) / (1 - chance)

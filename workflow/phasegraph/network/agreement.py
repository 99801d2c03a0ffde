"""How much two rankings of the same nodes agree, and how much of it chance would give.

All treat ties as ties: the order of the nodes never decides.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom

from phasegraph.network.roles import holders, rank_nodes

PERSISTENCE = 0.9
"""Parameter p of rank-biased overlap: the first ten ranks have 86 % of the weight."""


class Shared(NamedTuple):
    """What two sets of holders share; arrays are float64 of one shape, NaN where there is no holder or no choice."""

    jaccard: np.ndarray
    """Chance-corrected Jaccard index: 1 for the same holders, 0 on average for random ones."""
    jaccard_chance: np.ndarray
    """Jaccard index of random holders."""
    persistence: np.ndarray
    """Chance-corrected probability that a holder of the one is a holder of the other: 1 and 0 as above."""
    persistence_chance: np.ndarray
    """That probability for random holders."""


def rank_biased_overlap(x: np.ndarray, y: np.ndarray, p: float = PERSISTENCE) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolated rank-biased overlap, row by row, and what chance gives.

    Parameters
    ----------
    x, y
        [R, N], scores, the highest ranks first; a node that is NaN in either is left out of that row.
    p
        Persistence: rank d has the weight (1 - p) p^(d - 1).

    Returns
    -------
    overlap
        float64 [R]: 1 for the same ranking; NaN where no node is ranked.
    chance
        float64 [R]: its expectation if one of the two rankings is shuffled.

    Notes
    -----
    ``A_n p^n + (1 - p) / p sum_(d <= n) A_d p^d`` with the agreement ``A_d = 2 X_d / (|S_d| + |T_d|)``, S_d and T_d
    the nodes of ranks up to d and X_d what they share (Webber, Moffat & Zobel, ACM TOIS 28, 2010, eq. 32; with ties,
    which all have the first of their ranks, their section 4.5). By chance X_d is |S_d| |T_d| / n, which is d^2 / n
    without ties.
    """
    missing = np.isnan(x) | np.isnan(y)
    ranks = [np.nan_to_num(rank_nodes(np.where(missing, np.nan, scores))).astype(int) for scores in (x, y)]  # 0: none
    a, b, shared = (_cumulative(of) for of in (*ranks, np.maximum(*ranks)))  # [R, N], by depth
    depth = np.arange(1, x.shape[1] + 1)
    weights = (1 - p) * p ** (depth - 1)
    weights[-1:] += p ** x.shape[1]
    nodes = (~missing).sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (2 * shared / (a + b)) @ weights, (2 * a * b / nodes / (a + b)) @ weights


def shared_holders(scores: np.ndarray, k: int) -> Shared:
    """Compare the holders of all pairs of rankings.

    Parameters
    ----------
    scores
        [..., S, N]; NaN where a node is not ranked.
    k
        Number of holders.

    Returns
    -------
    Shared
        float64 [..., S, S] each.
    """
    top, there = holders(scores, k).astype(np.float32), np.isfinite(scores).astype(np.float32)
    both, common = ((of @ of.swapaxes(-1, -2)).astype(np.float64) for of in (top, there))
    size, count = (of.sum(-1, dtype=np.float64) for of in (top, there))
    ranked = count[..., :, None] + count[..., None, :] - common
    return share(both, size[..., :, None], size[..., None, :], ranked)


def share(both: np.ndarray, a: np.ndarray, b: np.ndarray, ranked: np.ndarray) -> Shared:
    """Correct overlaps for chance, given the numbers of common holders, of holders on each side and of ranked nodes."""
    both, a, b, ranked = np.broadcast_arrays(both, a, b, ranked)
    many = int(ranked.max(initial=0)) + 1
    sizes, where = np.unique(np.ravel((ranked * many + a) * many + b).astype(int), return_inverse=True)
    by_chance = [chance_jaccard(size // many**2, size // many % many, size % many) for size in sizes.tolist()]
    chance = np.array(by_chance)[where].reshape(both.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        jaccard = (both / (a + b - both) - chance) / (1 - chance)
        meet = np.where(np.isfinite(chance), (a + b) / (2 * ranked), np.nan)
        persistence = ((both / a + both / b) / 2 - meet) / (1 - meet)
    return Shared(jaccard, chance, persistence, meet)


@lru_cache
def chance_jaccard(nodes: int, a: int, b: int) -> float:
    """Jaccard index to expect of two random sets of a and b out of `nodes` nodes (exact; hypergeometric overlap).

    NaN where a set is empty or holds all nodes.
    """
    if not (min(a, b) > 0 and max(a, b) < nodes):
        return float("nan")
    overlap = np.arange(max(0, a + b - nodes), min(a, b) + 1)
    return float(hypergeom.pmf(overlap, nodes, a, b) @ (overlap / (a + b - overlap)))


def corrected(value: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """(value - chance) / (1 - chance); NaN where chance gives 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (value - chance) / (1 - chance), np.nan)


def _cumulative(ranks: np.ndarray) -> np.ndarray:
    """How many ranks [R, N] (0 for none) are at most 1..N, [R, N]."""
    rows, nodes = ranks.shape
    flat = ranks + np.arange(rows)[:, None] * (nodes + 1)
    counts = np.bincount(flat.ravel(), minlength=rows * (nodes + 1)).reshape(rows, nodes + 1)
    return counts[:, 1:].cumsum(1)

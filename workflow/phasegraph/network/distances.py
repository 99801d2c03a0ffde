"""How far apart the wirings of two checkpoints are, and how much of it is the noise of the prompts.

The distance is 1 - Spearman's correlation of the edge vectors over the mask: nodes have identities, so edges are
compared one by one, and ranks make the distance indifferent to the scale of a measure.

The noise floor is the same distance between two halves of the prompts at one checkpoint. The groups' own weights are
recovered from the replicates as pseudo-values, G w - (G - 1) w_(-k). That is exact if the weight is a mean over groups.
A share of variance is a ratio of sums, w = sum_k S_k / 2 sum_k V_k, and so a mean over groups only if the target's
variance V_k is the same in each; otherwise it is the first-order approximation. A half has twice the variance of
the whole, so the floor is an upper bound on the noise of an estimate.

Two checkpoints see the same prompts, so most of that noise is common to both and cancels in their distance: churn minus
floor would come out negative for any slow change. Excess churn therefore compares half A before with half B after, and
subtracts the distance of half A and half B at the same checkpoint: noise of the same size on both sides. It is 0 on
average if the wiring stays, whatever part of the noise is shared, and a few per cent below the true churn otherwise,
because noise mixes ranks that change would have moved.
"""

import numpy as np
from scipy.stats import rankdata

SPLITS = 16
"""Number of random splits of the groups over which a floor is averaged."""


def standard_ranks(vectors: np.ndarray) -> np.ndarray:
    """Ranks along the last axis (ties share their mean), centred and of length 1: their dot product is Spearman's rho.

    Parameters
    ----------
    vectors
        [..., E].

    Returns
    -------
    ndarray
        float64 [..., E]; NaN where all values are equal.
    """
    ranks = rankdata(vectors, axis=-1) - (vectors.shape[-1] + 1) / 2
    with np.errstate(invalid="ignore"):
        return ranks / np.sqrt((ranks * ranks).sum(-1, keepdims=True))


def rank_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - Spearman's rho between `standard_ranks`, [..., E] each; in [0, 2]."""
    return np.maximum(1 - (a * b).sum(-1), 0)  # rounding may put identical vectors at -1e-16


def distance_matrix(ranks: np.ndarray) -> np.ndarray:
    """1 - Spearman's rho between all pairs of checkpoints.

    Parameters
    ----------
    ranks
        [S, E], the `standard_ranks` of each checkpoint's edge vector.

    Returns
    -------
    ndarray
        float64 [S, S], symmetric, 0 on the diagonal.
    """
    distances = np.maximum(1 - ranks @ ranks.T, 0)
    np.fill_diagonal(distances, 0)
    return (distances + distances.T) / 2  # a BLAS product need not be symmetric to the last bit


def half_splits(groups: int, splits: int = SPLITS, seed: int = 0) -> np.ndarray:
    """Random splits of the prompt groups into two halves, bool [splits, groups], the same at every checkpoint."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(groups) < groups // 2, (splits, 1)), axis=1)


def half_ranks(weights: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """`standard_ranks` of the edge vectors of both halves of the prompts.

    Parameters
    ----------
    weights
        [G + 1, E]: the estimate and its leave-one-group-out replicates.
    splits
        bool [K, G].

    Returns
    -------
    ndarray
        float64 [2, K, E].
    """
    groups = len(weights) - 1
    pseudo = groups * weights[0] - (groups - 1) * weights[1:]  # [G, E]
    first = splits / splits.sum(1, keepdims=True)
    second = ~splits / (~splits).sum(1, keepdims=True)
    return standard_ranks(np.stack([first, second]) @ pseudo)  # [2, K, E]


def noise_floor(halves: np.ndarray) -> float:
    """Mean distance between the two halves of the prompts at one checkpoint, given `half_ranks` [2, K, E]."""
    return float(rank_distance(halves[0], halves[1]).mean())


def excess_churn(before: np.ndarray, after: np.ndarray) -> float:
    """Distance between two checkpoints beyond the noise of the prompts, given `half_ranks` [2, K, E] of each.

    Mean distance between disjoint halves across the two checkpoints minus the same within them; can be negative.
    """
    across = rank_distance(before, after[::-1]).mean()
    return float(across - (noise_floor(before) + noise_floor(after)) / 2)

"""How far apart the wirings of two checkpoints are, and how much of it is the noise of the prompts.

Nodes have identities, so edges are compared one by one, over the mask. Three distances see three things:

- ``spearman``: 1 - Spearman's correlation of the weights. Which edges are the stronger ones; the scale of a measure
  does not matter. In [0, 2].
- ``jensen_shannon``: Jensen-Shannon divergence, in bits, of the weights as shares of their sum. Where the influence
  goes. In [0, 1]. It is the divergence and not its root: noise adds to a divergence, as it does to 1 - rho, and can be
  subtracted from it.
- ``wasserstein``: first Wasserstein distance of the natural logarithms of the weights, those below 1e-7 raised to that.
  How strong edges are, whichever they are: a factor of 1.1 on all weights is a distance of log 1.1.

The noise floor is the same distance between two halves of the prompts at one checkpoint. The groups' own weights are
recovered from the replicates as pseudo-values, G w - (G - 1) w_(-k). That is exact if the weight is a mean over groups.
A share of variance is a ratio of sums, w = sum_k S_k / 2 sum_k V_k, and so a mean over groups only if the target's
variance V_k is the same in each; otherwise it is the first-order approximation. A half has twice the variance of
the whole, so the floor is an upper bound on the noise of an estimate.

Two checkpoints see the same prompts, so most of that noise is common to both and cancels in their distance: churn minus
floor would come out negative for any slow change. Excess churn therefore compares half A before with half B after, and
subtracts the distance of half A and half B at the same checkpoint: noise of the same size on both sides. It is 0 on
average if the wiring stays, whatever part of the noise is shared, and a few per cent below the true churn otherwise,
because noise mixes ranks that change would have moved. The Wasserstein distance is a mean of absolute values, which
noise only adds to where it is larger than the change: its excess is a lower bound, by up to the floor.
"""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from phasegraph.jackknife import pseudo_values
from phasegraph.network.graph import FLOOR

KINDS = ("spearman", "jensen_shannon", "wasserstein")
"""The distances, in the order of the first axis of ``distances.npy`` and ``excess.npy``."""
ENDINGS = {kind: "" if kind == "spearman" else f"_{kind}" for kind in KINDS}
"""Kind of distance -> ending of the names of its churn, noise floor and excess churn."""
SPLITS = 16
"""Number of random splits of the groups over which noise is averaged, in graphs of up to `SPLIT_EDGES` / 16 edges."""
SPLIT_EDGES = 320_000
"""Splits times edges in larger graphs, which keeps the time about the same (see `split_count`)."""
RANKED = 1 << 20
"""Weights that are ranked at a time."""
BLOCK = 1024
"""Edges that are compared at a time: what is summed over edges needs no more than a block of each checkpoint."""


def prepare(weights: np.ndarray, kind: str) -> np.ndarray:
    """Bring edge vectors into the form in which the distances of a kind are sums over edges.

    Parameters
    ----------
    weights
        [..., E]. Those of halves can be slightly negative; as shares and in logarithms they count as 0.
    kind
        One of `KINDS`.

    Returns
    -------
    ndarray
        float64 [..., E]: ranks, centred and of length 1 (NaN where all weights are equal); shares of the sum (NaN where
        that is 0); or sorted logarithms.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not weights.shape[-1]:
        return weights
    with np.errstate(invalid="ignore"):
        if kind == "spearman":
            ranks = rankdata(weights, axis=-1) - (weights.shape[-1] + 1) / 2  # ties share their mean
            return ranks / np.sqrt((ranks * ranks).sum(-1, keepdims=True))
        if kind == "jensen_shannon":
            weights = np.maximum(weights, 0)
            return weights / weights.sum(-1, keepdims=True)
    return np.sort(np.log(np.maximum(weights, FLOOR)), axis=-1)


def distance(a: np.ndarray, b: np.ndarray, kind: str) -> np.ndarray:
    """Distance of a kind between edge vectors of `prepare`, [..., E] each, one by one."""
    if kind == "spearman":
        sums = (a * b).sum(-1)
    elif kind == "jensen_shannon":
        sums = _x_log_x(a + b) - _x_log_x(a) - _x_log_x(b)
    else:
        sums = np.abs(a - b).sum(-1)
    return _from_sums(sums, a.shape[-1], kind)


def all_distances(a: np.ndarray, b: np.ndarray, kind: str) -> np.ndarray:
    """Distance of a kind between all pairs of edge vectors of `prepare`, [S, E] and [T, E]: float64 [S, T]."""
    sums = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], BLOCK):
        x, y = a[:, start : start + BLOCK], b[:, start : start + BLOCK]
        if kind == "spearman":
            with np.errstate(invalid="ignore"):
                sums += x @ y.T
        elif kind == "jensen_shannon":
            both = np.stack([_x_log_x(one + y) for one in x])
            sums += both - _x_log_x(x)[:, None] - _x_log_x(y)
        else:
            sums += cdist(x, y, "cityblock")
    return _from_sums(sums, a.shape[1], kind)


def _x_log_x(values: np.ndarray) -> np.ndarray:
    """Sum of x log x along the last axis, 0 for x = 0."""
    logarithms = np.maximum(values, np.finfo(float).tiny)
    np.log(logarithms, out=logarithms)
    return np.einsum("...e,...e->...", values, logarithms)


def _from_sums(sums: np.ndarray, edges: int, kind: str) -> np.ndarray:
    """Distances of a kind from sums over the edges; NaN without edges. Rounding may put a 0 at -1e-16."""
    if not edges:
        return np.full_like(sums, np.nan)
    if kind == "spearman":
        return np.maximum(1 - sums, 0)
    if kind == "jensen_shannon":  # with m = (p + q) / 2: sum m log m = sum (p + q) log (p + q) / 2 - log 2
        return np.maximum(1 - sums / (2 * np.log(2)), 0)
    return sums / edges


def half_splits(groups: int, splits: int = SPLITS, seed: int = 0) -> np.ndarray:
    """Random splits of the prompt groups into two halves, bool [splits, groups], the same at every checkpoint."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(groups) < groups // 2, (splits, 1)), axis=1)


def split_count(edges: int) -> int:
    """How many splits to average over: `SPLITS`, in large graphs fewer, so that splits x edges <= `SPLIT_EDGES`, but 1.

    A large graph averages the noise over its many edges.
    """
    return int(np.clip(SPLIT_EDGES // max(edges, 1), 1, SPLITS))


def halves(weights: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Weights by both halves of the prompts, as means of pseudo-values.

    Parameters
    ----------
    weights
        [G + 1, ...]: the estimate and its leave-one-group-out replicates.
    splits
        bool [K, G].

    Returns
    -------
    ndarray
        float64 [2, K, ...]; of small weights they can be slightly negative.
    """
    first = splits / splits.sum(1, keepdims=True)
    second = ~splits / (~splits).sum(1, keepdims=True)
    return np.tensordot(np.stack([first, second]), pseudo_values(weights), axes=1)


def compare(estimates: np.ndarray, parted: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare all pairs of checkpoints.

    Parameters
    ----------
    estimates
        [S, E], the weights of each checkpoint.
    parted
        [K, 2, S, E], those of both halves of the prompts (see `halves`).
    kind
        One of `KINDS`.

    Returns
    -------
    distances
        float64 [S, S], symmetric, 0 on the diagonal.
    excess
        float64 [S, S]: the distances beyond the noise of the prompts, symmetric, 0 on the diagonal. Mean distance of
        disjoint halves across the two checkpoints minus the same within them; can be negative.
    floors
        float64 [S]: mean distance of the two halves of the prompts at each checkpoint.

    Notes
    -----
    NaN, on the diagonal too, of a checkpoint whose weights do not have this distance.
    """
    prepared = _prepared(estimates, kind)
    distances = _symmetric(all_distances(prepared, prepared, kind))
    np.fill_diagonal(distances, 0 * distances.diagonal())  # NaN stays
    across = np.mean([all_distances(_prepared(a, kind), _prepared(b, kind), kind) for a, b in parted], axis=0)  # [S, S]
    floors = across.diagonal().copy()
    return distances, _symmetric(across) - (floors[:, None] + floors) / 2, floors


def _prepared(weights: np.ndarray, kind: str) -> np.ndarray:
    """Give `prepare` of [S, E], some checkpoints at a time: to rank all of them takes several times their memory."""
    prepared = np.empty(weights.shape)
    some = max(1, RANKED // max(weights.shape[1], 1))
    for start in range(0, len(weights), some):
        prepared[start : start + some] = prepare(weights[start : start + some], kind)
    return prepared


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    """Mean of a matrix and its transpose, symmetric to the last bit."""
    return (matrix + matrix.T) / 2

"""What a whole graph looks like: level and concentration of its weights, how they mix, and efficiency of its paths.

All means, shares and counts are taken over the mask of possible edges, zeros included, never over N (N - 1).

Left out, because a Transformer's graph is a dense directed acyclic one:

- reciprocity, cycles (always 0) and flow hierarchy (always 1);
- eigenvector centrality: the adjacency matrix is nilpotent, its only eigenvalue is 0;
- unweighted degree, density and transitivity: they describe the mask, which training does not change;
- PageRank, which on these graphs is the layer index (Spearman .9), and closeness, undefined where nothing is reached;
- diameter: one weak edge decides it.
"""

import numpy as np

from phasegraph.network.paths import Trees


def gini(values: np.ndarray) -> np.ndarray:
    """Gini coefficient along the last axis.

    Parameters
    ----------
    values
        [..., n], >= 0.

    Returns
    -------
    ndarray
        [...]: 0 if all values are equal, (n - 1) / n if one has everything, NaN if all are 0 (nothing is shared out).

    Notes
    -----
    Half the relative mean difference, ``2 sum(i x_i) / (n sum x) - (n + 1) / n`` with x ascending and i from 1.
    """
    n = values.shape[-1]
    ascending = np.sort(values, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * (ascending @ np.arange(1, n + 1)) / (n * ascending.sum(-1)) - (n + 1) / max(n, 1)


def effective_number(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the equal edges that would be as diverse as these (Hill numbers of order 1 and 2; Hill, Ecology 54, 1973).

    Parameters
    ----------
    weights
        [..., E], >= 0.

    Returns
    -------
    entropy, simpson : ndarray
        [...]: ``exp(-sum p log p)`` and ``1 / sum p^2`` with p = w / sum w; between 1 and E edges, NaN if all are 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = weights / weights.sum(-1, keepdims=True)
        log_p = np.log(np.where(p == 0, 1, p))  # 0 log 0 = 0; NaN stays NaN
        simpson = 1 / (p * p).sum(-1)
    shared_out = np.isfinite(simpson)  # not so without edges
    return np.where(shared_out, np.exp(-(p * log_p).sum(-1)), np.nan), np.where(shared_out, simpson, np.nan)


def strongest_count(share: float, edges: int) -> int:
    """Count the strongest edges that are such a share of all, rounded up to whole edges."""
    return int(np.ceil(round(share * edges, 9)))  # .01 * 300 is a little more than 3 in binary


def top_share(weights: np.ndarray, share: float) -> np.ndarray:
    """Part of the total weight that the strongest edges carry.

    Parameters
    ----------
    weights
        [..., E], >= 0.
    share
        Which part of the edges counts as strongest; rounded up to whole edges.

    Returns
    -------
    ndarray
        [...], between `share` and 1; NaN if all are 0.
    """
    edges = weights.shape[-1]
    if not edges:
        return np.full(weights.shape[:-1], np.nan)
    k = strongest_count(share, edges)
    strongest = np.partition(weights, edges - k, axis=-1)[..., edges - k :]
    with np.errstate(invalid="ignore", divide="ignore"):
        return strongest.sum(-1) / weights.sum(-1)


def weight_metrics(edges: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Level and concentration of the weights.

    Parameters
    ----------
    edges
        float64 [R, N, N], R replicates.
    mask
        bool [N, N].

    Returns
    -------
    dict of str to ndarray
        Metric -> [R]. All that is about concentration comes twice, of the weights and, with ``_sqrt``, of their square
        roots: ``1 - cos`` and shares of variance are squared measures, and part of their long tail is the squaring.
    """
    weights = edges[:, mask]  # [R, E]
    metrics = {"mean_weight": weights.mean(-1) if weights.size else np.full(len(edges), np.nan)}
    for ending, of_edges in (("", weights), ("_sqrt", np.sqrt(weights))):
        entropy, simpson = effective_number(of_edges)
        metrics |= {
            f"gini{ending}": gini(of_edges),
            f"n_eff_entropy{ending}": entropy,
            f"n_eff_simpson{ending}": simpson,
            f"top1_share{ending}": top_share(of_edges, 0.01),
            f"top10_share{ending}": top_share(of_edges, 0.10),
        }
    return metrics


def strength_metrics(edges: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Concentration of the strengths.

    Parameters
    ----------
    edges
        float64 [R, N, N], R replicates.
    mask
        bool [N, N].

    Returns
    -------
    dict of str to ndarray
        Metric -> [R]: Ginis over the nodes that have a possible edge on that side, of the sums of the weights and, with
        ``_sqrt``, of the sums of their square roots.
    """
    metrics = {}
    for ending, matrices in (("", edges), ("_sqrt", np.sqrt(edges))):
        metrics[f"gini_out_strength{ending}"] = gini(matrices.sum(2)[:, mask.any(1)])
        metrics[f"gini_in_strength{ending}"] = gini(matrices.sum(1)[:, mask.any(0)])
    return metrics


def mixing_metrics(edges: np.ndarray, layers: np.ndarray) -> dict[str, np.ndarray]:
    """Which nodes the edges connect.

    Parameters
    ----------
    edges
        float64 [R, N, N], 0 outside the mask.
    layers
        int [N].

    Returns
    -------
    dict of str to ndarray
        ``assortativity`` [R]: correlation, over edges by their weight, between the source's out-strength and the
        target's in-strength (Newman, PRE 67, 2003; with weights, as igraph has it); NaN where all of a side are equal.
        ``skip_length`` [R]: mean number of layers that an edge climbs, by weight. NaN if all weights are 0.
    """
    out, into = edges.sum(2), edges.sum(1)  # [R, N]
    total = out.sum(1)
    gaps = (layers - layers[:, None]).ravel().astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_out, mean_in = (out * out).sum(1) / total, (into * into).sum(1) / total
        x, y = out - mean_out[:, None], into - mean_in[:, None]
        covariance = np.einsum("ri,rij,rj->r", x, edges, y, optimize=True) / total
        variances = (out * x * x).sum(1) / total, (into * y * y).sum(1) / total
        # Rounding leaves something of a variance of 0.
        defined = (variances[0] > 1e-24 * mean_out**2) & (variances[1] > 1e-24 * mean_in**2)
        assortativity = np.where(defined, covariance / np.sqrt(variances[0] * variances[1]), np.nan)
        return {"assortativity": assortativity, "skip_length": edges.reshape(len(edges), -1) @ gaps / total}


def path_metrics(trees: Trees, betweenness: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """How short the paths are, and how they concentrate.

    Parameters
    ----------
    trees
        Shortest paths of R graphs, of `phasegraph.network.paths.shortest_paths`.
    betweenness
        float64 [R, N], of the same graphs.
    mask
        bool [N, N], a strict partial order.

    Returns
    -------
    dict of str to ndarray
        ``efficiency`` [R]: mean over the mask of 1 / distance, 0 where nothing is reached (Latora & Marchiori, PRL 87,
        2001, but over the pairs that can be connected at all); in units of weight, so at least the mean weight.
        ``gini_betweenness`` [R]: over the nodes that can stand between two others.
    """
    near = 1 / trees.distances[:, mask]  # [R, E]
    between = mask.any(0) & mask.any(1)
    efficiency = near.mean(-1, dtype=np.float64) if near.size else np.full(len(near), np.nan)
    return {"efficiency": efficiency, "gini_betweenness": gini(betweenness[:, between])}

"""What a whole graph looks like: concentration of its weights and efficiency of its paths.

All means, shares and counts are taken over the mask of possible edges, zeros included, never over N (N - 1).

Left out, because a Transformer's graph is a dense directed acyclic one:

- reciprocity, cycles (always 0) and flow hierarchy (always 1);
- eigenvector centrality: the adjacency matrix is nilpotent, its only eigenvalue is 0;
- unweighted degree, density and transitivity: they describe the mask, which training does not change;
- PageRank, which on these graphs is the layer index (Spearman .9), and closeness, undefined where nothing is reached;
- diameter: one weak edge decides it.
"""

import numpy as np

from phasegraph.network.graph import to_igraph


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
    return np.exp(-(p * log_p).sum(-1)), 1 / (p * p).sum(-1)


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
    k = int(np.ceil(round(share * edges, 9)))  # .01 * 300 is a little more than 3 in binary
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
        Metric -> [R]. ``gini_sqrt`` is there because ``1 - cos`` and shares of variance are squared measures: part of
        their long tail is the squaring. Strength Ginis are over the nodes that have a possible edge on that side.
    """
    weights = edges[:, mask]  # [R, E]
    entropy, simpson = effective_number(weights)
    return {
        "mean_weight": weights.mean(-1),
        "gini": gini(weights),
        "gini_sqrt": gini(np.sqrt(weights)),
        "n_eff_entropy": entropy,
        "n_eff_simpson": simpson,
        "top1_share": top_share(weights, 0.01),
        "top10_share": top_share(weights, 0.10),
        "gini_out_strength": gini(edges.sum(2)[:, mask.any(1)]),
        "gini_in_strength": gini(edges.sum(1)[:, mask.any(0)]),
    }


def path_metrics(edges: np.ndarray, mask: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Shortest paths with the length 1/w; edges of weight <= 1e-7 are not travelled.

    Parameters
    ----------
    edges
        float64 [R, N, N], R replicates.
    mask
        bool [N, N], a strict partial order.

    Returns
    -------
    metrics : dict of str to ndarray
        ``efficiency`` [R]: mean over the mask of 1 / distance, 0 where nothing is reached (Latora & Marchiori, PRL 87,
        2001, but over the pairs that can be connected at all); in units of weight, so at least the mean weight.
        ``gini_betweenness`` [R]: over the nodes that can stand between two others.
    betweenness : ndarray
        [R, N]: sum over pairs of the share of their shortest paths that pass through the node (Freeman, Sociometry 40,
        1977), divided by the number of possible edges. In a strict partial order that is the number of ordered pairs
        which a path can connect, so the value is the share of all connectable pairs that depend on the node, and
        compares between graph sizes.
    """
    efficiency, betweenness = [], []
    for weights in edges:
        graph = to_igraph(weights, mask)
        distances = np.array(graph.distances(weights="length", mode="out"))[mask]  # [E]
        efficiency.append((1 / distances).mean())
        betweenness.append(graph.betweenness(weights="length"))
    betweenness = np.array(betweenness) / mask.sum()  # [R, N]
    between = mask.any(0) & mask.any(1)
    return {"efficiency": np.array(efficiency), "gini_betweenness": gini(betweenness[:, between])}, betweenness

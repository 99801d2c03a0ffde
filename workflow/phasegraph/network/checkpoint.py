"""The expensive part, one checkpoint at a time: metrics and node scores of the estimate and its replicates."""

from pathlib import Path

import numpy as np

from phasegraph.files import atomic
from phasegraph.network.graph import are_components, between_components, read_edges, read_mask, read_nodes
from phasegraph.network.metrics import path_metrics, weight_metrics
from phasegraph.network.scores import betweenness_scores, classes, strength_scores
from phasegraph.types import Effect


def checkpoint(edges: Path, direct: Path | None, nodes: Path, mask: Path, out: Path) -> None:
    """Compute and write what is to be known of one checkpoint's graph.

    Parameters
    ----------
    edges
        ``edges/<step>.npy``, the total effect: weights, strengths and paths.
    direct
        ``edges/<step>.direct.npy``, the direct effect, or None: paths only. On total effects a path counts every
        detour twice.
    nodes, mask
        ``nodes.tsv`` and ``mask.npy``.
    out
        ``network/<step>.npz`` with ``metric_names`` [m] (``<effect>.<metric>``), ``metrics`` float64 [17, m],
        ``score_names`` [s] (``<effect>.<score>.<kind>``), ``scores`` float64 [17, s, N]. All of it is about the graph
        between components (see `phasegraph.network.graph.between_components`), but that the embedding and the logits,
        where they are nodes, have a strength too.

    Raises
    ------
    PhasegraphError
        If an input is not what it should be.
    """
    listed = read_nodes(nodes)
    possible, components = read_mask(mask, len(listed)), are_components(listed)
    inner = between_components(possible, components)
    peers = classes(listed)
    total = read_edges(edges, possible)  # [17, N, N]
    metrics = _prefixed(Effect.TOTAL, weight_metrics(np.where(inner, total, 0), inner))
    scores = _prefixed(Effect.TOTAL, strength_scores(total, possible, peers, components))
    graphs = {Effect.TOTAL: total}
    if direct is not None:
        graphs[Effect.DIRECT] = read_edges(direct, possible)
    for effect, graph in graphs.items():
        path_values, betweenness = path_metrics(graph, inner)
        metrics |= _prefixed(effect, path_values)
        scores |= _prefixed(effect, betweenness_scores(betweenness, inner, peers))
    with atomic(out) as temporary:
        np.savez(
            temporary,
            metric_names=np.array(list(metrics)),
            metrics=np.stack(list(metrics.values()), axis=1),
            score_names=np.array(list(scores)),
            scores=np.stack(list(scores.values()), axis=1),
        )


def _prefixed(effect: Effect, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{effect}.{name}": value for name, value in values.items()}

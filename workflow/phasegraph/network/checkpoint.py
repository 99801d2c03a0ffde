"""The expensive part, one checkpoint at a time: metrics and node scores of the estimate and its replicates."""

from pathlib import Path

import numpy as np

from phasegraph.files import atomic
from phasegraph.network.graph import are_components, between_components, read_edges, read_graph
from phasegraph.network.metrics import path_metrics, weight_metrics
from phasegraph.network.scores import betweenness_scores, classes, strength_scores
from phasegraph.types import Effect


def checkpoint(edges: Path, direct: Path | None, graph: Path, out: Path) -> None:
    """Compute and write what is to be known of one checkpoint's graph; an empty file if it could not be measured.

    Parameters
    ----------
    edges
        ``edges/<step>.npy``, the total effect: weights, strengths and paths.
    direct
        ``edges/<step>.direct.npy``, the direct effect, or None: paths only. On total effects a path counts every
        detour twice.
    graph
        ``edges/<step>.more.npz``, which names the nodes and the possible edges.
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
    if edges.is_file() and not edges.stat().st_size:
        with atomic(out) as temporary:
            temporary.touch()
        return
    listed, possible = read_graph(graph)
    components = are_components(listed)
    inner = between_components(possible, components)
    peers = classes(listed)
    total = read_edges(edges, possible)  # [17, N, N]
    metrics = _prefixed(Effect.TOTAL, weight_metrics(np.where(inner, total, 0), inner))
    scores = _prefixed(Effect.TOTAL, strength_scores(total, possible, peers, components))
    weights = {Effect.TOTAL: total}
    if direct is not None:
        weights[Effect.DIRECT] = read_edges(direct, possible)
    for effect, edges_of_effect in weights.items():
        path_values, betweenness = path_metrics(edges_of_effect, inner)
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

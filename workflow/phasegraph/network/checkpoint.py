"""The expensive part, one checkpoint at a time: metrics and scores of the estimate and its replicates, and nulls."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.network import suite
from phasegraph.network.backbones import backbones_of, write_graphml
from phasegraph.network.centrality import first_singular, harmonic, hubs_and_authorities, katz
from phasegraph.network.clustering import PLACES, triangles
from phasegraph.network.distances import half_splits, halves
from phasegraph.network.flow import widest_path
from phasegraph.network.graph import read_edges, read_graph
from phasegraph.network.metrics import path_metrics
from phasegraph.network.paths import betweenness, shortest_paths
from phasegraph.network.scores import betweenness_scores, strength_scores
from phasegraph.network.significance import against_nulls
from phasegraph.network.suite import Structure, structure_of
from phasegraph.types import GROUPS, Backbone, Effect, Node

HALVES = 4
"""Number of random splits of the prompts for which both halves' strengths are kept."""
RESTARTS = 5
"""How often the communities of the estimate are searched for; in large graphs, where a search takes seconds, once."""
AT_ONCE = 2**18
"""Entries of the matrices whose shortest paths are looked for at once: what a cache holds."""


def checkpoint(
    edges: Path,
    direct: Path | None,
    graph: Path,
    out: Path,
    backbones: Path,
    draws: int | None = None,
    seed: int = 0,
) -> None:
    """Compute and write what is to be known of one checkpoint's graph; empty files if it could not be measured.

    Parameters
    ----------
    edges
        ``edges/<step>.npy``, the total effect: weights, strengths, communities.
    direct
        ``edges/<step>.direct.npy``, the direct effect, or None: all that composes edges. On total effects a path counts
        every detour twice.
    graph
        ``edges/<step>.more.npz``, which names the nodes and the possible edges.
    out
        ``network/<step>.npz`` with the arrays

        - ``metric_names`` [m] (``<effect>.<metric>``), ``metrics`` float64 [17, m];
        - ``score_names`` [s] (``<effect>.<score>.<kind>``), ``scores`` float64 [17, s, N];
        - ``half_names`` [h], ``half_scores`` float64 [2, K, h, N]: strengths from both halves of the prompts, for K
          random splits;
        - ``null_names`` [q] (``<effect>.<metric>.<null>``), ``null_columns`` [7], ``nulls`` float64 [q, 7]: the fields
          of `phasegraph.network.nulls.Comparison`;
        - ``communities`` int [N], of the total effect, -1 for embedding and logits;
        - ``widest_path`` int [n], the nodes on the widest path from the first layer to the last.

        All of it is about the graph between components (see `phasegraph.network.graph.between_components`), but that
        the embedding and the logits, where they are nodes, have a strength too.
    backbones
        Folder for ``<step>.<backbone>.graphml``.
    draws
        Number of null graphs; None for a number that suits the size of the graph, 0 for none.
    seed
        Of the null graphs, with the step.

    Raises
    ------
    PhasegraphError
        If an input is not what it should be.
    """
    if not edges.stem.isdecimal():
        raise PhasegraphError(f"{edges}: its name is no step; give it the name of its checkpoint, as in 512.npy")
    step = int(edges.stem)
    files = {name: backbones / f"{step}.{name}.graphml" for name in Backbone}
    if edges.is_file() and not edges.stat().st_size:
        for path in (out, *files.values()):
            with atomic(path) as temporary:
                temporary.touch()
        return
    nodes, possible = read_graph(graph)
    structure = structure_of(nodes, possible)
    weights = {Effect.TOTAL: read_edges(edges, possible, nodes)}  # [17, N, N]
    if direct is not None:
        weights[Effect.DIRECT] = read_edges(direct, possible, nodes)
    inner = {effect: np.where(structure.mask, matrices, 0) for effect, matrices in weights.items()}
    path_effect = [*inner][-1]  # the direct effect where there is one

    metrics, scores = _of_total(weights[Effect.TOTAL], inner[Effect.TOTAL], possible, structure)
    for effect, matrices in inner.items():
        of_effect = _composed(matrices, structure)
        metrics |= _prefixed(effect, of_effect[0])
        scores |= _prefixed(effect, of_effect[1])
    tries = RESTARTS if len(nodes) <= suite.LARGE else 1
    labels = np.full(len(nodes), -1)
    labels[structure.components] = suite.partitions(inner[Effect.TOTAL][:1], structure, tries)[0].labels
    parted = np.maximum(halves(weights[Effect.TOTAL], half_splits(GROUPS, HALVES)), 0)  # [2, HALVES, N, N]; noise < 0
    of_halves = strength_scores(parted.reshape(-1, *possible.shape), possible, structure.classes, structure.components)
    nulls = against_nulls(inner, path_effect, structure, metrics, draws, [seed, step])
    width, path = widest_path(inner[path_effect][:1], structure.mask, structure.first, structure.last)
    kept = backbones_of(inner[path_effect][0], structure.mask, width[0])
    _write_backbones(
        files, nodes, inner[path_effect][0], kept, scores | {"community": np.where(labels < 0, np.nan, labels)}
    )
    with atomic(out) as temporary:
        np.savez(
            temporary,
            metric_names=np.array(list(metrics)),
            metrics=np.stack(list(metrics.values()), axis=1),
            score_names=np.array(list(scores)),
            scores=np.stack(list(scores.values()), axis=1),
            half_names=np.array([f"{Effect.TOTAL}.{name}" for name in of_halves]),
            half_scores=np.stack(list(of_halves.values()), axis=1).reshape(2, HALVES, len(of_halves), len(nodes)),
            communities=labels,
            widest_path=path[0][path[0] >= 0],
            **nulls,
        )


def _prefixed(effect: Effect, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{effect}.{name}": value for name, value in values.items()}


def _of_total(
    weights: np.ndarray, inner: np.ndarray, possible: np.ndarray, structure: Structure
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Metrics [17] and scores [17, N] that do not compose edges, of all total effects and those between components."""
    metrics = suite.of_weights(inner, structure) | suite.of_strengths(inner, structure)
    searched = suite.of_communities(inner[: len(inner) if len(possible) <= suite.LARGE else 1], structure)
    metrics |= {name: np.append(found, np.full(len(inner) - len(found), np.nan)) for name, found in searched.items()}
    scores = strength_scores(weights, possible, structure.classes, structure.components)
    singular = first_singular(inner)
    hubs, authorities, ratio = hubs_and_authorities(inner, singular)
    metrics["singular_ratio"] = ratio
    scores |= {"hub.raw": hubs, "authority.raw": authorities, "katz.raw": katz(inner, singular)}
    return _prefixed(Effect.TOTAL, metrics), _prefixed(Effect.TOTAL, scores)


def _composed(weights: np.ndarray, structure: Structure) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Metrics [17] and scores [17, N] of triangles, paths and flow, a few replicates at a time."""
    parts = []
    at_once = max(1, AT_ONCE // len(structure.mask) ** 2)
    for first in range(0, len(weights), at_once):
        batch = weights[first : first + at_once]
        trees = shortest_paths(batch, structure.mask)
        through = np.stack([betweenness(*one, structure.mask) for one in zip(batch, trees.distances, strict=True)])
        out, into = harmonic(trees.distances, structure.mask)
        parts.append((path_metrics(trees, through, structure.mask), through, out, into))
    metrics = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    through, out, into = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))  # [17, N]
    corners = triangles(weights, structure.mask)  # [17, 3, N]
    metrics |= suite.mean_clustering(corners) | suite.of_width(weights, structure) | suite.of_flow(weights, structure)
    scores = betweenness_scores(through / max(structure.mask.sum(), 1), structure.mask, structure.classes)
    scores |= {"harmonic_out.raw": out, "harmonic_in.raw": into}
    return metrics, scores | {f"clustering_{place}.raw": corners[:, i] for i, place in enumerate(PLACES)}


def _write_backbones(
    files: Mapping[Backbone, Path],
    nodes: list[Node],
    weights: np.ndarray,
    kept: Mapping[Backbone, np.ndarray],
    scores: Mapping[str, np.ndarray],
) -> None:
    """Write the backbones of one graph [N, N]."""
    shown = {
        "out_strength": scores[f"{Effect.TOTAL}.out_strength.raw"][0],
        "in_strength": scores[f"{Effect.TOTAL}.in_strength.raw"][0],
        "betweenness": [scores[name][0] for name in scores if name.endswith("betweenness.raw")][-1],
        "community": scores["community"],
    }
    for name, path in files.items():
        with atomic(path) as temporary:
            write_graphml(temporary, nodes, weights, kept[name], shown)

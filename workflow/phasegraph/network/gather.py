"""The fan-in: all checkpoints of a study into tables with intervals."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.jackknife import delete_group
from phasegraph.network import distances
from phasegraph.network.graph import (
    REPLICATES,
    are_components,
    between_components,
    read_edges,
    read_mask,
    read_nodes,
)
from phasegraph.network.roles import (
    ROLES,
    SCORE_KINDS,
    eligible,
    excess_jaccard,
    holder_count,
    holders,
    kendall_tau_b,
    rank_nodes,
)
from phasegraph.series.used import used_files
from phasegraph.types import GROUPS, Effect, Node

IN_STEPS = ("gini_betweenness", "churn", "tau_", "jaccard_")
"""Beginnings of the names of metrics that move in steps; see `phasegraph.jackknife.delete_group`."""


@dataclass(frozen=True)
class Outputs:
    """Where the tables go."""

    metrics: Path
    """Parquet, one row per (step, effect, metric): estimate, corrected, low, high."""
    roles: Path
    """Parquet, one row per (step, role, score_kind, node): estimate, low, high, rank, holder; only components are
    ranked."""
    distances: Path
    """npy, float64 [S, S]: 1 - Spearman between the total effects of the sorted steps."""
    replicates: Path
    """npz: ``steps`` int64 [S], ``names`` [m] (``<effect>.<metric>``), ``values`` float64 [S, 17, m]."""


def gather(network: list[Path], edges: list[Path], manifest: Path, nodes: Path, mask: Path, outputs: Outputs) -> None:
    """Collect the checkpoints of a study.

    Parameters
    ----------
    network
        ``network/<step>.npz`` of every checkpoint, in any order.
    edges
        ``edges/<step>.npy`` of the same checkpoints, the total effect.
    manifest
        ``series.tsv``; files of checkpoints that it leaves out are not read.
    nodes, mask
        ``nodes.tsv`` and ``mask.npy``.
    outputs
        The four files to write.

    Raises
    ------
    PhasegraphError
        If a step has no file or two, or a file is not what it should be.

    Notes
    -----
    Churn, excess churn and the stability of rankings (``tau_*``: Kendall's tau-b; ``jaccard_*``: chance-corrected
    Jaccard index of the holders) of a checkpoint refer to the one before it; they are null at the first.
    ``noise_floor`` has no interval: it is a yardstick of noise itself. ``excess_churn`` needs no further correction;
    its interval has the width of churn's, which covered 93-100 % for a nominal 90 % on simulated edges. Distances and
    churn are those of the edges between components, rankings those of components.
    """
    network, edges = used_files(network, manifest), used_files(edges, manifest)
    steps = [int(path.stem) for path in edges]
    listed = read_nodes(nodes)
    possible, components = read_mask(mask, len(listed)), are_components(listed)
    metric_names, metrics, score_names, scores = _read_networks(network, len(listed))
    churn, floors, excess, matrix = _walk(edges, possible, components)
    role_scores = _role_scores(score_names, scores, possible, components)
    names = [*metric_names, f"{Effect.TOTAL}.churn"]
    values = np.concatenate([metrics, churn[..., None]], axis=2)  # [S, 17, m]
    for name, series in _stabilities(role_scores, components).items():
        names.append(name)
        values = np.concatenate([values, series[..., None]], axis=2)

    _write_table(_metric_table(steps, names, values, floors, excess), outputs.metrics)
    _write_table(_role_table(steps, listed, role_scores), outputs.roles)
    with atomic(outputs.distances) as temporary:
        np.save(temporary, matrix)
    with atomic(outputs.replicates) as temporary:
        np.savez(temporary, steps=np.array(steps, dtype=np.int64), names=np.array(names), values=values)


def _read_networks(paths: list[Path], size: int) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """Names [m], metrics [S, 17, m], names [s], scores [S, 17, s, N] of the files of the first sub-command."""
    metrics, scores, names = [], [], None
    for path in paths:
        if not path.is_file():
            raise PhasegraphError(f"{path}: no such file; run the network stage for this checkpoint first")
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                here = file["metric_names"].tolist(), file["score_names"].tolist()
                metrics.append(file["metrics"])
                scores.append(file["scores"])
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise PhasegraphError(f"{path}: damaged; delete it and run the network stage again") from error
        names = names or here
        if here != names or scores[-1].shape != (REPLICATES, len(here[1]), size):
            raise PhasegraphError(
                f"{path}: other nodes, metrics or effects than {paths[0]}; delete both and run the network stage again"
            )
    return names[0], np.stack(metrics), names[1], np.stack(scores)


def _walk(
    paths: list[Path], mask: np.ndarray, components: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Churn [S, 17], noise floor [S], excess churn [S] (NaN at the first step) and distances [S, S] of the checkpoints.

    One checkpoint's edges are held at a time; of the large models all of them would not fit.
    """
    splits, inner = distances.half_splits(GROUPS), between_components(mask, components)
    churn = np.full((len(paths), REPLICATES), np.nan)
    floors, excess = np.full((2, len(paths)), np.nan)
    estimates = []
    ranks_before = halves_before = None
    for i, path in enumerate(paths):
        weights = read_edges(path, mask)[:, inner]  # [17, E]
        ranks, halves = distances.standard_ranks(weights), distances.half_ranks(weights, splits)
        floors[i] = distances.noise_floor(halves)
        if i:
            churn[i] = distances.rank_distance(ranks_before, ranks)
            excess[i] = distances.excess_churn(halves_before, halves)
        estimates.append(ranks[0])
        ranks_before, halves_before = ranks, halves
    return churn, floors, excess, distances.distance_matrix(np.stack(estimates))


def _role_scores(
    names: list[str], scores: np.ndarray, mask: np.ndarray, components: np.ndarray
) -> dict[tuple[str, str, str], np.ndarray]:
    """(effect, role, score kind) -> scores [S, 17, N], NaN for nodes that cannot play the role.

    Paths use the direct effect where it was computed.
    """
    found = {}
    for role, score in ROLES.items():
        for kind in SCORE_KINDS:
            effect = Effect.DIRECT if f"{Effect.DIRECT}.{score}.{kind}" in names else Effect.TOTAL
            values = scores[:, :, names.index(f"{effect}.{score}.{kind}")]
            found[effect, role, kind] = np.where(eligible(role, mask, components), values, np.nan)
    return found


def _stabilities(role_scores: dict[tuple[str, str, str], np.ndarray], components: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> [S, 17]: agreement of each ranking of components with that of the step before."""
    series, k = {}, holder_count(components.sum())
    for (effect, role, kind), found in role_scores.items():
        scores = found[:, :, components]
        tau, jaccard = np.full((2, *scores.shape[:2]), np.nan)
        for i in range(1, len(scores)):
            tau[i] = kendall_tau_b(scores[i - 1], scores[i])
            jaccard[i] = excess_jaccard(scores[i - 1], scores[i], k)
        series |= {f"{effect}.tau_{role}_{kind}": tau, f"{effect}.jaccard_{role}_{kind}": jaccard}
    return series


def _metric_table(
    steps: list[int], names: list[str], values: np.ndarray, floors: np.ndarray, excess: np.ndarray
) -> pl.DataFrame:
    smooth = np.array([not name.split(".")[1].startswith(IN_STEPS) for name in names])
    intervals = delete_group(np.moveaxis(values, 1, 0), smooth)  # each [S, m]
    churn = names.index(f"{Effect.TOTAL}.churn")
    margin = (intervals.high - intervals.low)[:, churn] / 2
    nothing = np.full_like(floors, np.nan)
    extra = {
        f"{Effect.TOTAL}.noise_floor": (floors, nothing, nothing, nothing),
        f"{Effect.TOTAL}.excess_churn": (excess, excess, excess - margin, excess + margin),
    }
    names = [*names, *extra]
    columns = {}
    for i, column in enumerate(("estimate", "corrected", "low", "high")):
        table = np.column_stack([getattr(intervals, column), *(values[i] for values in extra.values())])  # [S, m + 2]
        columns[column] = table.ravel()
    effects, metrics = zip(*(name.split(".") for name in names), strict=True)
    return pl.DataFrame(
        {
            "step": np.repeat(steps, len(names)),
            "effect": list(effects) * len(steps),
            "metric": list(metrics) * len(steps),
            **columns,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _role_table(
    steps: list[int], nodes: list[Node], role_scores: dict[tuple[str, str, str], np.ndarray]
) -> pl.DataFrame:
    size, components = len(nodes), are_components(nodes)
    frames = []
    for (effect, role, kind), scores in role_scores.items():
        interval = delete_group(np.moveaxis(scores, 1, 0), smooth=False)  # each [S, N]
        ranked = np.where(components, interval.estimate, np.nan)
        frames.append(
            pl.DataFrame(
                {
                    "step": np.repeat(steps, size),
                    "node": [node.name for node in nodes] * len(steps),
                    "layer": np.tile([node.layer for node in nodes], len(steps)),
                    "kind": [str(node.kind) for node in nodes] * len(steps),
                    "role": [role] * size * len(steps),
                    "effect": [str(effect)] * size * len(steps),
                    "score_kind": [kind] * size * len(steps),
                    "estimate": interval.estimate.ravel(),
                    "low": interval.low.ravel(),
                    "high": interval.high.ravel(),
                    "rank": rank_nodes(ranked).ravel(),
                    "holder": holders(ranked, holder_count(components.sum())).ravel(),
                }
            )
        )
    table = pl.concat(frames).with_columns(pl.col(pl.Float64).fill_nan(None))
    return table.with_columns(pl.col("rank").cast(pl.Int32)).sort("step", maintain_order=True)


def _write_table(table: pl.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        table.write_parquet(temporary)

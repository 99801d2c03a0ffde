"""The tables of the fan-in: numbers of all checkpoints with their intervals, one row each."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.jackknife import delete_group
from phasegraph.network.graph import are_components
from phasegraph.network.roles import holder_count, holders, rank_nodes
from phasegraph.types import Effect, Node

IN_STEPS = (
    "churn",
    "churn_wasserstein",
    "communities",
    "gini_betweenness",
    "jaccard_",
    "layer_agreement",
    "modularity",
    "rbo_",
    "tau_",
    "width",
)
"""Names of metrics that move in steps, those with a "_" at the end being beginnings of names; see
`phasegraph.jackknife.delete_group`. Chosen by coverage (benchmarks/intervals.py)."""


def moves_in_steps(metric: str) -> bool:
    """Say whether a metric's bias is not to be corrected."""
    return metric in IN_STEPS or metric.startswith(tuple(name for name in IN_STEPS if name.endswith("_")))


def metric_table(
    steps: list[int], names: list[str], values: np.ndarray, floors: dict[str, np.ndarray], excess: dict[str, np.ndarray]
) -> pl.DataFrame:
    """Make the table of ``metrics.parquet``.

    Parameters
    ----------
    steps
        The S checkpoints.
    names, values
        ``<effect>.<metric>`` [m] and float64 [S, 17, m].
    floors, excess
        Ending of churn's name ("", "_jensen_shannon", ...) -> noise floor and excess churn, [S].

    Returns
    -------
    polars.DataFrame
        step, effect, metric, estimate, corrected, low, high; null where undefined. A noise floor has no interval, and
        that of excess churn has the width of churn's.
    """
    smooth = np.array([not moves_in_steps(name.split(".")[1]) for name in names])
    intervals = delete_group(np.moveaxis(values, 1, 0), smooth)  # each [S, m]
    nothing = np.full(len(steps), np.nan)
    extra = {f"{Effect.TOTAL}.noise_floor{kind}": (floor, nothing, nothing, nothing) for kind, floor in floors.items()}
    for kind, churn in excess.items():
        place = names.index(f"{Effect.TOTAL}.churn{kind}")
        margin = (intervals.high - intervals.low)[:, place] / 2
        extra[f"{Effect.TOTAL}.excess_churn{kind}"] = (churn, churn, churn - margin, churn + margin)
    names = [*names, *extra]
    columns = {}
    for i, column in enumerate(("estimate", "corrected", "low", "high")):
        table = np.column_stack([getattr(intervals, column), *(found[i] for found in extra.values())])
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


def role_table(
    steps: list[int], nodes: list[Node], role_scores: dict[tuple[str, str, str], np.ndarray]
) -> pl.DataFrame:
    """Make the table of ``roles.parquet``.

    Parameters
    ----------
    steps
        The S checkpoints.
    nodes
        The N nodes.
    role_scores
        Effect, role and kind of score -> scores [S, 17, N], NaN for nodes that cannot play the role.

    Returns
    -------
    polars.DataFrame
        step, node, layer, kind, role, effect, score_kind, estimate, low, high, rank, holder and ``holder_share``, the
        share of the leave-one-group-out replicates in which the node is a holder; null where undefined. Only
        components are ranked.
    """
    size, components = len(nodes), are_components(nodes)
    k = holder_count(components.sum())
    frames = []
    for (effect, role, kind), scores in role_scores.items():
        interval = delete_group(np.moveaxis(scores, 1, 0), smooth=False)  # each [S, N]
        ranked = np.where(components, scores, np.nan)
        rank = rank_nodes(ranked[:, 0])
        held = holders(ranked, k)  # [S, 17, N]
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
                    "rank": rank.ravel(),
                    "holder": held[:, 0].ravel(),
                    "holder_share": np.where(np.isnan(rank), np.nan, held[:, 1:].mean(1)).ravel(),
                }
            )
        )
    table = pl.concat(frames).with_columns(pl.col(pl.Float64).fill_nan(None))
    return table.with_columns(pl.col("rank").cast(pl.Int32)).sort("step", maintain_order=True)


def read_network(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some arrays of a ``network/<step>.npz`` (see `phasegraph.network.checkpoint.checkpoint`).

    Raises
    ------
    PhasegraphError
        If it is missing, damaged or without one of them.
    """
    if not path.is_file():
        raise PhasegraphError(f"{path}: no such file; run the network stage for this checkpoint first")
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise PhasegraphError(f"{path}: damaged; delete it and run the network stage again") from error


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    with atomic(path) as temporary:
        table.write_parquet(temporary)

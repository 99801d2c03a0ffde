"""What else is known of all graphs, in tables: null models, communities, further centralities, widest paths."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import false_discovery_control

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.network.communities import follow
from phasegraph.network.graph import are_components, read_nodes
from phasegraph.network.nulls import Comparison
from phasegraph.network.roles import ROLES
from phasegraph.network.tables import read_network, write_table
from phasegraph.series.used import used_files
from phasegraph.types import Effect, Node

Found = dict[str, np.ndarray]
"""The arrays `NEEDED` of one ``network/<step>.npz``."""
NEEDED = (
    *("metric_names", "metrics", "score_names", "scores"),
    *("null_names", "null_columns", "nulls", "communities", "widest_path"),
)


@dataclass(frozen=True)
class Outputs:
    """Where the tables go."""

    nulls: Path
    """Parquet, one row per (step, effect, metric, null): estimate, those fields of
    `phasegraph.network.nulls.Comparison`, and q."""
    communities: Path
    """Parquet, one row per (step, component): community, of the total effect."""
    centralities: Path
    """Parquet, one row per (step, effect, score, node): estimate, low, high."""
    widest_paths: Path
    """Parquet, one row per step: effect, width, nodes (the names, first to last; empty if there is no path)."""


def gather_details(network: list[Path], manifest: Path, nodes: Path, outputs: Outputs) -> None:
    """Collect the checkpoints of a study.

    Parameters
    ----------
    network
        ``network/<step>.npz`` of every checkpoint, in any order.
    manifest
        ``series.tsv``; files of checkpoints that it leaves out are not read.
    nodes
        ``nodes.tsv``.
    outputs
        The files to write.

    Raises
    ------
    PhasegraphError
        If a file is not what it should be.

    Notes
    -----
    ``q`` is the p of a checkpoint adjusted for all checkpoints at which the same metric was compared with the same null
    model (Benjamini & Hochberg, J. R. Stat. Soc. B 57, 1995; neighbours in a run depend on one another positively,
    which it allows for): of those with q <= .05 one in twenty is expected to be false. Communities keep their number
    from checkpoint to checkpoint as long as they share the most nodes.
    """
    files = used_files(network, manifest)
    steps = [int(path.stem) for path in files]
    listed = read_nodes(nodes)
    found = [_read(path, len(listed)) for path in files]
    write_table(_null_table(steps, found), outputs.nulls)
    write_table(_community_table(steps, found, listed), outputs.communities)
    write_table(_centrality_table(steps, found, listed), outputs.centralities)
    write_table(_path_table(steps, found, listed), outputs.widest_paths)


def _read(path: Path, size: int) -> Found:
    """Read what is needed of one file of the first sub-command."""
    found = read_network(path, NEEDED)
    fits = len(found["communities"]) == size and len(found["nulls"]) == len(found["null_names"])
    if not fits or found["null_columns"].tolist() != list(Comparison._fields):
        raise PhasegraphError(f"{path}: does not fit nodes.tsv; delete it and run the network stage again")
    return found


def _null_table(steps: list[int], found: list[Found]) -> pl.DataFrame:
    rows = []
    for step, file in zip(steps, found, strict=True):
        estimates = dict(zip(file["metric_names"].tolist(), file["metrics"][0].tolist(), strict=True))
        for name, values in zip(file["null_names"].tolist(), file["nulls"].tolist(), strict=True):
            effect, metric, null = name.split(".")
            rows.append((step, effect, metric, null, estimates[f"{effect}.{metric}"], *values))
    schema = {"step": pl.Int64, "effect": pl.String, "metric": pl.String, "null": pl.String, "estimate": pl.Float64}
    schema |= dict.fromkeys(Comparison._fields, pl.Float64)
    table = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("draws").cast(pl.Int64))
    table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
    adjusted = pl.col("p").map_batches(_adjusted, return_dtype=pl.Float64).over("effect", "metric", "null")
    return table.with_columns(adjusted.alias("q"))


def _adjusted(p: pl.Series) -> pl.Series:
    """Benjamini-Hochberg adjusted probabilities; null where there is none."""
    values = p.to_numpy().astype(float)
    known = np.isfinite(values)
    if known.any():
        values[known] = false_discovery_control(values[known])
    return pl.Series(p.name, values).fill_nan(None)


def _community_table(steps: list[int], found: list[Found], nodes: list[Node]) -> pl.DataFrame:
    components = are_components(nodes)
    labels = follow(np.array([file["communities"][components] for file in found]))  # [S, n]
    names = [node.name for node in nodes if components[node.index]]
    return pl.DataFrame(
        {"step": np.repeat(steps, len(names)), "node": names * len(steps), "community": labels.astype(np.int64).ravel()}
    )


def _centrality_table(steps: list[int], found: list[Found], nodes: list[Node]) -> pl.DataFrame:
    names = found[0]["score_names"].tolist()
    wanted = [name for name in names if name.split(".")[1] not in ROLES.values()]
    places = [names.index(name) for name in wanted]
    values = np.stack([file["scores"][:, places] for file in found], axis=1)  # [17, S, c, N]
    interval = delete_group(values, smooth=False)
    effects, scores, _ = zip(*(name.split(".") for name in wanted), strict=True)
    each = len(wanted) * len(nodes)
    return pl.DataFrame(
        {
            "step": np.repeat(steps, each),
            "effect": np.tile(np.repeat(effects, len(nodes)), len(steps)),
            "score": np.tile(np.repeat(scores, len(nodes)), len(steps)),
            "node": [node.name for node in nodes] * (len(wanted) * len(steps)),
            "estimate": interval.estimate.ravel(),
            "low": interval.low.ravel(),
            "high": interval.high.ravel(),
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _path_table(steps: list[int], found: list[Found], nodes: list[Node]) -> pl.DataFrame:
    names = found[0]["metric_names"].tolist()
    effect = Effect.DIRECT if f"{Effect.DIRECT}.width" in names else Effect.TOTAL
    place = names.index(f"{effect}.width")
    return pl.DataFrame(
        {
            "step": steps,
            "effect": [str(effect)] * len(steps),
            "width": [float(file["metrics"][0, place]) for file in found],
            "nodes": [[nodes[node].name for node in file["widest_path"].tolist()] for file in found],
        },
        schema_overrides={"nodes": pl.List(pl.String)},
    ).with_columns(pl.col(pl.Float64).fill_nan(None))

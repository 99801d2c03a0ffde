"""A study's results as the report reads them: each file when it is first asked for, and checked."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from phasegraph.errors import PhasegraphError
from phasegraph.network.distances import KINDS
from phasegraph.network.graph import are_components, between_components, read_edges, read_mask, read_nodes
from phasegraph.network.stability import SCHEMA
from phasegraph.series.manifest import read_manifest
from phasegraph.types import Effect, Node


@dataclass(frozen=True)
class StudyData:
    """The results of one study.

    Raises
    ------
    PhasegraphError
        By every property and method, if its file is missing, damaged or does not fit the others.
    """

    folder: Path
    """``results/<study>``; its name is the study's."""
    manifest_path: Path
    """``series.tsv`` of the study's series."""
    seeds_path: Path | None = None
    """``results/sets/<set>/seeds.json``, if the study is a member of a set."""

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.folder.resolve().name

    @cached_property
    def nodes(self) -> list[Node]:
        """Components and, if they were measured, embedding and logits, in the order of rows and columns."""
        return read_nodes(self.folder / "nodes.tsv")

    @cached_property
    def components(self) -> np.ndarray:
        """Which nodes are heads or MLPs, bool [N]."""
        return are_components(self.nodes)

    @property
    def ends(self) -> list[Node]:
        """The embedding and the logits, those of them that are nodes."""
        return [node for node in self.nodes if not self.components[node.index]]

    @cached_property
    def mask(self) -> np.ndarray:
        """Possible edges, bool [N, N]."""
        return read_mask(self.folder / "mask.npy", len(self.nodes))

    @cached_property
    def inner_mask(self) -> np.ndarray:
        """Possible edges between components, bool [N, N]: those that metrics and distances are about."""
        return between_components(self.mask, self.components)

    @cached_property
    def steps(self) -> np.ndarray:
        """Training steps of all checkpoints, ascending, int64 [S]."""
        return self.metrics["step"].unique().sort().to_numpy()

    @cached_property
    def metrics(self) -> pl.DataFrame:
        """Table of graph metrics: step, effect, metric, estimate, corrected, low, high."""
        return self._table("metrics", ("step", "effect", "metric", "estimate", "corrected", "low", "high"))

    @cached_property
    def roles(self) -> pl.DataFrame:
        """Table of node scores, see `phasegraph.network.tables.role_table`."""
        columns = ("step", "node", "role", "effect", "score_kind", "estimate", "low", "high", "rank", "holder_share")
        return self._table("roles", columns)

    @cached_property
    def stability(self) -> pl.DataFrame:
        """Table of how long rankings last, see `phasegraph.network.stability.stability_table`."""
        return self._table("stability", tuple(SCHEMA))

    @cached_property
    def widest_paths(self) -> dict[int, dict]:
        """Step -> row of the table of widest paths: width, and nodes, the names on the path."""
        rows = self._table("widest_paths", ("step", "width", "nodes")).to_dicts()
        if [row["step"] for row in rows] != self.steps.tolist():
            path = self.folder / "widest_paths.parquet"
            raise PhasegraphError(f"{path}: other steps than metrics.parquet; run the network stage again")
        return {row["step"]: row for row in rows}

    @cached_property
    def families(self) -> pl.DataFrame:
        """Table of a comparison with other prompts, see `phasegraph.network.families.compare_families`."""
        return self._table("families", ("step", "scale", "quantity", "estimate", "low", "high"))

    @cached_property
    def nulls(self) -> pl.DataFrame:
        """Table of null graphs, see `phasegraph.network.details.Outputs`; without rows if none were drawn."""
        columns = ("step", "effect", "metric", "null", "estimate", "mean", "low", "high", "z", "p", "draws", "q")
        return self._table("nulls", columns)

    @cached_property
    def communities(self) -> np.ndarray:
        """Community of each component at `steps`, int64 [S, C], components in order of index."""
        table = self._table("communities", ("step", "node", "community"))
        names = [node.name for node in self.nodes if self.components[node.index]]
        expected = {"step": np.repeat(self.steps, len(names)).tolist(), "node": names * len(self.steps)}
        if table.select("step", "node").to_dict(as_series=False) != expected:
            path = self.folder / "communities.parquet"
            raise PhasegraphError(
                f"{path}: other components or steps than nodes.tsv and metrics.parquet; run the network stage"
            )
        return table["community"].to_numpy().reshape(len(self.steps), len(names))

    @cached_property
    def tails(self) -> pl.DataFrame:
        """Table of the fits of the weights' tail, see `phasegraph.network.tails.fit_tails`."""
        return self._table("tails", ("step", "n", "n_tail", "alpha", "standard_error", "verdict"))

    @cached_property
    def behaviour(self) -> pl.DataFrame:
        """Table of behaviour: step, quantity, node (null for the whole model), estimate, low, high."""
        return self._table("behaviour", ("step", "quantity", "node", "estimate", "low", "high"))

    def distance(self, kind: str) -> np.ndarray:
        """Distance of one of `phasegraph.network.distances.KINDS` between all checkpoints, float64 [S, S]."""
        return self._distances[KINDS.index(kind)]

    def excess(self, kind: str) -> np.ndarray:
        """Distance of a kind beyond the noise of the prompts, float64 [S, S]; can be negative."""
        return self._excess[KINDS.index(kind)]

    @cached_property
    def _distances(self) -> np.ndarray:
        return self._matrices("distances")

    @cached_property
    def _excess(self) -> np.ndarray:
        return self._matrices("excess")

    @cached_property
    def phases(self) -> dict:
        """Contents of ``phases.json``."""
        return _json(self.folder / "phases.json")

    @cached_property
    def seeds(self) -> dict | None:
        """Contents of ``seeds.json`` of the set that the study is a member of, None if it is of none."""
        return None if self.seeds_path is None else _json(self.seeds_path)

    @cached_property
    def series(self) -> dict[str, np.ndarray]:
        """Columns of ``series.tsv`` at all steps of the series, those included that are left out of the analysis."""
        return read_manifest(self.manifest_path)

    @cached_property
    def manifest(self) -> dict[str, np.ndarray]:
        """Columns of ``series.tsv`` at `steps`, [S] each."""
        series = self.series
        places = {step: place for place, step in enumerate(series["step"].tolist())}
        if lost := [step for step in self.steps.tolist() if step not in places]:
            raise PhasegraphError(f"{self.manifest_path}: step {lost[0]} is missing; list the series again")
        order = [places[step] for step in self.steps.tolist()]
        return {name: values[order] for name, values in series.items()}

    @cached_property
    def displacement(self) -> np.ndarray:
        """How far the weights moved since the checkpoint before of `steps`, float64 [S], NaN at the first.

        If a study looks at every tenth checkpoint of its series, this is the length of the way through all ten.
        """
        return np.diff(self.manifest["arc_length"], prepend=np.nan)

    @cached_property
    def moved(self) -> np.ndarray:
        """`displacement` to divide by, float64 [S]: NaN where the weights did not move."""
        return np.where(self.displacement > 0, self.displacement, np.nan)

    @cached_property
    def path_effect(self) -> Effect:
        """Effect that composed edges are looked at on: the direct one where it was measured."""
        return Effect.DIRECT if Effect.DIRECT in self.metrics["effect"].unique().to_list() else Effect.TOTAL

    def edges(self, step: int, effect: Effect = Effect.TOTAL) -> np.ndarray:
        """Edges of one checkpoint, float64 [17, N, N]: the estimate and its leave-one-group-out replicates."""
        suffix = ".direct" if effect is Effect.DIRECT else ""
        return read_edges(self.folder / "edges" / f"{step}{suffix}.npy", self.mask)

    def metric(self, name: str, effect: Effect = Effect.TOTAL) -> dict[str, np.ndarray]:
        """One metric at `steps`: estimate, corrected, low and high, float64 [S] each, NaN where undefined."""
        rows = self.metrics.filter((pl.col("metric") == name) & (pl.col("effect") == effect)).sort("step")
        if rows["step"].to_list() != self.steps.tolist():
            path = self.folder / "metrics.parquet"
            raise PhasegraphError(
                f"{path}: {effect} {name} is not there once a checkpoint; run the network stage again"
            )
        return {column: floats(rows[column]) for column in ("estimate", "corrected", "low", "high")}

    def null(self, name: str, null: str) -> dict[str, np.ndarray]:
        """One metric of the graphs of one null model at `steps`: mean, low, high, z, p, q, draws, float64 [S] each.

        NaN where there is none; ``kept`` [S] is 1 where the null model keeps the value.
        """
        rows = self.nulls.filter((pl.col("metric") == name) & (pl.col("null") == null)).sort("step")
        columns = ("mean", "low", "high", "z", "p", "q", "draws")
        if rows.is_empty():
            nothing = np.full(len(self.steps), np.nan)
            return dict.fromkeys(columns, nothing) | {"kept": np.zeros(len(self.steps))}
        if rows["step"].to_list() != self.steps.tolist():
            path = self.folder / "nulls.parquet"
            raise PhasegraphError(f"{path}: {name} is not there once a checkpoint; run the network stage again")
        kept = rows.select(pl.all_horizontal(pl.col("mean", "estimate").is_not_null(), pl.col("z").is_null()))
        return {column: floats(rows[column]) for column in columns} | {"kept": floats(kept.to_series())}

    def quantity(self, name: str) -> dict[str, np.ndarray]:
        """One behaviour of the whole model at `steps`: estimate, low and high, float64 [S] each."""
        rows = self.behaviour.filter((pl.col("quantity") == name) & pl.col("node").is_null()).sort("step")
        self._check_behaviour(name, rows["step"].to_list(), self.steps.tolist())
        return {column: floats(rows[column]) for column in ("estimate", "low", "high")}

    def node_scores(self, name: str) -> tuple[list[str], dict[str, np.ndarray]]:
        """One behaviour of the heads or of all nodes: names [n], and estimate, low and high at `steps`, [n, S] each."""
        rows = self.behaviour.filter((pl.col("quantity") == name) & pl.col("node").is_not_null())
        nodes = rows["node"].unique(maintain_order=True).to_list()
        rows = rows.sort(pl.col("node").replace_strict(nodes, range(len(nodes)), return_dtype=pl.Int64), "step")
        self._check_behaviour(name, rows["step"].to_list(), self.steps.tolist() * len(nodes))
        shape = (len(nodes), len(self.steps))
        return nodes, {column: floats(rows[column]).reshape(shape) for column in ("estimate", "low", "high")}

    def scores(self, role: str, kind: str, column: str = "estimate") -> np.ndarray:
        """One column of a role's scores, float64 [N, S], nodes in order of index; NaN where undefined."""
        rows = self.roles.filter((pl.col("role") == role) & (pl.col("score_kind") == kind))
        wide = rows.pivot(on="step", index="node", values=column, sort_columns=False)
        names = [node.name for node in self.nodes]
        if wide["node"].to_list() != names or wide.columns[1:] != [str(step) for step in self.steps.tolist()]:
            path = self.folder / "roles.parquet"
            raise PhasegraphError(
                f"{path}: other nodes or steps than nodes.tsv and metrics.parquet; run the network stage"
            )
        return np.column_stack([floats(wide[name]) for name in wide.columns[1:]])

    def _matrices(self, name: str) -> np.ndarray:
        """``<name>.npy``: a matrix of all checkpoints for each kind of distance, float64 [3, S, S]."""
        path = self.folder / f"{name}.npy"
        try:
            matrices = np.load(_existing(path), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise PhasegraphError(f"{path}: damaged; delete it and run the network stage again") from error
        if matrices.shape != (len(KINDS), len(self.steps), len(self.steps)):
            raise PhasegraphError(
                f"{path}: {list(matrices.shape)} for the {len(self.steps)} checkpoints of metrics.parquet; delete "
                "both and run the network stage again"
            )
        return matrices

    def _table(self, stem: str, columns: tuple[str, ...]) -> pl.DataFrame:
        path = _existing(self.folder / f"{stem}.parquet")
        try:
            return pl.read_parquet(path, columns=list(columns), memory_map=False)
        except pl.exceptions.PolarsError as error:
            raise PhasegraphError(
                f"{path}: damaged, or not this version's; delete it and run its stage again"
            ) from error

    def _check_behaviour(self, name: str, found: list[int], expected: list[int]) -> None:
        if not found or found != expected:
            path = self.folder / "behaviour.parquet"
            raise PhasegraphError(f"{path}: {name} is not there once a checkpoint; run the edges stage again")


def _json(path: Path) -> dict:
    try:
        return json.loads(_existing(path).read_text())
    except ValueError as error:
        raise PhasegraphError(f"{path}: damaged; delete it and run the phases stage again") from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise PhasegraphError(f"{path}: no such file; run the workflow until it is there")
    return path


def floats(values: pl.Series) -> np.ndarray:
    """Give a column as float64, NaN where it is null."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()

"""What the stages before hand over: a study's tables, checked and aligned by checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import polars as pl

from phasegraph.errors import PhasegraphError
from phasegraph.phases.rates import moved
from phasegraph.types import GROUPS, Effect

WEIGHT_METRICS = (
    "mean_weight",
    "gini",
    "gini_sqrt",
    "n_eff_entropy",
    "n_eff_simpson",
    "top1_share",
    "top10_share",
    "gini_out_strength",
    "gini_in_strength",
)
"""Metrics of weights and strengths whose change is tested beside that of the blocks; of the total effect."""

PATH_METRICS = ("efficiency", "gini_betweenness")
"""The same of paths; of the direct effect where it was computed: paths on total effects count every detour twice."""

CHURN = ("churn", "noise_floor", "excess_churn")
"""How far a checkpoint is from the one before; the last two are used for the labels."""

UNDEFINED = "gini_betweenness"
"""The one metric that a sound graph may not have: no shortest path has a node in between."""

LOSS, PREFIX = "loss_second", "prefix_matching"
"""Behaviour: loss on the repeated half; attention of each head to what followed a token's first occurrence."""


@dataclass(frozen=True)
class Files:
    """What the stage reads."""

    metrics: Path
    """``metrics.parquet``: step, effect, metric, estimate, ... The estimate is used, not the bias-corrected value: the
    bias hardly changes from checkpoint to checkpoint, while the correction adds noise to every difference."""
    replicates: Path
    """``replicates.npz``: the same without each group of prompts."""
    blocks: Path
    """``blocks.npz``: change by block from the checkpoint before, of the estimate and without each group of prompts."""
    behaviour: Path
    """``behaviour.parquet``: step, quantity, node, estimate, ..."""
    manifest: Path
    """``series.tsv``: step, arc_length, ..."""


@dataclass(frozen=True)
class Tables:
    """A study, one row per checkpoint whose weights differ from those of the one before."""

    steps: np.ndarray
    """int [N]."""
    arc_length: np.ndarray
    """[N], distance travelled in weight space."""
    levels: dict[str, np.ndarray]
    """Metric -> [N]."""
    churn: dict[str, np.ndarray]
    """Each of `CHURN` -> [N]; NaN for the first checkpoint."""
    blocks: dict[str, np.ndarray]
    """Block -> change from the checkpoint before, [17, N]: of the estimate, then without each group of prompts; NaN for
    the first checkpoint."""
    replicates: dict[str, np.ndarray]
    """``gini`` and ``churn`` without each group of prompts, [16, N]."""
    behaviour: dict[str, np.ndarray]
    """Loss of the repeated half and the largest prefix-matching score of any head -> [N]."""
    path_effect: Effect
    """The effect on which the path metrics were computed."""
    left_out: dict[int, str]
    """Step -> why it is not here."""
    undefined: dict[str, str]
    """Metric -> why it is not here."""


def read_tables(files: Files) -> Tables:
    """Read and align a study's tables.

    Raises
    ------
    PhasegraphError
        If a file, column, metric or checkpoint is missing, or a value is missing where there must be one.
    """
    metrics, behaviour, manifest = files.metrics, files.behaviour, files.manifest
    series = _read(manifest, ("step", "arc_length"))
    measured = _read(metrics, ("step", "effect", "metric", "estimate"))
    acts = _read(behaviour, ("step", "quantity", "estimate"))
    steps = measured["step"].unique().sort().to_numpy()
    arc = dict(zip(series["step"].to_list(), series["arc_length"].to_list(), strict=True))
    if unknown := [step for step in steps.tolist() if arc.get(step) is None]:
        raise PhasegraphError(f"{manifest}: no arc_length for step {unknown[0]}; audit the series again")
    arc_length = np.array([arc[step] for step in steps.tolist()], dtype=float)
    effects = measured.filter(pl.col("metric").is_in(PATH_METRICS))["effect"].unique().to_list()
    path_effect = Effect.DIRECT if Effect.DIRECT in effects else Effect.TOTAL
    wanted = dict.fromkeys((*WEIGHT_METRICS, *CHURN), Effect.TOTAL) | dict.fromkeys(PATH_METRICS, path_effect)
    columns = {
        name: _column(measured.filter(pl.col("effect") == effect), metrics, "metric", name, steps)
        for name, effect in wanted.items()
    }
    loss = _column(acts, behaviour, "quantity", LOSS, steps)
    per_head = acts.filter(pl.col("quantity") == PREFIX).group_by("step", "quantity").agg(pl.col("estimate").max())
    prefix = _column(per_head, behaviour, "quantity", PREFIX, steps)

    blocks, (gini, churn) = _all(files.blocks, steps), _named(files.replicates, steps, ("total.gini", "total.churn"))

    keep = moved(arc_length)
    # Checkpoints without metrics are those that the audit leaves out, or at which the study does not look.
    left_out = {int(steps[i]): f"same weights as step {steps[i - 1]}" for i in np.flatnonzero(~keep)}
    columns = {name: values[keep] for name, values in columns.items()}
    undefined = {}
    if missing := np.flatnonzero(np.isnan(columns[UNDEFINED])).tolist():
        undefined[UNDEFINED] = f"undefined at {len(missing)} checkpoints, first at step {steps[keep][missing[0]]}"
        del columns[UNDEFINED]
    return Tables(
        steps=steps[keep],
        arc_length=arc_length[keep],
        levels={name: columns[name] for name in (*WEIGHT_METRICS, *PATH_METRICS) if name in columns},
        churn={name: columns[name] for name in CHURN},
        blocks={name: values[:, keep] for name, values in blocks.items()},
        replicates={"gini": gini[1:, keep], "churn": churn[1:, keep]},
        behaviour={LOSS: loss[keep], PREFIX: prefix[keep]},
        path_effect=path_effect,
        left_out=dict(sorted(left_out.items())),
        undefined=undefined,
    )


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        if path.suffix == ".tsv":
            table = pl.read_csv(path, separator="\t", infer_schema_length=None)
        else:
            table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise PhasegraphError(f"{path} is missing or damaged; run the stage that writes it again") from error
    if absent := [name for name in columns if name not in table.columns]:
        raise PhasegraphError(f"{path} has no column {absent[0]}; run the stage that writes it again")
    return table.select(columns)


def _all(path: Path, steps: np.ndarray) -> dict[str, np.ndarray]:
    """Read all series [17, N] of an npz file of replicates, by name."""
    try:
        with np.load(path) as file:
            here, names, values = file["steps"], file["names"].tolist(), file["values"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise PhasegraphError(f"{path} is missing or damaged; run the stage that writes it again") from error
    if here.tolist() != steps.tolist() or values.shape != (len(steps), GROUPS + 1, len(names)):
        raise PhasegraphError(f"{path} is of other checkpoints than metrics.parquet; run the network stage again")
    return dict(zip(names, values.transpose(2, 1, 0), strict=True))


def _named(path: Path, steps: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
    there = _all(path, steps)
    if absent := [name for name in names if name not in there]:
        raise PhasegraphError(f"{path} has no {absent[0]}; run the stage that writes it again")
    return [there[name] for name in names]


def _column(table: pl.DataFrame, path: Path, key: str, name: str, steps: np.ndarray) -> np.ndarray:
    """Values [N] of one metric or quantity, NaN where they are null."""
    rows = table.filter(pl.col(key) == name)
    if rows.is_empty():
        raise PhasegraphError(f"{path} has no {key} {name}, which the change test needs; run the stage that writes it")
    here = rows["step"].to_list()
    if len(set(here)) < len(here):
        raise PhasegraphError(f"{path}: {key} {name} is there twice at a step; run the stage that writes it again")
    if absent := sorted(set(steps.tolist()) - set(here)):
        raise PhasegraphError(f"{path}: {key} {name} is missing at step {absent[0]}; run the stage for that checkpoint")
    found = dict(zip(here, rows["estimate"].cast(pl.Float64).to_list(), strict=True))
    return np.array([found[step] for step in steps.tolist()], dtype=float)

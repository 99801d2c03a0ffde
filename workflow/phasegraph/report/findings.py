"""What the tables and edges of a study say, as numbers with their intervals: roles, their stability, and noise."""

import zipfile

import numpy as np
import polars as pl

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import Jackknife, delete_group
from phasegraph.network.roles import eligible, kendall_tau_b
from phasegraph.network.scores import classes, strength_scores
from phasegraph.report.study import StudyData

STRENGTHS = {"spreader": "out_strength", "gatherer": "in_strength"}
KINDS = ("raw", "block")


def strongest(study: StudyData, role: str, kind: str, step: int, count: int) -> list[dict]:
    """Rows of ``roles.parquet`` (node, estimate, low, high, rank) of the first `count` at one checkpoint."""
    rows = study.roles.filter(
        (pl.col("role") == role) & (pl.col("score_kind") == kind) & (pl.col("step") == step) & (pl.col("rank") <= count)
    )
    return rows.sort("rank", maintain_order=True).head(count).to_dicts()


def ranking_agreement(study: StudyData, early: int, late: int) -> dict[tuple[str, str], Jackknife]:
    """Kendall's tau-b between the rankings at two checkpoints, by role and kind of score, from all replicates."""
    peers = classes(study.nodes)
    before, after = (  # [17, N] each
        strength_scores(study.edges(step), study.mask, peers, study.components) for step in (early, late)
    )
    agreement = {}
    for role, score in STRENGTHS.items():
        ranked = eligible(role, study.mask, study.components) & study.components
        for kind in KINDS:
            pair = [np.where(ranked, scores[f"{score}.{kind}"], np.nan) for scores in (before, after)]
            agreement[role, kind] = delete_group(kendall_tau_b(*pair), smooth=False)
    return agreement


def mean_stability(study: StudyData) -> dict[tuple[str, str], Jackknife]:
    """Kendall's tau from checkpoint to checkpoint, averaged over the run.

    Returns
    -------
    dict
        (role, kind) -> interval, and ("difference", kind) -> that of spreaders minus that of gatherers, on the same
        prompts.
    """
    names, values = _replicates(study)
    means = {}
    for role in STRENGTHS:
        for kind in KINDS:
            series = values[
                1:, :, names.index(f"total.tau_{role}_{kind}")
            ]  # [S - 1, 17]; the first has no one before it
            means[role, kind] = series.mean(0) if len(series) else np.full(values.shape[1], np.nan)
    for kind in KINDS:
        means["difference", kind] = means["spreader", kind] - means["gatherer", kind]
    return {key: delete_group(mean, smooth=False) for key, mean in means.items()}


def moving_checkpoints(study: StudyData) -> tuple[int, int]:
    """At how many checkpoints the excess churn's interval is above 0, and at how many it is known."""
    low = study.metric("excess_churn")["low"]
    return int((low > 0).sum()), int(np.isfinite(low).sum())


def _replicates(study: StudyData) -> tuple[list[str], np.ndarray]:
    path = study.folder / "replicates.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["names"].tolist(), file["values"]
    except FileNotFoundError:
        raise PhasegraphError(f"{path}: no such file; run the workflow until it is there") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PhasegraphError(f"{path}: damaged; delete it and run the network stage again") from error

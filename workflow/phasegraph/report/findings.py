"""What the tables and edges of a study say, as numbers with their intervals: roles, and noise."""

import numpy as np
import polars as pl

from phasegraph.jackknife import Jackknife, delete_group
from phasegraph.network.roles import eligible, kendall_tau_b
from phasegraph.network.scores import classes, strength_scores
from phasegraph.report.study import StudyData

STRENGTHS = {"spreader": "out_strength", "gatherer": "in_strength"}
KINDS = ("raw", "block")


def strongest(study: StudyData, role: str, kind: str, step: int, count: int) -> list[dict]:
    """Rows of ``roles.parquet`` of the first `count` at one checkpoint, by rank."""
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


def moving_checkpoints(study: StudyData) -> tuple[int, int]:
    """At how many checkpoints the excess churn's interval is above 0, and at how many it is known."""
    low = study.metric("excess_churn")["low"]
    return int((low > 0).sum()), int(np.isfinite(low).sum())

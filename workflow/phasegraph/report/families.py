"""How much of the wiring belongs to the prompts, where a study is compared with one of other prompts."""

import json

import polars as pl

from phasegraph.report.study import StudyData
from phasegraph.report.tables import one_row
from phasegraph.report.words import MINUS, at_steps, listed, measured, plural

SCALES = {"w": "the edges' weights", "sqrt(w)": "their square roots"}
ALONE = (
    "The wiring may depend on the prompts. This study is not compared with one of other prompts (compare_with), so "
    "that nothing here tells what is the model's from what is its prompts'."
)
"""The limit of a study without a comparison."""
TWO = (
    "Two families of prompts were compared; nothing can be said of a third, and what both have in common by design "
    "counts as the model's."
)
"""The limit of a comparison."""


def family_texts(study: StudyData, other: str, differences: list[str]) -> list[str]:
    """Say how much of the variance of edges lies between two families of prompts.

    Parameters
    ----------
    study
        With ``families.parquet``.
    other
        Name of the study that it is compared with.
    differences
        Of `task_differences`.
    """
    table = study.families
    steps = table["step"].unique().sort().to_list()
    what = f" ({listed(differences)})" if differences else ""
    common = (
        "at every checkpoint"
        if len(steps) == len(study.steps)
        else f"at the {plural(len(steps), 'checkpoint')} of both"
    )
    first, last = steps[0], steps[-1]
    intro = (
        f"The same edges are measured under the prompts of this study and under those of the study {other}{what}, "
        f"{common}."
    )
    return [intro, _shares_text(table, first, last), _order_text(table, last)]


def task_differences(own: dict, other: dict) -> list[str]:
    """List the settings of a task that differ from those of another: ``tokens: "uniform" here, "structured" there``."""
    return [
        f"{key}: {json.dumps(own.get(key))} here, {json.dumps(other.get(key))} there"
        for key in sorted(own.keys() | other.keys())
        if own.get(key) != other.get(key)
    ]


def _shares_text(table: pl.DataFrame, first: int, last: int) -> str:
    found = {scale: one_row(table, step=last, scale=scale, quantity="between_families") for scale in SCALES}
    known = {scale: row for scale, row in found.items() if row and row["estimate"] is not None}
    if not known:
        return f"At {at_steps([last])} all weights are equal, so that there is no variance to share out."
    main = next(iter(known))
    text = (
        f"{_percent(known[main])} of the variance of {SCALES[main]} lies between the two families of prompts at the "
        f"last of them, step {last:,}"
    )
    if main != "sqrt(w)" and "sqrt(w)" in known:
        text += f" (of their square roots {_percent(known['sqrt(w)'])})"
    early = one_row(table, step=first, scale=main, quantity="between_families")
    if first != last and early and early["estimate"] is not None:
        text += f", and {_percent(early)} at step {first:,}"
    return (
        f"{text}; to that part the wiring measured here is a property of the prompts, and the rest is what both "
        "families show. Noise of the prompts is left out of it."
    )


def _order_text(table: pl.DataFrame, step: int) -> str:
    rows = {
        name: one_row(table, step=step, scale="rank", quantity=name)
        for name in ("spearman", "spearman_ceiling", "spearman_disattenuated")
    }
    if any(row is None or row["estimate"] is None for row in rows.values()):
        return ""
    between, ceiling, clean = (measured(row["estimate"], row["low"], row["high"]) for row in rows.values())
    return (
        f"The order of the edges agrees with a Spearman's ρ of {between} between the families; two sets of prompts of "
        f"one family would reach {ceiling}, and without the noise of the prompts the families agree to {clean}."
    )


def _percent(row: dict) -> str:
    """Write a share and its interval in per cent."""
    value, low, high = (None if row[key] is None else 100 * row[key] for key in ("estimate", "low", "high"))
    if low is None or high is None:
        return f"{value:.1f} %"
    return f"{value:.1f} [{low:.1f}, {high:.1f}] %".replace("-", MINUS)

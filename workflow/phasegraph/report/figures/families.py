"""How much of the wiring belongs to the model and how much to the prompts, where two families of them are compared."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phasegraph.report.marks import mark_phases, phase_handles
from phasegraph.report.study import StudyData, floats
from phasegraph.report.style import (
    GREY,
    LINES,
    PALE,
    band,
    head_panel,
    new_figure,
    say_undefined,
    step_axis,
    themed,
)

SCALES = {"w": "weights w", "sqrt(w)": "√w"}
PARTS = {
    "edge": ("both families", LINES[0]),
    "interaction": ("edges by family", LINES[1]),
    "family": ("shift of all", LINES[4]),
    "noise": ("noise", PALE),
}
"""Component of the variance -> what the legend calls it, and its colour; from below upwards."""
ORDERS = {
    "spearman": ("two families", LINES[1]),
    "spearman_disattenuated": ("without noise", LINES[3]),
    "spearman_ceiling": ("one family, twice", GREY),
}
"""Agreement of the order of the edges -> the same."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw the shares of variance on both scales, the share between families, and the agreement of orders."""
    steps = study.families["step"].unique().sort().to_numpy()
    figure = new_figure(5.6)
    grid = figure.subplots(2, 2, sharex=True)
    for axes, letter, (scale, name) in zip(grid[0], "ab", SCALES.items(), strict=True):
        _draw_shares(axes, steps, {part: _column(study, scale, part)["estimate"] for part in PARTS})
        head_panel(axes, letter, f"Variance of the {name}" if scale == "w" else f"Variance of {name}")
    grid[0, 0].set_ylabel("share of the variance")
    between, order = grid[1]
    for colour, (scale, name) in zip((LINES[1], LINES[3]), SCALES.items(), strict=True):
        band(between, steps, _column(study, scale, "between_families"), colour, name)
    between.set_ylabel("share of the variance")
    between.set_ylim(bottom=0)
    head_panel(between, "c", "Between the families, without noise", legend=True)
    for quantity, (name, colour) in ORDERS.items():
        band(order, steps, _column(study, "rank", quantity), colour, name)
    order.set_ylabel("Spearman's ρ")
    head_panel(order, "d", "Agreement of the order of the edges", legend=True)
    for axes in grid[1]:
        step_axis(axes, study.steps)
        mark_phases(axes, study.phases)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    handles += phase_handles(study.phases)
    labels += [handle.get_label() for handle in phase_handles(study.phases)]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, columnspacing=1.2)
    return figure


def _column(study: StudyData, scale: str, quantity: str) -> dict[str, np.ndarray]:
    """One quantity at all compared steps: estimate, low and high, [T] each."""
    wanted = (pl.col("scale") == scale) & (pl.col("quantity") == quantity)
    rows = study.families.filter(wanted).sort("step")
    return {column: floats(rows[column]) for column in ("estimate", "low", "high")}


def _draw_shares(axes: Axes, steps: np.ndarray, shares: dict[str, np.ndarray]) -> None:
    """Stack the shares [T] of each part over the steps; columns as wide as half the way to the next step."""
    if not np.isfinite(shares["edge"]).any():
        say_undefined(axes, "all weights are equal")
    bottom = np.zeros(len(steps))
    for part, (name, colour) in PARTS.items():
        top = bottom + shares[part]
        axes.fill_between(steps, bottom, top, color=colour, linewidth=0, label=name, step=None)
        bottom = top
    axes.set_ylim(0, 1)

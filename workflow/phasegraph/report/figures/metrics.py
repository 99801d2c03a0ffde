"""Small multiples: how the graph as a whole changes over training."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from phasegraph.report.marks import mark_phases, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import (
    GATHERER,
    GREY,
    LINES,
    NULL,
    SPREADER,
    band,
    head_panel,
    log_scale,
    new_figure,
    null_band,
    say_undefined,
    step_axis,
    themed,
)
from phasegraph.types import Effect

FIRST, SECOND = LINES[0], LINES[2]


@dataclass(frozen=True)
class Panel:
    """One panel of the small multiples."""

    title: str
    unit: str
    """Label of the y-axis."""
    lines: tuple[tuple[str, str, str], ...]
    """Metric, label and colour of each line."""
    paths: bool = False
    """Whether it composes edges, and so uses the direct effect where that was measured."""
    per_displacement: bool = False
    """Whether values are divided by how far the weights have moved since the checkpoint before."""
    log: bool = False
    top: float | None = None
    """Largest possible value, where intervals reach beyond it."""
    null: str = ""
    """Null model whose graphs are shown behind the lines."""


PANELS = (
    Panel("Mean weight of an edge", "weight", (("mean_weight", "", FIRST),)),
    Panel("Concentration of edges", "Gini", (("gini", "weights w", FIRST), ("gini_sqrt", "√w", SECOND))),
    Panel(
        "Effective number of edges",
        "edges",
        (("n_eff_entropy", "entropy", FIRST), ("n_eff_simpson", "Simpson", SECOND)),
    ),
    Panel(
        "Concentration of strength",
        "Gini",
        (("gini_out_strength", "out", SPREADER), ("gini_in_strength", "in", GATHERER)),
        null="block",
    ),
    Panel("Assortativity of strengths", "correlation", (("assortativity", "", FIRST),), null="ratio"),
    Panel("Modularity", "Q", (("modularity", "", FIRST),), null="ratio"),
    Panel("Clustering", "intensity", (("clustering_middleman", "", FIRST),), paths=True, null="ratio"),
    Panel("Global efficiency", "weight", (("efficiency", "", FIRST),), paths=True, null="ratio"),
    Panel("Concentration of betweenness", "Gini", (("gini_betweenness", "", FIRST),), paths=True, top=1, null="ratio"),
    Panel(
        "Change per checkpoint",
        "1 − Spearman's ρ",
        (("churn", "churn", FIRST), ("noise_floor", "noise floor", GREY)),
        log=True,
    ),
    Panel("Change beyond noise", "excess churn\nper unit moved", (("excess_churn", "", FIRST),), per_displacement=True),
)
"""All panels but the last, which shows how far the weights move."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw twelve panels over training steps.

    Lines are the estimates of ``metrics.parquet``, coloured bands their 90 % intervals and grey ones, the lowest, 5 to
    95 % of the null graphs of ``nulls.parquet``.
    """
    figure = new_figure(8.6)
    grid = figure.subplots(4, 3, sharex=True).ravel()
    for axes, panel in zip(grid, PANELS, strict=False):
        _draw_panel(axes, panel, study)
    grid[-1].plot(study.steps, study.displacement, color=FIRST)
    grid[-1].set_ylabel("displacement")
    grid[-1].set_ylim(bottom=0)
    heads = [(panel.title, f"{_effect(panel, study)} effect") for panel in PANELS]
    heads.append(("Distance the weights move", "since the checkpoint before"))
    for axes, letter, (title, subtitle) in zip(grid, "abcdefghijkl", heads, strict=True):
        head_panel(axes, letter, title, subtitle, legend=len(axes.get_legend_handles_labels()[0]) > 1)
        mark_phases(axes, study.phases)
        step_axis(axes, study.steps, label=letter in "jkl")
    what = [Line2D([], [], color=FIRST, label="estimate"), Patch(facecolor=FIRST, alpha=0.22, label="90 % interval")]
    what.append(Patch(facecolor=NULL, label="5–95 % of null graphs"))
    figure.legend(handles=[*what, *phase_handles(study.phases)], loc="outside lower center", ncols=3)
    return figure


def _draw_panel(axes: Axes, panel: Panel, study: StudyData) -> None:
    drawn = []
    for metric, label, colour in panel.lines:
        values = study.metric(metric, _effect(panel, study))
        if panel.per_displacement:
            values = {column: series / study.moved for column, series in values.items()}
        band(axes, study.steps, values, colour, label)
        if panel.null:
            null_band(axes, study.steps, study.null(metric, panel.null))
        drawn.append(values["estimate"])
    if np.isnan(drawn).all():
        say_undefined(axes, "see the caption")
    axes.set_ylabel(panel.unit)
    if panel.log:
        log_scale(axes, *drawn)
    if panel.top is not None:
        axes.set_ylim(top=panel.top)
    if panel.per_displacement:
        axes.axhline(0, color=GREY, linewidth=0.5, zorder=0.8)


def _effect(panel: Panel, study: StudyData) -> Effect:
    return study.path_effect if panel.paths else Effect.TOTAL

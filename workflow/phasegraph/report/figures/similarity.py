"""The checkpoint by checkpoint similarity matrix: blocks are stretches in which the wiring stays alike."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phasegraph.report.evidence import boundaries
from phasegraph.report.marks import dashes, mark_above, mark_phases, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, INK, LINES, WIDTH, band, cell_edges, head_panel, step_axis, themed

LOWEST = 0.02
"""Quantile of the similarities at which the colours begin: the few lowest would take most of the scale."""

HEIGHT = 8.6
"""Inches. The axes are placed by hand, because the two panels shall share their x-axis and the upper one be square."""
LEFT, SIDE, BELOW, STRIP = 0.75, 5.2, 0.95, 1.0


@themed
def draw(study: StudyData) -> Figure:
    """Draw Spearman's rho between the edges of all pairs of checkpoints, and of each with the one before and the last.

    The heatmap's array is 1 - ``distances.npy``, [S, S].
    """
    figure = Figure(figsize=(WIDTH, HEIGHT))
    bottom = BELOW + STRIP + 1.0
    matrix = _add_axes(figure, LEFT, bottom, SIDE, SIDE)
    strip = _add_axes(figure, LEFT, BELOW, SIDE, STRIP)
    similarity, edges = 1 - study.distances, cell_edges(study.steps)
    lowest = float(np.quantile(similarity, LOWEST))
    mesh = matrix.pcolormesh(edges, edges, similarity, vmin=lowest, vmax=1, cmap="magma", rasterized=True)
    step_axis(matrix, study.steps, ticks=8)
    matrix.set(yscale=matrix.get_xscale(), ylabel="training step")
    matrix.yaxis.set_major_locator(matrix.xaxis.get_major_locator())
    matrix.yaxis.set_major_formatter(matrix.xaxis.get_major_formatter())
    matrix.set(xlim=edges[[0, -1]], ylim=edges[[-1, 0]])
    matrix.spines[:].set_visible(False)
    mark_above(matrix, study.phases, lines=False)
    _box_regimes(matrix, study)
    head_panel(matrix, "a", "Similarity of all pairs of checkpoints", lift=9)
    _draw_strip(strip, study, similarity)
    strip.set_xlim(edges[0], edges[-1])
    bar = figure.colorbar(mesh, cax=_add_axes(figure, LEFT + SIDE + 0.2, bottom, 0.16, SIDE), extend="min")
    bar.set_label("similarity of the wiring (Spearman's ρ over edges)")
    bar.outline.set_visible(False)
    if handles := phase_handles(study.phases):
        figure.legend(handles=handles, loc="lower center", ncols=4, columnspacing=1.2, bbox_to_anchor=(0.5, 0.01))
    return figure


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    return figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))


def _box_regimes(axes: Axes, study: StudyData) -> None:
    """Draw each boundary as the sides at which the boxes of its two regimes meet."""
    found = boundaries(study.phases)
    corners = [study.steps[0], *(boundary.step for boundary in found), study.steps[-1]]
    for before, boundary, after in zip(corners, found, corners[2:], strict=False):
        for along, across in (((before, after), [boundary.step] * 2), ([boundary.step] * 2, (before, after))):
            axes.plot(along, across, color="white", linewidth=2.2, alpha=0.8)
            axes.plot(along, across, color=INK, linewidth=1, linestyle=dashes(boundary.abrupt))


def _draw_strip(axes: Axes, study: StudyData, similarity: np.ndarray) -> None:
    churn = study.metric("churn")
    before = {column: 1 - values for column, values in churn.items()}
    band(axes, study.steps, before, LINES[0], "checkpoint before")
    axes.plot(study.steps, similarity[-1], color=LINES[1], label="last checkpoint")
    halves = 1 - study.metric("noise_floor")["estimate"]
    axes.plot(study.steps, halves, color=GREY, linewidth=0.8, label="itself, between halves of the prompts")
    axes.set_ylabel("Spearman's ρ")
    axes.set_ylim(top=1)
    head_panel(axes, "b", "Similarity with …", legend=True)
    step_axis(axes, study.steps, ticks=8)
    mark_phases(axes, study.phases)

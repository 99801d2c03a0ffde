"""Heatmaps of how far every metric lies from its null graphs, over training."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasegraph.network.nulls import NULLS
from phasegraph.report.beyond import LEVEL, NAMES
from phasegraph.report.marks import mark_above, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, INK, cell_edges, colour_map, head_panel, new_figure, step_axis, themed

TITLES = {
    "block": ("Layer-block shuffle", "keeps what layers explain"),
    "ratio": ("Ratio shuffle", "keeps all strengths, too"),
}
LARGEST = 5
"""Size of z at which the colours end."""
HEIGHTS = np.array([-0.42, -0.1, 0.1, 0.42])
"""Edges of the three parts of a row; only the middle one is drawn where a value is not beyond the null model."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw z of every metric (rows) over training steps, one panel for each null model.

    The middle rows (1, 5, 9, ...) of the heatmaps' arrays are the z of ``nulls.parquet``.
    """
    metrics = list(NAMES)
    figure = new_figure(1.3 + 0.2 * len(metrics))
    grid = figure.subplots(1, len(NULLS), sharey=True)
    for axes, null, letter in zip(grid, NULLS, "ab", strict=True):
        found = {name: study.null(name, null) for name in metrics}
        mesh = _draw_panel(axes, study, found)
        for row, values in enumerate(found.values()):
            _say_why_blank(axes, row, values["z"], values["kept"], study.steps)
        head_panel(axes, letter, *TITLES[null], lift=5)
        step_axis(axes, study.steps)
        axes.set_xlim(*cell_edges(study.steps)[[0, -1]])
        mark_above(axes, study.phases)
    grid[0].set_yticks(range(len(metrics)), [NAMES[name] for name in metrics])
    grid[0].set_ylim(len(metrics) - 0.4, -0.6)
    bar = figure.colorbar(mesh, ax=grid, aspect=40, pad=0.02, extend="both")
    bar.set_label("z: distance from the mean of the null graphs")
    bar.outline.set_visible(False)
    handles = [
        Line2D([], [], color=INK, linewidth=7, solid_capstyle="butt", label=f"beyond (q ≤ {LEVEL:g})"),
        Line2D([], [], color=INK, linewidth=1.8, solid_capstyle="butt", label="not beyond"),
        *phase_handles(study.phases, intervals=False),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _draw_panel(axes: Axes, study: StudyData, found: dict[str, dict[str, np.ndarray]]) -> QuadMesh:
    rows = []
    for values in found.values():
        outer = np.where(values["q"] <= LEVEL, values["z"], np.nan)
        rows += [outer, values["z"], outer, np.full(len(study.steps), np.nan)]  # the last lies between two metrics
    edges = (np.arange(len(found))[:, None] + HEIGHTS).ravel()
    scale, colours = Normalize(-LARGEST, LARGEST), colour_map("RdBu_r", "none")
    mesh = axes.pcolormesh(
        cell_edges(study.steps), edges, np.array(rows[:-1]), norm=scale, cmap=colours, rasterized=True
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return mesh


def _say_why_blank(axes: Axes, row: int, z: np.ndarray, kept: np.ndarray, steps: np.ndarray) -> None:
    """Write into the longest blank stretch of a row why it is blank, if there is room."""
    blank = np.isnan(z)
    if blank.mean() < 0.3:
        return
    borders = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]])))  # first and end of each stretch
    starts, ends = borders[::2], borders[1::2]
    longest = int(np.argmax(ends - starts))
    edges = cell_edges(steps)
    middle = (edges[starts[longest]] + edges[ends[longest]]) / 2
    why = "kept" if kept[starts[longest] : ends[longest]].any() else "not compared"
    axes.text(middle, row, why, color=GREY, ha="center", va="center")

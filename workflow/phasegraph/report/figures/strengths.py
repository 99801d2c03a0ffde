"""Heatmaps of every component's strength over training: raw, and against its peers."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from phasegraph.report.marks import mark_above, phase_handles
from phasegraph.report.rows import MLP, end_look, label_layers, part_layers
from phasegraph.report.study import StudyData
from phasegraph.report.style import (
    UNDEFINED,
    cell_edges,
    colour_map,
    head_panel,
    new_figure,
    plain_log_axis,
    step_axis,
    themed,
)
from phasegraph.report.words import ENDS

ROLES = {"spreader": "Out-strength", "gatherer": "In-strength"}
KINDS = {"raw": "raw", "block": "against peers"}
LOWEST = 0.01
"""Quantile of the raw values at which their colours begin."""
LARGEST = 0.99
"""Quantile of the sizes of the block scores at which their colours end."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw out- and in-strength of every node (rows, layer 0 at the bottom) over training steps.

    The arrays of the four heatmaps are the estimates of ``roles.parquet``, [N, S], in the order of the nodes.
    """
    figure = new_figure(float(np.clip(2.4 + 0.16 * len(study.nodes), 5, 8.8)))
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, (role, name) in enumerate(ROLES.items()):
        for column, (kind, title) in enumerate(KINDS.items()):
            axes, values = grid[row, column], study.scores(role, kind)  # [N, S]
            mesh = _draw_heatmap(axes, values, study, kind)
            head_panel(axes, "abcd"[2 * row + column], f"{name}, {title}", lift=9)
            step_axis(axes, study.steps, label=row == 1)
            axes.set_xlim(*cell_edges(study.steps)[[0, -1]])
            beyond = kind == "block" or np.nanmax(values, initial=0) > mesh.norm.vmax  # embedding or logits
            bar = figure.colorbar(mesh, ax=axes, aspect=35, pad=0.02, extend="both" if beyond else "min")
            bar.set_label("sum of weights" if kind == "raw" else "mean log ratio to block median")
            bar.outline.set_visible(False)
            if kind == "raw":
                plain_log_axis(bar.ax.yaxis)
    for axes in grid[:, 0]:
        label_layers(axes, study.nodes)
    handles = [
        Patch(color=UNDEFINED, label="undefined: no possible edge, or no peer"),
        Line2D([], [], **MLP, label="MLP"),
        *(Line2D([], [], **end_look(node), label=ENDS[node.kind].removeprefix("the ")) for node in study.ends),
    ]
    handles += phase_handles(study.phases, intervals=False)
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_heatmap(axes: Axes, values: np.ndarray, study: StudyData, kind: str) -> QuadMesh:
    rows = np.arange(len(values) + 1) - 0.5
    scale = _log_scale(values[study.components]) if kind == "raw" else _symmetric_scale(values)
    colours = colour_map("viridis" if kind == "raw" else "RdBu_r", UNDEFINED)
    mesh = axes.pcolormesh(cell_edges(study.steps), rows, values, norm=scale, cmap=colours, rasterized=True)
    part_layers(axes, study.nodes)
    mark_above(axes, study.phases)
    return mesh


def _log_scale(values: np.ndarray) -> LogNorm:
    positive = values[values > 0]  # not NaN either
    return LogNorm(np.quantile(positive, LOWEST), positive.max())


def _symmetric_scale(values: np.ndarray) -> Normalize:
    sizes = np.abs(values[np.isfinite(values)])
    largest = np.quantile(sizes, LARGEST) if len(sizes) else 1.0
    return Normalize(-largest, largest)

"""Heatmaps of every component's strength over training: raw, and against its peers."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from phasegraph.report.marks import mark_above, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import (
    END_MARKERS,
    INK,
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
from phasegraph.types import Kind, Node

MLP = {"marker": ">", "color": INK, "markersize": 3.5, "linestyle": ""}
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
        _label_layers(axes, study)
    handles = [
        Patch(color=UNDEFINED, label="undefined: no possible edge, or no peer"),
        Line2D([], [], **MLP, label="MLP"),
        *(Line2D([], [], **_end(node), label=ENDS[node.kind].removeprefix("the ")) for node in study.ends),
    ]
    handles += phase_handles(study.phases, intervals=False)
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_heatmap(axes: Axes, values: np.ndarray, study: StudyData, kind: str) -> QuadMesh:
    rows = np.arange(len(values) + 1) - 0.5
    scale = _log_scale(values[study.components]) if kind == "raw" else _symmetric_scale(values)
    colours = colour_map("viridis" if kind == "raw" else "RdBu_r", UNDEFINED)
    mesh = axes.pcolormesh(cell_edges(study.steps), rows, values, norm=scale, cmap=colours, rasterized=True)
    layers = [node.layer for node in study.nodes]
    for border in np.flatnonzero(np.diff(layers)) + 0.5:
        axes.axhline(border, color="white", linewidth=1)
    mark_above(axes, study.phases)
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return mesh


def _end(node: Node) -> dict:
    """Look of what points at the row of the embedding or the logits."""
    return MLP | {"marker": END_MARKERS[node.kind], "markersize": 4.5}


def _label_layers(axes: Axes, study: StudyData) -> None:
    """Name the layers in the middle of their rows, and point at the rows of MLPs, embedding and logits."""
    layers = np.array([node.layer for node in study.nodes])
    middles = [np.flatnonzero(layers == layer).mean() for layer in range(layers[study.components].max() + 1)]
    every = -(-len(middles) // 20)  # at most 20 labels
    axes.set_yticks(middles[::every], [f"{layer}" for layer in range(0, len(middles), every)])
    axes.set_ylabel("layer")
    axes.tick_params(axis="y", pad=8)
    for node in study.nodes:
        if node.kind is not Kind.HEAD:
            look = MLP if node.kind is Kind.MLP else _end(node)
            axes.plot(-0.015, node.index, transform=axes.get_yaxis_transform(), clip_on=False, **look)


def _log_scale(values: np.ndarray) -> LogNorm:
    positive = values[values > 0]  # not NaN either
    return LogNorm(np.quantile(positive, LOWEST), positive.max())


def _symmetric_scale(values: np.ndarray) -> Normalize:
    sizes = np.abs(values[np.isfinite(values)])
    largest = np.quantile(sizes, LARGEST) if len(sizes) else 1.0
    return Normalize(-largest, largest)

"""The three backbones at a few checkpoints, in the layered drawing, with the widest path."""

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from phasegraph.network.backbones import backbones_of
from phasegraph.report.blocks import drawn_nodes, membership
from phasegraph.report.choose import landmarks
from phasegraph.report.layered import draw_curves, edge_width, frame, places
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, INK, head_panel, new_figure, themed
from phasegraph.report.words import number, plural
from phasegraph.types import Backbone, Kind, Node

TITLES = {
    Backbone.TOP10: "Strongest 10 %",
    Backbone.DISPARITY: "Disparity filter",
    Backbone.PERCOLATION: "Percolation",
}
"""Backbone -> what the panels call it, from top to bottom."""
PATH = "#009e73"
"""Colour of the widest path, which means nothing else."""
AREA = 22.0
"""Area of a node in square points."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw three backbones (rows) at up to three checkpoints (columns), edges at one scale in all panels.

    They are those of ``backbones/``: of direct effects where they were measured, else of total ones.
    """
    steps = landmarks(study.steps, study.phases)
    nodes = drawn_nodes(study.nodes)
    weights = {step: np.where(study.inner_mask, study.edges(step, study.path_effect)[0], 0) for step in steps.values()}
    strongest = max(matrix.max() for matrix in weights.values()) or 1.0
    layers = nodes[-1].layer - nodes[0].layer + 1
    figure = new_figure(1.1 + len(TITLES) * min(1.3 + 0.2 * layers, 3))
    grid = figure.subplots(len(TITLES), len(steps), squeeze=False)
    for column, step in enumerate(steps.values()):
        path = study.widest_paths[step]
        for row, (backbone, kept) in enumerate(
            backbones_of(weights[step], study.inner_mask, path["width"] or 0.0).items()
        ):
            axes = grid[row, column]
            _draw_backbone(axes, study, np.where(kept, weights[step], 0), strongest)
            subtitle = f"{plural(int(kept.sum()), 'edge')}"
            if backbone is Backbone.PERCOLATION:
                _draw_path(axes, study, path["nodes"], weights[step], strongest)
                subtitle += f", width {number(path['width'])}"
            frame(axes, nodes, label=column == 0)
            title = TITLES[backbone] if column == 0 else ""
            head_panel(axes, "abc"[row] if column == 0 else "", title, f"step {step:,}: {subtitle}")
    figure.legend(handles=_handles(study, strongest), loc="outside lower center", ncols=4, columnspacing=1.4)
    return figure


def _draw_backbone(axes: Axes, study: StudyData, weights: np.ndarray, strongest: float) -> None:
    """Draw the edges that have a weight [N, N], and all nodes, pale where they have no edge."""
    nodes, groups = drawn_nodes(study.nodes), membership(study.nodes).argmax(0)
    drawn = np.zeros((len(nodes), len(nodes)))
    sources, targets = np.nonzero(weights)
    np.maximum.at(drawn, (groups[sources], groups[targets]), weights[sources, targets])  # between groups the strongest
    order = np.argsort(drawn, axis=None)[::-1][: np.count_nonzero(drawn)][::-1]  # the strongest on top
    pairs = [(int(edge // len(nodes)), int(edge % len(nodes))) for edge in order]
    at = places(nodes)
    draw_curves(axes, at, pairs, edge_width(drawn.ravel()[order], strongest), INK)
    connected = (drawn > 0).any(0) | (drawn > 0).any(1)
    for node in nodes:
        _draw_node(axes, node, at, GREY if connected[node.index] else "white", INK if connected[node.index] else GREY)


def _draw_node(axes: Axes, node: Node, at: np.ndarray, face: str, edge: str) -> None:
    if node.kind in (Kind.EMBED, Kind.LOGITS):  # which no backbone is about
        return
    marker = "s" if node.kind is Kind.MLP else "o"
    axes.scatter(*at[node.index], s=AREA, c=face, marker=marker, edgecolors=edge, linewidths=0.6, zorder=3)


def _draw_path(axes: Axes, study: StudyData, names: list[str], weights: np.ndarray, strongest: float) -> None:
    """Draw the widest path over its backbone, and name its nodes."""
    numbers = {node.name: node.index for node in study.nodes}
    path = [numbers[name] for name in names]
    nodes, groups = drawn_nodes(study.nodes), membership(study.nodes).argmax(0)
    at = places(nodes)
    steps = list(pairwise(path))
    widths = np.array([edge_width(weights[step], strongest) for step in steps])
    draw_curves(axes, at, [(int(groups[a]), int(groups[b])) for a, b in steps], widths, PATH, alpha=0.9)
    for node, name in zip(path, names, strict=True):
        _draw_node(axes, nodes[groups[node]], at, PATH, INK)
        offset, side = ((0, -4), "top") if node == path[0] else ((0, 4), "bottom")
        label = axes.annotate(
            name, at[groups[node]], offset, textcoords="offset points", ha="center", va=side, color=PATH,
            weight="bold", zorder=4,
        )  # fmt: skip
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _handles(study: StudyData, strongest: float) -> list[Line2D]:
    weights = [float(f"{strongest * share:.1g}") for share in (1, 0.1)]
    edges = [
        Line2D([], [], color=INK, alpha=0.5, linewidth=float(edge_width(weight, strongest)), label=f"weight {weight:g}")
        for weight in weights
    ]
    edges[0].set_label(f"{edges[0].get_label()} ({study.path_effect} effect)")
    node = {"linestyle": "", "markersize": float(np.sqrt(AREA)), "markeredgewidth": 0.6}
    return [
        *edges,
        Line2D([], [], color=PATH, linewidth=2, alpha=0.9, label="widest path from the first to the last layer"),
        Line2D([], [], marker="o", color="white", markeredgecolor=GREY, label="no edge", **node),
    ]

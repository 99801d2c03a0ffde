"""Heatmaps with a row for every node: the layers at their side, and lines between them."""

import numpy as np
from matplotlib.axes import Axes

from phasegraph.report.style import END_MARKERS, INK
from phasegraph.types import Kind, Node

MLP = {"marker": ">", "color": INK, "markersize": 3.5, "linestyle": ""}
"""Look of what points at the row of an MLP."""


def end_look(node: Node) -> dict:
    """Look of what points at the row of the embedding or the logits."""
    return MLP | {"marker": END_MARKERS[node.kind], "markersize": 4.5}


def label_layers(axes: Axes, nodes: list[Node]) -> None:
    """Name the layers in the middle of their rows, and point at the rows of MLPs, embedding and logits.

    Parameters
    ----------
    nodes
        The rows from the lowest to the highest.
    """
    layers = np.array([node.layer for node in nodes])
    last = max(node.layer for node in nodes if node.kind in (Kind.HEAD, Kind.MLP))
    middles = [np.flatnonzero(layers == layer).mean() for layer in range(last + 1)]
    every = -(-len(middles) // 20)  # at most 20 labels
    axes.set_yticks(middles[::every], [f"{layer}" for layer in range(0, len(middles), every)])
    axes.set_ylabel("layer")
    axes.tick_params(axis="y", pad=8)
    for row, node in enumerate(nodes):
        if node.kind is not Kind.HEAD:
            look = MLP if node.kind is Kind.MLP else end_look(node)
            axes.plot(-0.015, row, transform=axes.get_yaxis_transform(), clip_on=False, **look)


def part_layers(axes: Axes, nodes: list[Node]) -> None:
    """Draw a white line between the rows of two layers, and take the frame away."""
    for border in np.flatnonzero(np.diff([node.layer for node in nodes])) + 0.5:
        axes.axhline(border, color="white", linewidth=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)

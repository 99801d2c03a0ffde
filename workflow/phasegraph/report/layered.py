"""The layered drawing of a graph: layers upwards, every node in its fixed place, edges as curves that run upwards."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.path import Path

from phasegraph.network.graph import are_components
from phasegraph.types import Kind, Node

WIDEST = 3.8
"""Width in points of the strongest edge of all panels."""


def places(nodes: list[Node]) -> np.ndarray:
    """Give every node its fixed place, [n, 2].

    Layers upwards, heads from left to right, the MLP at the right end; embedding and logits in the middle of the heads,
    below and above all layers.
    """
    heads = max((node.head for node in nodes if node.head is not None), default=0) + 1
    across = {Kind.MLP: heads + 0.3, Kind.EMBED: (heads - 1) / 2, Kind.LOGITS: (heads - 1) / 2}
    return np.array([(across.get(node.kind, node.head), node.layer) for node in nodes], dtype=float)


def edge_width(weights: np.ndarray, strongest: float) -> np.ndarray:
    """Width in points, proportional to the root of the weight."""
    return WIDEST * np.sqrt(np.asarray(weights) / strongest)


def draw_curves(
    axes: Axes, at: np.ndarray, pairs: list[tuple[int, int]], widths: np.ndarray, colour: str, alpha: float = 0.5
) -> None:
    """Draw edges, the first lowest.

    Parameters
    ----------
    at
        Places of the nodes, [n, 2].
    pairs
        Source and target of each edge.
    widths
        Of each edge, in points.
    """
    middle = at[:, 0].mean()
    paths = [_curve(at[source], at[target], middle) for source, target in pairs]
    lines = PathCollection(
        paths, facecolors="none", edgecolors=colour, linewidths=widths, alpha=alpha, capstyle="round"
    )
    lines.set_transform(axes.transData)
    axes.add_collection(lines)


def frame(axes: Axes, nodes: list[Node], label: bool) -> None:
    """Set up the axes of a drawing; the layers are numbered if `label`."""
    at, components = places(nodes), are_components(nodes)
    layers = int(at[components, 1].max()) + 1
    every = -(-layers // 12)
    axes.set(xlim=(-0.6, at[:, 0].max() + 0.6), ylim=(at[:, 1].min() - 0.5, at[:, 1].max() + 0.5), xticks=[])
    axes.set_yticks(range(0, layers, every))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelleft=label)
    if label:
        axes.set_ylabel("layer")
    heads = np.unique([at[node.index, 0] for node in nodes if node.kind is Kind.HEAD])
    axes.set_xticks([heads.mean(), at[:, 0].max()], ["heads", "MLP"])


def _curve(start: np.ndarray, end: np.ndarray, middle: float) -> Path:
    """Bezier curve that leaves and arrives upwards; across several layers it swings out, past the nodes between."""
    gap = end[1] - start[1]
    swing = np.array([0.28 * (gap > 1) * (1 if start[0] + end[0] > 2 * middle else -1), 0])
    lift = np.array([0, max(gap / 2.5, 0.3)])
    return Path([start, start + lift + swing, end - lift + swing, end], [Path.MOVETO, *[Path.CURVE4] * 3])

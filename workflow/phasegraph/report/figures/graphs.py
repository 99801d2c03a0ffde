"""The layered graph at six checkpoints, every node in its fixed place."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasegraph.network.graph import are_components
from phasegraph.report.blocks import Drawn, drawn_graph, drawn_nodes
from phasegraph.report.choose import telling_steps
from phasegraph.report.layered import WIDEST, draw_curves, edge_width, frame, places
from phasegraph.report.study import StudyData
from phasegraph.report.style import BALANCE, END_MARKERS, GREY, INK, head_panel, new_figure, themed
from phasegraph.report.words import ENDS
from phasegraph.types import Kind, Node

STRONGEST = 0.05
"""Share of the possible edges between components that is drawn, beside every component's strongest incoming edge."""
ENDS_STRONGEST = 3
"""Number of edges that are drawn from the embedding, and to the logits."""
LARGEST = 200.0
"""Area in square points of the node with the largest out-strength of all panels."""
SMALLEST = 9.0
"""Area in square points that every node has besides."""
END_AREA = 55.0
"""Area in square points of embedding and logits, whose strengths are out of all proportion."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw the strongest edges at six telling checkpoints, at the same scale in all panels.

    Edges are direct effects where they were measured, because the eye composes edges into paths; size and colour of the
    nodes are strengths of the total effect.
    """
    chosen = telling_steps(study.steps, study.phases)
    nodes = drawn_nodes(study.nodes)
    graphs = {step: drawn_graph(study, step) for step in chosen}
    components = are_components(nodes)
    strongest = max(graph.edges[np.ix_(components, components)].max() for graph in graphs.values())
    largest = max(graph.out_strength[components].max() for graph in graphs.values())
    rows = -(-len(chosen) // 3)
    figure = new_figure(1.3 + rows * min(1.7 + 0.3 * (nodes[-1].layer - nodes[0].layer + 1), 3.5))
    grid = figure.add_gridspec(rows + 1, 3, height_ratios=[1] * rows + [0.2])
    for place, (step, reason) in enumerate(chosen.items()):
        axes = figure.add_subplot(grid[place // 3, place % 3])
        _draw_edges(axes, nodes, graphs[step], strongest)
        _draw_nodes(axes, nodes, graphs[step], largest)
        frame(axes, nodes, label=place % 3 == 0)
        head_panel(axes, "abcdef"[place], f"Step {step:,}", reason)
    _explain_edges(figure.add_subplot(grid[-1, 0]), strongest, f"edge: weight ({study.path_effect} effect)")
    _explain_nodes(figure.add_subplot(grid[-1, 1]), largest, study.ends)
    balance = figure.add_subplot(grid[-1, 2])
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), BALANCE),
        cax=balance.inset_axes((0.08, 0.5, 0.84, 0.16)),
        orientation="horizontal",
    )
    bar.set_ticks([-1, 0, 1], labels=["gathers", "even", "spreads"])
    bar.set_label("node colour: (out − in) / (out + in)")
    bar.outline.set_visible(False)
    balance.set_axis_off()
    return figure


def chosen_edges(edges: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Choose the edges to draw: the strongest of all, and every node's strongest incoming one.

    Parameters
    ----------
    edges
        Weights, [n, n].
    mask
        Possible edges, bool [n, n].

    Returns
    -------
    ndarray
        bool [n, n]; never an edge of weight 0.
    """
    count = max(1, round(STRONGEST * mask.sum()))
    drawn = mask & (edges >= np.sort(edges[mask])[-count])
    receiving = np.flatnonzero(mask.any(0))
    drawn[np.where(mask, edges, -1)[:, receiving].argmax(0), receiving] = True
    return drawn & (edges > 0)


def end_edges(edges: np.ndarray, mask: np.ndarray, nodes: list[Node]) -> np.ndarray:
    """Choose the edges to draw of embedding and logits: the strongest of each, bool [n, n]; never one of weight 0."""
    drawn = np.zeros_like(mask)
    for node in nodes:
        if node.kind is Kind.EMBED:
            drawn[node.index, np.argsort(-edges[node.index])[:ENDS_STRONGEST]] = True
        elif node.kind is Kind.LOGITS:
            drawn[np.argsort(-edges[:, node.index])[:ENDS_STRONGEST], node.index] = True
    return drawn & (edges > 0)


def node_area(strengths: np.ndarray, largest: float) -> np.ndarray:
    """Area in square points: a constant, so that every node is seen, and a part proportional to the strength."""
    return SMALLEST + LARGEST * np.asarray(strengths) / largest


def _draw_edges(axes: Axes, nodes: list[Node], graph: Drawn, strongest: float) -> None:
    """Draw the chosen edges between components, and those of embedding and logits, in grey, at most as wide."""
    components = are_components(nodes)
    inner = chosen_edges(graph.edges, graph.mask & components[:, None] & components)
    if not components.all():
        _draw_chosen(axes, nodes, graph, end_edges(graph.edges, graph.mask, nodes), strongest, GREY)
    _draw_chosen(axes, nodes, graph, inner, strongest, INK)


def _draw_chosen(
    axes: Axes, nodes: list[Node], graph: Drawn, chosen: np.ndarray, strongest: float, colour: str
) -> None:
    sources, targets = np.nonzero(chosen)
    order = np.argsort(graph.edges[sources, targets])  # the strongest on top
    pairs = list(zip(sources[order].tolist(), targets[order].tolist(), strict=True))
    widths = np.minimum(edge_width(graph.edges[sources[order], targets[order]], strongest), WIDEST)
    draw_curves(axes, places(nodes), pairs, widths, colour)


def _draw_nodes(axes: Axes, nodes: list[Node], graph: Drawn, largest: float) -> None:
    at = places(nodes)
    for kind, marker in ((Kind.HEAD, "o"), (Kind.MLP, "s")):
        here = [node.index for node in nodes if node.kind is kind]
        axes.scatter(
            *at[here].T, s=node_area(graph.out_strength[here], largest), c=graph.balance[here], marker=marker,
            cmap=BALANCE, vmin=-1, vmax=1, edgecolors=INK, linewidths=0.6, zorder=3,
        )  # fmt: skip
    for node in nodes:
        if node.kind in END_MARKERS:
            axes.scatter(
                *at[node.index], s=END_AREA, c="white", marker=END_MARKERS[node.kind], edgecolors=INK, linewidths=0.6,
                zorder=3,
            )  # fmt: skip


def _explain_edges(axes: Axes, strongest: float, title: str) -> None:
    weights = [float(f"{strongest * share:.1g}") for share in (1, 0.3, 0.05)]
    handles = [
        Line2D([], [], color=INK, alpha=0.5, linewidth=float(edge_width(weight, strongest)), label=f"{weight:g}")
        for weight in weights
    ]
    _explain(axes, handles, title)


def _explain_nodes(axes: Axes, largest: float, ends: list[Node]) -> None:
    strengths = [float(f"{largest * share:.1g}") for share in (1, 0.25)]
    look = {"linestyle": "", "color": "#eeeeee", "markeredgecolor": INK, "markeredgewidth": 0.6}
    handles = [
        Line2D(
            [], [], marker="o", markersize=float(np.sqrt(node_area(strength, largest))), label=f"{strength:g}", **look
        )
        for strength in strengths
    ]
    look |= {"color": "white", "markersize": float(np.sqrt(END_AREA))}
    for node in ends:
        name = ENDS[node.kind].removeprefix("the ")
        handles.append(Line2D([], [], marker=END_MARKERS[node.kind], label=name, **look))
    _explain(axes, handles, "node area: out-strength (total effect)", columns=2 if ends else 3)


def _explain(axes: Axes, handles: list[Line2D], title: str, columns: int = 3) -> None:
    axes.legend(handles=handles, title=title, loc="center", ncols=columns, columnspacing=1.2)
    axes.set_axis_off()

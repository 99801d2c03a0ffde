"""Which components form a community at every checkpoint, and how much there is to it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from phasegraph.report.communities import SHOWN, frequent, renewal
from phasegraph.report.marks import mark_above, mark_phases, phase_handles
from phasegraph.report.rows import MLP, label_layers, part_layers
from phasegraph.report.study import StudyData
from phasegraph.report.style import (
    GREY,
    LINES,
    NULL,
    UNDEFINED,
    band,
    cell_edges,
    head_panel,
    new_figure,
    null_band,
    step_axis,
    themed,
)

COLOURS = (*LINES, "#56b4e9")[:SHOWN]


@themed
def draw(study: StudyData) -> Figure:
    """Draw the community of every component (rows, layer 0 at the bottom) over training steps, and its modularity.

    The array of the heatmap [C, S] is the place of a community among the most frequent ones, `SHOWN` for all others.
    """
    labels = study.communities.T  # [C, S]
    height = float(np.clip(0.11 * len(labels), 1.8, 4.2))
    figure = new_figure(height + 3.6)
    grid = figure.subplots(3, 1, sharex=True, height_ratios=[height, 1.2, 1.2])
    _draw_map(grid[0], labels, study)
    head_panel(grid[0], "a", "Communities of components", "total effect; one colour for as long as one lasts", lift=9)
    band(grid[1], study.steps, study.metric("modularity"), LINES[0], "modularity Q")
    head_panel(grid[1], "b", "Modularity", "weight within communities beyond what strengths make expect")
    band(grid[2], study.steps, study.metric("layer_agreement"), LINES[1], "with the layers")
    grid[2].plot(study.steps, renewal(study.communities), color=LINES[2], label="with the checkpoint before")
    head_panel(grid[2], "c", "Agreement", legend=True)
    for axes, metric, unit in ((grid[1], "modularity", "Q"), (grid[2], "layer_agreement", "adjusted Rand")):
        null_band(axes, study.steps, study.null(metric, "ratio"))
        mark_phases(axes, study.phases)
        axes.axhline(0, color=GREY, linewidth=0.5, zorder=0.8)
        axes.set_ylabel(unit)
    grid[2].set_ylim(-0.35, 1.05)
    for axes in grid:
        step_axis(axes, study.steps, label=axes is grid[-1])
        axes.set_xlim(*cell_edges(study.steps)[[0, -1]])
    handles = [
        Patch(color=UNDEFINED, label="other communities"),
        Line2D([], [], **MLP, label="MLP"),
        Patch(facecolor=LINES[0], alpha=0.22, label="90 % interval"),
        Patch(facecolor=NULL, label="5–95 % of the ratio shuffle"),
        *phase_handles(study.phases),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _draw_map(axes: Axes, labels: np.ndarray, study: StudyData) -> None:
    shown = frequent(labels)
    places = np.full(labels.shape, SHOWN)
    for place, label in enumerate(shown):
        places[labels == label] = place
    colours = ListedColormap([*COLOURS, UNDEFINED])
    rows = np.arange(len(labels) + 1) - 0.5
    axes.pcolormesh(cell_edges(study.steps), rows, places, vmin=-0.5, vmax=SHOWN + 0.5, cmap=colours, rasterized=True)
    components = [node for node in study.nodes if study.components[node.index]]
    label_layers(axes, components)
    part_layers(axes, components)
    mark_above(axes, study.phases)

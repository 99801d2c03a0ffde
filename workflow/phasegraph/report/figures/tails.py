"""Distributions of the edge weights at some checkpoints, and how concentrated they are."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phasegraph.jackknife import Jackknife, delete_group
from phasegraph.network.metrics import effective_number, gini
from phasegraph.report.choose import spread_out
from phasegraph.report.marks import mark_phases, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, head_panel, new_figure, plain_log_axis, step_axis, step_colours, themed

CHECKPOINTS = 8
MARKERS = {"weights w": "o", "√w": "s"}


@themed
def draw(study: StudyData) -> Figure:
    """Draw the complementary distribution functions of the weights of all possible edges, Gini and N_eff beside them.

    Eight checkpoints that are evenly spread over the run (fewer if there are fewer); total effects between components.
    No line is fitted.
    """
    figure = new_figure(5.0)
    axes = figure.subplot_mosaic([["tails", "gini"], ["tails", "number"]], width_ratios=[1.7, 1])
    steps = [int(study.steps[place]) for place in spread_out(len(study.steps), CHECKPOINTS)]
    concentrations = []
    for step, colour in zip(steps, step_colours(len(steps)), strict=True):
        weights = study.edges(step)[:, study.inner_mask]  # [17, E]
        _draw_tail(axes["tails"], weights[0], colour, f"step {step:,}")
        concentrations.append(concentration(weights))
    for name, letter, key, unit in (("gini", "b", 0, "Gini"), ("number", "c", 1, "edges")):
        for label, marker in MARKERS.items():
            found = delete_group(np.stack([values[label][key] for values in concentrations], axis=1))  # [checkpoints]
            _draw_points(axes[name], steps, found, marker, label)
        axes[name].set_ylabel(unit)
        head_panel(axes[name], letter, "Concentration" if key == 0 else "Effective number of edges", legend=True)
        mark_phases(axes[name], study.phases)
        step_axis(axes[name], study.steps, label=key == 1, ticks=4)
    axes["tails"].set(
        xscale="log", yscale="log", xlabel="weight w of an edge", ylabel="share of possible edges of weight ≥ w"
    )
    plain_log_axis(axes["tails"].xaxis)
    plain_log_axis(axes["tails"].yaxis)
    axes["tails"].legend(loc="lower left", handlelength=1)
    head_panel(axes["tails"], "a", "How many edges are that strong", "total effect")
    if handles := phase_handles(study.phases):
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def concentration(weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Gini coefficient and effective number of edges (entropy), [17] each, of weights [17, E] and of their roots."""
    return {
        label: (gini(values), effective_number(values)[0])
        for label, values in zip(MARKERS, (weights, np.sqrt(weights)), strict=True)
    }


def _draw_tail(axes: Axes, weights: np.ndarray, colour: str, label: str) -> None:
    """Draw the share of edges of at least each weight; edges of weight 0 count, but have no place on the axis."""
    positive = np.sort(weights[weights > 0])
    share = np.arange(len(positive), 0, -1) / len(weights)
    axes.step(positive, share, where="pre", color=colour, label=label)


def _draw_points(axes: Axes, steps: list[int], found: Jackknife, marker: str, label: str) -> None:
    """Draw estimates in the colours of the tails, with their intervals."""
    axes.plot(steps, found.estimate, color=GREY, linewidth=0.6, zorder=1.5)
    axes.plot([], [], marker=marker, color=GREY, linestyle="", markersize=4, label=label)
    for step, value, low, high, colour in zip(
        steps, found.estimate, found.low, found.high, step_colours(len(steps)), strict=True
    ):
        axes.vlines(step, low, high, color=colour, linewidth=1.2)
        axes.plot(step, value, marker=marker, color=colour, markersize=4)

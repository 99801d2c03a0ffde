"""Who holds the first places among spreaders and gatherers over training, and how long a ranking lasts."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasegraph.report.answers import answer_handles, draw_answers, has_answers
from phasegraph.report.choose import spread_out
from phasegraph.report.marks import mark_phases, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import (
    GATHERER,
    GATHERER_PEERS,
    GREY,
    SPREADER,
    SPREADER_PEERS,
    band,
    head_panel,
    layer_colours,
    new_figure,
    say_undefined,
    step_axis,
    themed,
)

ROLES = {"spreader": "Spreaders", "gatherer": "Gatherers"}
KINDS = {"raw": "raw strength", "block": "strength against peers"}
COLOURS = {"spreader": (SPREADER, SPREADER_PEERS), "gatherer": (GATHERER, GATHERER_PEERS)}
TOP = 8
"""Places that are shown."""
CHECKPOINTS = 17
"""Most checkpoints in a bump chart: neighbouring ranks change places all the time, and more would hide the rest."""
BEND = 12
"""Points of the curve between two checkpoints."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw the ranks of the strongest spreaders and gatherers over training steps, and Kendall's tau below them.

    The points of the bump charts are ranks of ``roles.parquet``; tau is that of ``metrics.parquet``. Where effects on
    the answer were measured, a last row sets them beside the strengths of spreaders.
    """
    answers = has_answers(study)
    figure, grid = _panels(answers)
    layers = max(node.layer for node in study.nodes if study.components[node.index]) + 1
    for column, (role, title) in enumerate(ROLES.items()):
        for row, (kind, by) in enumerate(KINDS.items()):
            axes = grid[row, column]
            _draw_bumps(axes, study, study.scores(role, kind, "rank"), layer_colours(layers))
            head_panel(axes, "abcd"[2 * row + column], f"{title} by {by}")
            mark_phases(axes, study.phases)
            step_axis(axes, study.steps, label=False)
        _draw_stability(grid[2, column], study, role)
        head_panel(grid[2, column], "ef"[column], f"Stability of the ranking of {title.lower()}", legend=True)
        step_axis(grid[2, column], study.steps)
    for axes in grid[:2, 0]:
        axes.set_ylabel("rank")
    for axes, letter, kind in zip(grid[3:].flat, "gh", KINDS, strict=False):
        draw_answers(axes, study, kind)
        head_panel(axes, letter, f"Answer and {KINDS[kind]}", f"step {study.steps[-1]:,}, total effect")
    lowest = min(axes.get_ylim()[0] for axes in grid[2])
    for axes in grid[2]:
        axes.set_ylim(lowest, 1)
    handles = [*_layer_handles(layers), *phase_handles(study.phases), *(answer_handles() if answers else [])]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.2)
    return figure


def _panels(answers: bool) -> tuple[Figure, np.ndarray]:
    """Start the figure: three rows of panels over training steps and, with answers, a fourth that is not."""
    if not answers:
        figure = new_figure(8.4)
        return figure, figure.subplots(3, 2, sharex=True, height_ratios=[1, 1, 0.75])
    figure = new_figure(10.8)
    grid = figure.subplots(4, 2, height_ratios=[1, 1, 0.75, 0.85])
    for axes in grid[:3].flat[1:]:
        axes.sharex(grid[0, 0])
    for axes in grid[:2].flat:
        axes.tick_params(labelbottom=False)
    return figure, grid


def _draw_bumps(axes: Axes, study: StudyData, ranks: np.ndarray, colours: list[str]) -> None:
    """Draw one line per component that ever is among the first, faded where it is not; ranks [N, S]."""
    shown = spread_out(len(study.steps), CHECKPOINTS)
    steps, ranks = study.steps[shown].astype(float), ranks[:, shown]
    for node in np.flatnonzero((ranks <= TOP).any(1)):
        inside = ranks[node] <= TOP
        colour = colours[study.nodes[node].layer]
        height = np.where(ranks[node] <= TOP, ranks[node], TOP + 1.2)
        stays, visits = inside[1:] & inside[:-1], inside[1:] ^ inside[:-1]
        axes.plot(*_bends(steps, height, stays), color=colour, linewidth=1.4)
        axes.plot(*_bends(steps, height, visits), color=colour, linewidth=1.2, alpha=0.25)
        axes.plot(steps[inside], ranks[node][inside], ".", color=colour, markersize=3.5)
        if inside[-1]:
            name = study.nodes[node].name
            axes.annotate(name, (steps[-1], height[-1]), (6, 0), textcoords="offset points", va="center", color=colour)
    last = int(min(TOP, np.nanmax(ranks, initial=0)))
    if not last:
        say_undefined(axes, "every component is alone\nin its layer and kind")
    axes.set_ylim(last + 0.6, 0.5)
    axes.set_yticks(range(1, last + 1))
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _bends(x: np.ndarray, y: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curves from each point to the next that leave and arrive level, where `wanted` [S - 1]; NaN between them."""
    t = np.append(np.linspace(0, 1, BEND), np.nan)
    along = x[:-1, None] + t * np.diff(x)[:, None]  # [S - 1, BEND + 1]
    across = y[:-1, None] + t * t * (3 - 2 * t) * np.diff(y)[:, None]
    return along[wanted].ravel(), across[wanted].ravel()


def _draw_stability(axes: Axes, study: StudyData, role: str) -> None:
    for kind, colour in zip(KINDS, COLOURS[role], strict=True):
        band(axes, study.steps, study.metric(f"tau_{role}_{kind}"), colour, "raw" if kind == "raw" else "against peers")
    axes.axhline(0, color=GREY, linewidth=0.9, linestyle=":", label="chance")
    axes.set_ylabel("Kendall's τ with the\ncheckpoint before")
    mark_phases(axes, study.phases)


def _layer_handles(layers: int) -> list[Line2D]:
    colours = layer_colours(layers)
    return [
        Line2D([], [], color=colours[layer], label=f"layer {layer}") for layer in range(0, layers, -(-layers // 12))
    ]

"""Who holds the first places among spreaders and gatherers over training, and how long holders keep them."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from phasegraph.report.answers import answer_handles, draw_answers, has_answers
from phasegraph.report.choose import spread_out
from phasegraph.report.marks import mark_phases, phase_handles
from phasegraph.report.study import StudyData, floats
from phasegraph.report.style import (
    GATHERER,
    GREY,
    SPREADER,
    band,
    head_panel,
    layer_colours,
    new_figure,
    plain_log_axis,
    say_undefined,
    step_axis,
    themed,
)

ROLES = {"spreader": "Spreaders", "gatherer": "Gatherers"}
KINDS = {"raw": "raw strength", "block": "strength against peers"}
LASTING = {"raw": "Raw", "per_edge": "Per possible edge", "block": "Against peers"}
"""Kind of score -> title of the panel of persistence."""
COLOURS = {"spreader": SPREADER, "gatherer": GATHERER, "gatekeeper": "#009e73"}
TOP = 8
"""Places that are shown."""
CHECKPOINTS = 17
"""Most checkpoints in a bump chart: neighbouring ranks change places all the time, and more would hide the rest."""
BEND = 12
"""Points of the curve between two checkpoints."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw the ranks of the strongest spreaders and gatherers over training steps, and persistence below them.

    The points of the bump charts are ranks of ``roles.parquet``; persistence is that of ``stability.parquet``. Where
    effects on the answer were measured, a last row sets them beside the strengths of spreaders.
    """
    answers = has_answers(study)
    figure, parts = _panels(answers)
    _draw_ranks(parts[0], study)
    _draw_lasting(parts[1], study)
    for part in parts[2:]:
        for axes, letter, (kind, by) in zip(part.subplots(1, 2), "hi", KINDS.items(), strict=True):
            draw_answers(axes, study, kind)
            head_panel(axes, letter, f"Answer and {by}", f"step {study.steps[-1]:,}, total effect")
    handles = [*_layer_handles(_layers(study)), *phase_handles(study.phases), *(answer_handles() if answers else [])]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.2)
    return figure


def _panels(answers: bool) -> tuple[Figure, list[SubFigure]]:
    """Start the figure: a part for ranks, below it one for persistence and, with answers, one for those."""
    figure = new_figure(11.2 if answers else 8.6)
    heights = [2, 0.95, 0.85] if answers else [2, 0.95]
    return figure, list(figure.subfigures(len(heights), 1, height_ratios=heights))


def _layers(study: StudyData) -> int:
    return max(node.layer for node in study.nodes if study.components[node.index]) + 1


def _draw_ranks(part: SubFigure, study: StudyData) -> None:
    grid = part.subplots(2, 2, sharex=True)
    for column, (role, title) in enumerate(ROLES.items()):
        for row, (kind, by) in enumerate(KINDS.items()):
            axes = grid[row, column]
            _draw_bumps(axes, study, study.scores(role, kind, "rank"), layer_colours(_layers(study)))
            head_panel(axes, "abcd"[2 * row + column], f"{title} by {by}")
            mark_phases(axes, study.phases)
            step_axis(axes, study.steps, label=row == 1)
    for axes in grid[:, 0]:
        axes.set_ylabel("rank")


def _draw_lasting(part: SubFigure, study: StudyData) -> None:
    panels = part.subplots(1, len(LASTING), sharey=True)
    for axes, letter, (kind, title) in zip(panels, "efg", LASTING.items(), strict=True):
        _draw_persistence(axes, study, kind)
        head_panel(axes, letter, title)
    panels[0].set_ylabel("persistence beyond chance")
    part.legend(handles=_role_handles(), loc="outside upper center", ncols=5, columnspacing=1.2)


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


def _draw_persistence(axes: Axes, study: StudyData, kind: str) -> None:
    """Draw mean persistence over the lag for every role, and reliability as its ceiling."""
    table = study.stability.filter((pl.col("score_kind") == kind) & pl.col("estimate").is_not_null())
    known = False
    for role, colour in COLOURS.items():
        rows = table.filter((pl.col("role") == role) & (pl.col("quantity") == "persistence")).sort("lag")
        values = {name: floats(rows[name]) for name in ("estimate", "low", "high")}
        band(axes, rows["lag"].to_numpy(), values, colour)
        for ceiling in table.filter((pl.col("role") == role) & (pl.col("quantity") == "reliability"))["estimate"]:
            axes.axhline(ceiling, color=colour, linewidth=0.9, linestyle="--")
        known = known or len(rows) > 0
    if not known:
        say_undefined(axes, "no rankings\nto compare")
    axes.axhline(0, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(0.9, max(1.1 * (len(study.steps) - 1), 2))
    plain_log_axis(axes.xaxis)
    axes.set_ylim(-0.4, 1.02)
    axes.set_xlabel("lag (checkpoints)")


def _role_handles() -> list[Line2D]:
    lines = [Line2D([], [], color=colour, label=f"{role}s") for role, colour in COLOURS.items()]
    return [
        *lines,
        Line2D([], [], color=GREY, linewidth=0.9, linestyle="--", label="two halves of the prompts"),
        Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="chance"),
    ]


def _layer_handles(layers: int) -> list[Line2D]:
    colours = layer_colours(layers)
    return [
        Line2D([], [], color=colours[layer], label=f"layer {layer}") for layer in range(0, layers, -(-layers // 12))
    ]

"""What speaks for each boundary: the search of both tests step by step, and what other methods say."""

from string import ascii_lowercase

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from phasegraph.errors import PhasegraphError
from phasegraph.phases.settings import TESTS
from phasegraph.report.evidence import Boundary, boundaries_of, rate_steps, tested, transition
from phasegraph.report.marks import HATCHED, dashes, phase_handles, say_untested, shade_transition
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, INK, LINES, PALE, cell_edges, head_panel, new_figure, step_axis, themed
from phasegraph.report.words import plural, probability

COLUMNS = 4
"""Most panels beside each other."""
SHOWN = 8
"""Most steps of a search that are drawn."""
BANDS = (("0.5", "0.9", "#edf0f2"), ("0.9", "0.95", "#dbe0e5"), ("0.95", "0.99", "#bcc4cc"))
"""Quantiles of the bootstrap's largest gains between which a band lies, and its colour."""
FOUND = LINES[0]


@themed
def draw(study: StudyData) -> Figure:
    """Draw the gain at every split in each step of both searches, and below them the boundaries of all methods."""
    phases = study.phases
    if not tested(phases):
        figure = new_figure(1.5)
        _draw_places(figure.subplots(), study, "a", {})
        if handles := phase_handles(phases):
            figure.legend(handles=handles, loc="outside lower center")
        return figure
    grid = _arranged([phases[test]["search"][:SHOWN] for test in TESTS])
    rows = len(TESTS) + len(phases["others"])
    heights = 1.4 * len(grid) + 0.35, 0.24 * rows + 0.75
    figure = new_figure(sum(heights) + 0.6)
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    count = _draw_searches(above, study, grid)
    _draw_places(below.subplots(), study, ascii_lowercase[count], phases["others"])
    figure.legend(handles=_handles(phases), loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def _arranged(searches: list[list[dict]]) -> list[list[tuple[int, int] | None]]:
    """Place the panels: rows of (number of the test, number of the step), tests in one row if they fit.

    All rows are as long as the longest, with None at the end of the shorter ones.
    """
    panels = [[(test, step) for step in range(len(search))] for test, search in enumerate(searches)]
    if sum(map(len, panels)) <= COLUMNS:
        return [[place for row in panels for place in row]]
    rows = [row[start : start + COLUMNS] for row in panels for start in range(0, len(row), COLUMNS)]
    longest = max(map(len, rows))
    return [[*row, *[None] * (longest - len(row))] for row in rows]


def _draw_searches(figure: SubFigure, study: StudyData, grid: list[list[tuple[int, int] | None]]) -> int:
    """Draw one panel per step of the searches, and say how many."""
    phases, steps = study.phases, rate_steps(study.steps, study.phases)
    searches = [phases[test]["search"][:SHOWN] for test in TESTS]
    tops = [1.08 * max(max(*one["gains"], *one["quantiles"].values()) for one in search) for search in searches]
    panels = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    places = [place for row in grid for place in row]
    count = 0
    for number, (axes, place) in enumerate(zip(panels.ravel(), places, strict=True)):
        if place is None:
            axes.set_axis_off()
            continue
        test, step = place
        one = searches[test][step]
        _draw_gains(axes, one, searches[test][0]["steps"], phases["settings"]["alpha"])
        head_panel(
            axes,
            ascii_lowercase[count],
            f"{list(TESTS.values())[test]}, boundary {step + 1}",
            f"{probability(one['p_value'])} at {one['best_step']:,}",
        )
        axes.set_ylim(0, tops[test] or 1)
        has_panel_below = any(places[number + len(grid[0]) :][:1])
        step_axis(axes, steps, label=not has_panel_below, ticks=3)
        if step % COLUMNS == 0:
            axes.set_ylabel("gain")
        count += 1
    return count


def _draw_gains(axes: Axes, one: dict, splits: list[int], alpha: float) -> None:
    """Draw a step's gains over the splits that were allowed in the first step, with a gap where they no longer are."""
    for low, high, colour in BANDS:
        axes.axhspan(one["quantiles"][low], one["quantiles"][high], color=colour, linewidth=0, zorder=0.5)
    by_step = dict(zip(one["steps"], one["gains"], strict=True))
    x = sorted({*splits, *by_step})
    colour = FOUND if one["p_value"] <= alpha else GREY
    axes.plot(x, [by_step.get(step, np.nan) for step in x], color=colour, linewidth=1)
    axes.plot(one["best_step"], by_step[one["best_step"]], "o", color=colour, markersize=4.5)


def _draw_places(axes: Axes, study: StudyData, letter: str, others: dict[str, dict]) -> None:
    """Draw a row per test and per other method over training."""
    phases = study.phases
    step_axis(axes, study.steps, ticks=8)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if not tested(phases):
        say_untested(axes, phases)
        head_panel(axes, letter, "Boundaries by method")
        return
    shade_transition(axes, transition(phases))
    labels = [*TESTS.values(), *(_label(other) for other in others.values())]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.axhline(len(TESTS) - 0.5, color=PALE, linewidth=0.8)
    for row, test in enumerate(TESTS):
        _draw_boundaries(axes, row, boundaries_of(phases, test))
    steps = rate_steps(study.steps, phases)
    for row, other in enumerate(others.values(), start=len(TESTS)):
        if "states" in other:
            if len(other["states"]) != len(steps):
                path = study.folder / "phases.json"
                raise PhasegraphError(f"{path}: other steps than metrics.parquet; run the phases stage again")
            _draw_states(axes, row, steps, other["states"])
        else:
            axes.vlines(other["steps"], row - 0.36, row + 0.36, color=GREY, linewidth=1.6)
    found = [*(phases[test]["boundaries"] for test in TESTS), *(other["steps"] for other in others.values())]
    for row, places in enumerate(found):
        if not places:
            axes.text(0.01, row, "none", color=GREY, va="center", transform=axes.get_yaxis_transform())
    head_panel(axes, letter, "Boundaries by method", "tested above the line; below it no level is held")


def _label(other: dict) -> str:
    return f"{other['name']}, {plural(len(set(other['states'])), 'state')}" if "states" in other else other["name"]


def _draw_boundaries(axes: Axes, row: int, found: list[Boundary]) -> None:
    for boundary in found:
        axes.fill_between([boundary.low, boundary.high], row - 0.36, row + 0.36, **HATCHED)
        axes.vlines(boundary.step, row - 0.42, row + 0.42, color=INK, linewidth=1.2, linestyle=dashes(boundary.abrupt))


def _draw_states(axes: Axes, row: int, steps: np.ndarray, states: list[int]) -> None:
    """Draw a strip with a colour per state, numbered in the order in which they are first visited."""
    order = {state: place for place, state in enumerate(dict.fromkeys(states))}
    hues = np.array([to_rgb(LINES[place % len(LINES)]) for place in range(len(order))])
    colours = ListedColormap(0.6 * hues + 0.4)  # paler than lines of the same colours
    edges = np.clip(cell_edges(steps), 0, None)
    values = np.array([[order[state] for state in states]])
    axes.pcolormesh(
        edges, [row - 0.3, row + 0.3], values, cmap=colours, vmin=-0.5, vmax=len(order) - 0.5, rasterized=True
    )


def _handles(phases: dict) -> list[Artist]:
    """Explain what is drawn, and nothing else."""
    alpha = phases["settings"]["alpha"]
    accepted = {one["p_value"] <= alpha for test in TESTS for one in phases[test]["search"][:SHOWN]}
    names = ((True, FOUND, f"gain, accepted (p ≤ {alpha:g})"), (False, GREY, "gain, not accepted: the search ends"))
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker="o", markersize=4.5, linewidth=1, label=label)
        for kind, colour, label in names
        if kind in accepted
    ]
    handles += [
        Patch(facecolor=colour, label=f"bootstrap quantiles {100 * float(low):.0f}\u2013{100 * float(high):.0f} %")
        for low, high, colour in BANDS
    ]
    return handles + phase_handles(phases)

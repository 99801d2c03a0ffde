"""Whether boundaries come back: without one group of prompts, and in other seeds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasegraph.phases.settings import TESTS
from phasegraph.report.evidence import boundaries_of, dated_transition, tested, transition
from phasegraph.report.marks import SHADE, mark_boundaries, phase_handles, say_untested, shade_transition
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, LINES, PALE, WIDTH, head_panel, new_figure, step_axis, themed

HUES = {"test_a": LINES[0], "test_b": LINES[1]}
"""Colours of the tests' boundaries."""
HALVES = {"test_a": -0.22, "test_b": 0.22}
"""Where they lie in a seed's row."""
LETTER = 6.2
"""Points that a letter of a label takes at most."""
LINE = 10
"""Points that a line of labels takes."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw the boundaries of the series without each group of prompts, test by test, and those of every seed of a set.

    The seeds are left out if the study is a member of no set.
    """
    phases, seeds = study.phases, (study.seeds or {}).get("seeds", [])
    panels = list(TESTS) if tested(phases) else ["none"]
    heights = [1.75] * len(panels) if tested(phases) else [0.9]
    heights += [0.27 * len(seeds) + 0.5] * bool(seeds)
    figure = new_figure(sum(heights) + 0.7)
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for one in axes:
        step_axis(one, _all_steps(study, seeds), label=one is axes[-1], ticks=8)
        one.tick_params(axis="y", length=0)
    for one, letter, test in zip(axes, "ab", panels, strict=False):
        if test in TESTS:
            _draw_groups(one, study, test, letter)
        else:
            say_untested(one, phases)
            head_panel(one, "a", "Without one group of prompts")
    if seeds:
        _draw_seeds(axes[-1], study, seeds, "abc"[len(panels)])
    if handles := _handles(phases, seeds):
        figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def _all_steps(study: StudyData, seeds: list[dict]) -> np.ndarray:
    """Give the steps of the study, and the last one that is marked in any seed if it is later."""
    marked = [step for seed in seeds for step in _marked(seed)]
    return np.array([*study.steps.tolist(), *(step for step in [max(marked, default=0)] if step > study.steps[-1])])


def _marked(seed: dict) -> list[int]:
    found = [one["interval_steps"][1] for test in TESTS for one in seed[test] or []]
    return found + ([seed["transition"]["end"]] if seed["transition"] else [])


def _draw_groups(axes: Axes, study: StudyData, test: str, letter: str) -> None:
    """Draw a row of dots per group that is left out: filled where a boundary of the study comes back."""
    phases, recurrence = study.phases, study.phases["recurrence"]
    shade_transition(axes, transition(phases))
    mark_boundaries(axes, boundaries_of(phases, test))
    for row, steps in enumerate(recurrence["all"][test], start=1):
        axes.plot(steps, [row] * len(steps), "o", markersize=3.4, markerfacecolor="white", color=GREY, linewidth=0)
    for one in recurrence[test]:
        there = [(step, row) for row, step in enumerate(one["places"], start=1) if step is not None]
        axes.plot(*np.reshape(there, (-1, 2)).T, "o", markersize=3.6, color=HUES[test], linewidth=0)
    count = recurrence["groups"]
    axes.set_ylim(count + 0.9, 0.1)
    axes.set_yticks(sorted({1, *range(4, count + 1, 4)}))
    axes.set_ylabel("group left out")
    labels = {one["step"]: f"{round(count * one['share'])} of {count}" for one in recurrence[test]}
    lines = _write_above(axes, labels)
    nothing = "" if labels else ": no boundary with all groups"
    head_panel(axes, letter, f"{TESTS[test]} without one group of prompts{nothing}", lift=LINE * lines)


def _write_above(axes: Axes, labels: dict[int, str]) -> int:
    """Write labels above a panel, each over its step and on the lowest line where it is free; say how many lines."""
    ends: list[float] = []  # of each line, in points
    width = 72 * (WIDTH - 0.8)
    for step, label in sorted(labels.items()):
        x = width * (axes.transScale + axes.transLimits).transform((step, 1))[0]
        half = len(label) * LETTER / 2
        line = next((line for line, end in enumerate(ends) if end <= x - half), len(ends))
        ends[line : line + 1] = [x + half]
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
        axes.annotate(label, (step, 1), (0, 2 + LINE * line), **place)
    return len(ends)


def _draw_seeds(axes: Axes, study: StudyData, seeds: list[dict], letter: str) -> None:
    """Draw a row per seed: its transition, and the boundaries of test A above those of test B."""
    for row, seed in enumerate(seeds):
        axes.axhline(row - 0.5, color=PALE, linewidth=0.5)
        if change := dated_transition(seed["transition"]):
            axes.fill_between([change.start, change.end], row - 0.5, row + 0.5, color=SHADE, alpha=0.6, linewidth=0)
        if seed["test_a"] is None:
            axes.text(0.01, row, "not tested", color=GREY, va="center", transform=axes.get_yaxis_transform())
        for test, offset in HALVES.items():
            for boundary in boundaries_of(seed, test):
                y = row + offset
                axes.hlines(y, boundary.low, boundary.high, color=HUES[test], linewidth=4, alpha=0.4)
                axes.vlines(boundary.step, y - 0.18, y + 0.18, color=HUES[test], linewidth=1.6)
    axes.set_yticks(range(len(seeds)), [seed["study"] for seed in seeds])
    axes.set_ylim(len(seeds) - 0.5, -0.5)
    for seed, label in zip(seeds, axes.get_yticklabels(), strict=True):
        label.set_weight("bold" if seed["study"] == study.name else "normal")
    head_panel(axes, letter, "Every seed, boundaries of test A above those of test B")


def _handles(phases: dict, seeds: Sequence[dict]) -> list[Artist]:
    """Explain what is drawn, and nothing else."""
    handles: list[Artist] = []
    if tested(phases):
        recurrence = phases["recurrence"]
        for test, name in TESTS.items():
            if any(step is not None for one in recurrence[test] for step in one["places"]):
                dot = {"marker": "o", "markersize": 3.6, "linewidth": 0}
                handles.append(Line2D([], [], color=HUES[test], label=f"{name}: the boundary comes back", **dot))
        if any(_elsewhere(recurrence, test) for test in TESTS):
            dot = {"marker": "o", "markersize": 3.4, "markerfacecolor": "white", "color": GREY, "linewidth": 0}
            handles.append(Line2D([], [], label="a boundary elsewhere", **dot))
    for test, name in TESTS.items():
        if any(seed[test] for seed in seeds):
            handles.append(
                Line2D([], [], color=HUES[test], linewidth=4, alpha=0.4, label=f"{name}: interval in a seed")
            )
    return handles + phase_handles(phases)


def _elsewhere(recurrence: dict, test: str) -> bool:
    """Whether any series has a boundary that is none of the study's."""
    back = [{one["places"][row] for one in recurrence[test]} for row in range(recurrence["groups"])]
    return any(set(steps) - there for steps, there in zip(recurrence["all"][test], back, strict=True))

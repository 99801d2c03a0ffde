"""Panels that set what a component does to the answer beside its out-strength."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, INK, layer_colours, plain_log_axis, say_undefined
from phasegraph.types import Kind

EFFECT = "answer_logit_difference_total"
"""Quantity of ``behaviour.parquet``: what a node's ablation takes from the logit difference, total effect."""
LABELS = {"raw": "out-strength (sum of weights)", "block": "out-strength (log ratio to block median)"}
NAMED = 6
"""Most components that are named in a panel, those with the largest effects first."""
WORTH = 0.1
"""Least effect that is named, as a share of the largest."""
APART = (0.16, 0.08)
"""Least distance of two names, in shares of the panel's width and height."""
STRIP = 0.14
"""Share of the width at the left that is kept for components without a score."""


def has_answers(study: StudyData) -> bool:
    """Whether effects on the logit difference were measured."""
    return EFFECT in study.behaviour["quantity"].unique().to_list()


def answer_handles() -> list[Line2D]:
    """Legend entries of the markers."""
    look = {"linestyle": "", "markersize": 4, "color": GREY}
    return [
        Line2D([], [], marker="s", label="MLP", **look),
        Line2D([], [], marker="o", markerfacecolor="white", label="no such strength", **look),
    ]


def draw_answers(axes: Axes, study: StudyData, kind: str) -> None:
    """Draw every component's effect on the answer over its out-strength, both with intervals, at the last checkpoint.

    Components that have no such strength stand in a strip at the left.
    """
    nodes = [node for node in study.nodes if study.components[node.index]]
    names, effects = study.node_scores(EFFECT)
    here = [names.index(node.name) for node in nodes]
    y, low, high = (effects[column][here, -1] for column in ("estimate", "low", "high"))  # [n]
    columns = (study.scores("spreader", kind, column) for column in ("estimate", "low", "high"))
    x, left, right = (values[study.components, -1] for values in columns)  # [n]
    if np.isnan(x).all():
        say_undefined(axes, "every component is alone\nin its layer and kind")
        axes.set_axis_off()
        return
    start = _set_scale(axes, kind, x)
    colours = layer_colours(max(node.layer for node in nodes) + 1)
    known, at = np.isfinite(x), np.where(np.isfinite(x), x, start)
    for i, node in enumerate(nodes):
        colour = colours[node.layer]
        axes.vlines(at[i], low[i], high[i], color=colour, linewidth=0.8)
        if known[i]:
            axes.hlines(y[i], left[i], right[i], color=colour, linewidth=0.8)
        look = {"marker": "s" if node.kind is Kind.MLP else "o", "markersize": 4, "linestyle": ""}
        axes.plot(at[i], y[i], color=colour, markerfacecolor=colour if known[i] else "white", zorder=3, **look)
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0.8)
    axes.set_xlabel(LABELS[kind])
    axes.set_ylabel("effect on the answer\n(logit difference)")
    _name(axes, [node.name for node in nodes], at, y)


def _set_scale(axes: Axes, kind: str, x: np.ndarray) -> float:
    """Set the x-axis, logarithmic for raw strengths; give the place of the strip for components without a score."""
    forth, back = (np.log, np.exp) if kind == "raw" else (np.asarray, np.asarray)
    with np.errstate(divide="ignore"):
        values = forth(x)
    values = values[np.isfinite(values)]
    span = max(float(np.ptp(values)), 1e-6) if len(values) else 1.0
    first, last = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if kind == "raw":
        axes.set_xscale("log")
    width = 1.2 * span / (1 - STRIP)  # with a margin of a tenth on both sides
    begin = first - 0.1 * span - STRIP * width
    axes.set_xlim(float(back(begin)), float(back(last + 0.1 * span)))
    if kind == "raw":
        plain_log_axis(axes.xaxis)
    if np.isnan(x).any():
        border = float(back(begin + STRIP * width))
        axes.axvline(border, color=GREY, linewidth=0.5, linestyle=":")
        for minor in (False, True):  # no place in the strip has a value
            ticks = axes.get_xticks(minor=minor)
            axes.set_xticks(ticks[(ticks > border) & (ticks < axes.get_xlim()[1])], minor=minor)
    return float(back(begin + STRIP * width / 2))


def _name(axes: Axes, names: list[str], x: np.ndarray, y: np.ndarray) -> None:
    """Name the components with the largest effects, unless a name with a larger effect is too near."""
    axes.autoscale_view(scalex=False)
    axes.set_ylim(axes.get_ylim())
    places = axes.transAxes.inverted().transform(axes.transData.transform(np.column_stack([x, y])))  # [n, 2]
    named: list[int] = []
    for i in np.argsort(-np.abs(y), kind="stable").tolist():
        near = any((np.abs(places[i] - places[j]) < APART).all() for j in named)
        if np.abs(y[i]) >= WORTH * np.nanmax(np.abs(y)) and not near and len(named) < NAMED:
            named.append(i)
            side = "right" if places[i][0] > 0.8 else "left"
            offset = (-5, 0) if side == "right" else (5, 0)
            axes.annotate(names[i], (x[i], y[i]), offset, textcoords="offset points", ha=side, va="center", color=INK)

"""Boundaries and the transition of behaviour, drawn the same way in all figures."""

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from phasegraph.report.evidence import Boundary, Transition, boundaries, too_few_text, transition
from phasegraph.report.style import GREY, INK

SHADE, BAR = "#f6e3b4", "#e0a62e"
"""Colours of the transition of behaviour: behind lines, and beside heatmaps."""

HATCHED = {"facecolor": "none", "edgecolor": "#a5afb9", "hatch": "//////", "linewidth": 0}
"""Look of the interval of a boundary's place."""


def mark_phases(axes: Axes, phases: dict) -> None:
    """Shade the transition of behaviour, and draw every boundary with its interval, across a panel over training."""
    shade_transition(axes, transition(phases))
    mark_boundaries(axes, boundaries(phases))


def shade_transition(axes: Axes, change: Transition | None) -> None:
    """Shade the transition of behaviour, if there is one, across a panel over training."""
    if change:
        axes.axvspan(change.start, change.end, color=SHADE, alpha=0.6, linewidth=0, zorder=0)


def say_untested(axes: Axes, phases: dict) -> None:
    """Say in an empty panel why nothing was tested; training goes on along its horizontal axis."""
    shade_transition(axes, transition(phases))
    axes.set_yticks([])
    axes.text(0.5, 0.5, too_few_text(phases), color=GREY, ha="center", va="center", transform=axes.transAxes)


def mark_boundaries(axes: Axes, found: list[Boundary]) -> None:
    """Draw boundaries with their intervals across a panel over training."""
    for boundary in found:
        axes.axvspan(boundary.low, boundary.high, zorder=0.5, **HATCHED)
        axes.axvline(boundary.step, color=INK, linewidth=0.9, linestyle=dashes(boundary.abrupt), zorder=1)


def mark_above(axes: Axes, phases: dict, lines: bool = True) -> None:
    """Mark the transition by a bar above a heatmap, where it hides no colour, and boundaries by lines across it."""
    if change := transition(phases):
        up = ScaledTranslation(0, 4 / 72, axes.figure.dpi_scale_trans)  # 4 points
        place = {"transform": axes.get_xaxis_transform() + up, "clip_on": False, "solid_capstyle": "butt"}
        axes.plot([change.start, change.end], [1, 1], color=BAR, linewidth=4, **place)
    for boundary in boundaries(phases) if lines else ():
        axes.axvline(boundary.step, color="white", linewidth=2, alpha=0.7)
        axes.axvline(boundary.step, color=INK, linewidth=0.9, linestyle=dashes(boundary.abrupt))


def phase_handles(phases: dict, intervals: bool = True) -> list[Artist]:
    """Legend entries of what is drawn for these phases, and of nothing else."""
    found = boundaries(phases)
    handles: list[Artist] = []
    for abrupt, name in ((True, "abrupt boundary"), (False, "gradual boundary")):
        if any(boundary.abrupt is abrupt for boundary in found):
            handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=dashes(abrupt), label=name))
    if found and intervals:
        label = "90 % interval of its place"
        handles.append(Patch(label=label, **HATCHED))
    if transition(phases):
        colour, alpha = (SHADE, 0.6) if intervals else (BAR, 1)
        handles.append(Patch(facecolor=colour, alpha=alpha, label="transition of behaviour"))
    return handles


def dashes(abrupt: bool) -> str:
    """Line style of a boundary."""
    return "-" if abrupt else "--"

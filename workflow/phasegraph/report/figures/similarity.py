"""Every checkpoint compared with every other, by three distances, raw and beyond noise."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator

from phasegraph.report.evidence import boundaries
from phasegraph.report.marks import dashes, mark_above, mark_phases, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import (
    GREY,
    INK,
    LINES,
    UNDEFINED,
    band,
    cell_edges,
    head_panel,
    log_scale,
    new_figure,
    step_axis,
    themed,
)

HIGHEST = 0.98
"""Quantile of the raw distances at which the colours end: the few largest would take most of the scale."""
NARROW = 0.03
"""Share of a heatmap's side below which a segment has no room for a letter."""
COLOURS = "magma_r"
LABELS = {
    "spearman": "upper triangles: 1 − Spearman's ρ",
    "jensen_shannon": "lower triangles: Jensen-Shannon divergence (bits)",
    "wasserstein": "Wasserstein distance of ln w",
}
"""Kind of distance -> label of its colours."""


@themed
def draw(study: StudyData) -> Figure:
    """Draw the distances between all pairs of checkpoints, and of each checkpoint to the one before and to the last.

    The two triangles of a heatmap hold two matrices of ``distances.npy`` or ``excess.npy``; colours of a distance are
    the same raw and beyond noise.
    """
    scales = {kind: _scale(study.distance(kind)) for kind in LABELS}
    figure = new_figure(8.7)
    grid = figure.add_gridspec(4, 2, height_ratios=[1, 0.045, 1, 0.045])
    raw, excess, third, strip = (figure.add_subplot(grid[row, column]) for row in (0, 2) for column in (0, 1))
    both, size = ("spearman", "jensen_shannon"), ("wasserstein", "wasserstein")
    _draw_pairs(raw, study, [study.distance(kind) for kind in both], [scales[kind] for kind in both])
    _draw_pairs(excess, study, [study.excess(kind) for kind in both], [scales[kind] for kind in both])
    _draw_pairs(third, study, [study.distance(size[0]), study.excess(size[1])], [scales[kind] for kind in size])
    head_panel(raw, "a", "All pairs of checkpoints", "raw", lift=9)
    head_panel(excess, "b", "All pairs of checkpoints", "beyond the noise of the prompts", lift=9)
    head_panel(third, "c", "Size of the weights", "raw above, beyond noise below", lift=9)
    _draw_strip(strip, study)
    _explain_both(figure, figure.add_subplot(grid[1, :]), scales)
    bar = _bar(figure, figure.add_subplot(grid[3, 0]), scales["wasserstein"])
    bar.set_label(LABELS["wasserstein"])
    figure.add_subplot(grid[3, 1]).set_axis_off()
    if handles := phase_handles(study.phases):
        figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.2)
    return figure


def _scale(distances: np.ndarray) -> Normalize:
    """Colours from no distance to nearly the largest."""
    known = distances[np.isfinite(distances)]
    return Normalize(0, (float(np.quantile(known, HIGHEST)) if known.size else 0.0) or 1.0)


def _draw_pairs(axes: Axes, study: StudyData, matrices: list[np.ndarray], scales: list[Normalize]) -> None:
    """Draw the upper triangle of one matrix [S, S] and the lower one of another."""
    edges, lower = cell_edges(study.steps), np.tri(len(study.steps), k=-1, dtype=bool)
    for matrix, scale, hidden in zip(matrices, scales, (lower, ~lower), strict=True):
        shown = np.ma.masked_where(hidden | np.isnan(matrix), matrix)
        axes.pcolormesh(edges, edges, shown, norm=scale, cmap=COLOURS, rasterized=True)
    step_axis(axes, study.steps)
    axes.set(yscale=axes.get_xscale(), ylabel="training step")
    axes.yaxis.set_major_locator(axes.xaxis.get_major_locator())
    axes.yaxis.set_major_formatter(axes.xaxis.get_major_formatter())
    axes.set(xlim=edges[[0, -1]], ylim=edges[[-1, 0]], facecolor=UNDEFINED)
    axes.set_box_aspect(1)
    axes.spines[:].set_visible(False)
    mark_above(axes, study.phases, lines=False)
    _box_regimes(axes, study)
    _letter_segments(axes, study)


def _box_regimes(axes: Axes, study: StudyData) -> None:
    """Draw each boundary as the sides at which the boxes of its two regimes meet."""
    found = boundaries(study.phases)
    corners = [study.steps[0], *(boundary.step for boundary in found), study.steps[-1]]
    for before, boundary, after in zip(corners, found, corners[2:], strict=False):
        for along, across in (((before, after), [boundary.step] * 2), ([boundary.step] * 2, (before, after))):
            axes.plot(along, across, color="white", linewidth=2.2, alpha=0.8)
            axes.plot(along, across, color=INK, linewidth=1, linestyle=dashes(boundary.abrupt))


def _letter_segments(axes: Axes, study: StudyData) -> None:
    """Write the first letter of each segment's label on the diagonal, if the segment is wide enough for it."""
    to_share = (axes.transScale + axes.transLimits).transform
    halo = [withStroke(linewidth=2, foreground="white", alpha=0.8)]
    for segment in study.phases["segments"]:
        corners = to_share([[segment[key]] * 2 for key in ("start_step", "end_step")])  # [2, 2]
        if np.ptp(corners[:, 0]) < NARROW:
            continue
        place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(*corners.mean(0), segment["label"][0].upper(), weight="bold", path_effects=halo, **place)


def _bar(figure: Figure, axes: Axes, scale: Normalize) -> Colorbar:
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), cax=axes, orientation="horizontal", ticks=_ticks(scale))
    bar.outline.set_visible(False)
    return bar


def _ticks(scale: Normalize) -> FixedLocator:
    """Choose a few round values, none at the very end of a bar, where its label would leave the figure."""
    values = MaxNLocator(5).tick_values(0, scale.vmax)
    return FixedLocator(values[(values >= 0) & (values < 0.96 * scale.vmax)])


def _explain_both(figure: Figure, axes: Axes, scales: dict[str, Normalize]) -> None:
    """Draw one colour bar with two scales: above it that of the upper triangles, below it that of the lower ones."""
    upper, lower = (scales[kind].vmax for kind in ("spearman", "jensen_shannon"))
    bar = _bar(figure, axes, scales["jensen_shannon"])
    bar.set_label(LABELS["jensen_shannon"])
    above = axes.secondary_xaxis("top", functions=(lambda x: x * upper / lower, lambda x: x * lower / upper))
    above.xaxis.set_major_locator(_ticks(scales["spearman"]))
    above.set_xlabel(LABELS["spearman"])
    above.spines[:].set_visible(False)


def _draw_strip(axes: Axes, study: StudyData) -> None:
    churn, excess = study.metric("churn"), study.metric("excess_churn")
    band(axes, study.steps, churn, LINES[0], "the one before")
    band(axes, study.steps, excess, LINES[2], "the same, beyond noise")
    last = study.distance("spearman")[-1]
    axes.plot(study.steps[:-1], last[:-1], color=LINES[1], label="the last")
    floor = study.metric("noise_floor")["estimate"]
    axes.plot(study.steps, floor, color=GREY, linewidth=0.8, label="itself: noise floor")
    axes.set_ylabel("1 − Spearman's ρ")
    head_panel(axes, "d", "Distance of a checkpoint from …", lift=25)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1, borderpad=0.2, columnspacing=1)
    log_scale(axes, churn["estimate"], floor, last)
    axes.set_box_aspect(1)
    step_axis(axes, study.steps)
    mark_phases(axes, study.phases)

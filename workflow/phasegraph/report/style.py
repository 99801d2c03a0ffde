"""What all figures share: sizes, colours, axes, and how a figure is written.

Fonts are at least 8 pt at the final width of 183 mm. Colours are Okabe and Ito's or perceptually uniform maps, so that
they stay apart for colour-blind readers and in print.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from phasegraph.files import atomic
from phasegraph.types import Kind

WIDTH = 7.2
"""Width of every figure in inches: two columns of a journal, 183 mm."""

INK, GREY, PALE = "#1b2733", "#6b7785", "#d5dae0"
SPREADER, GATHERER = "#d55e00", "#0072b2"
"""Hues of the two roles, the same everywhere."""
SPREADER_PEERS, GATHERER_PEERS = "#e69f00", "#56b4e9"
"""Lighter ones for their strength against peers."""
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Colours of lines that mean nothing else."""
BALANCE = LinearSegmentedColormap.from_list("balance", [GATHERER, "#8fbfdc", "#eeeeee", "#f0b184", SPREADER])
"""From gatherers to spreaders."""
ZERO = 1e-9
"""Differences below this are rounding errors, and leave a logarithmic axis."""
NULL = "#c9ced4"
"""Colour of where null graphs lie."""
UNDEFINED = "#c3c8cd"
"""Colour of what has no value in a heatmap."""

END_MARKERS = {Kind.EMBED: "D", Kind.LOGITS: "*"}
"""Markers of the nodes that are no components."""

THEME = sns.axes_style("ticks") | {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "svg.fonttype": "path",  # the same letters on every machine
    "svg.hashsalt": "phasegraph",  # ids by content: the same bytes every time
    "path.simplify": False,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "ytick.minor.size": 1.5,
    "ytick.minor.width": 0.5,
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "round",
    "hatch.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.2,
    "figure.constrained_layout.w_pad": 0.05,
    "figure.constrained_layout.h_pad": 0.05,
}


def themed(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorate a function that makes a figure, so that it uses the style of the report and arranges the axes once."""

    @wraps(draw)
    def inside(*arguments: object) -> Figure:
        with mpl.rc_context(THEME):
            figure = draw(*arguments)
            if engine := figure.get_layout_engine():
                engine.execute(figure)
                figure.set_layout_engine("none")  # else every format would arrange the axes again, which takes longest
            return figure

    return inside


def save(figure: Figure, svg: Path, png: Path) -> None:
    """Write a figure twice, with the same bytes every time.

    Parameters
    ----------
    figure
        Made by a `themed` function.
    svg, png
        Files to write.
    """
    with mpl.rc_context(THEME), atomic(svg) as vector, atomic(png) as pixels:
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(pixels, format="png", metadata={"Software": None})


def new_figure(height: float) -> Figure:
    """Start an empty figure of the common width and a height in inches, whose axes arrange themselves."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def colour_map(name: str, undefined: str) -> Colormap:
    """Give a colour map with a colour for what is undefined."""
    return mpl.colormaps[name].with_extremes(bad=undefined)


def layer_colours(layers: int) -> list[str]:
    """One colour per layer, the same sequential map everywhere, without the pale end that white paper swallows."""
    places = np.linspace(0, 0.8, layers) if layers > 1 else [0.4]
    return [to_hex(colour) for colour in mpl.colormaps["plasma"](places)]


def step_colours(count: int) -> list[str]:
    """One colour per checkpoint, early to late."""
    return [to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 0.92, count))]


def step_axis(axes: Axes, steps: np.ndarray, label: bool = True, ticks: int = 4) -> None:
    """Make the x-axis one of training steps, with about as many ticks.

    It is linear, or logarithmic from the first positive step on if half of the checkpoints lie in the first tenth of
    the run.
    """
    first, last = float(steps[0]), float(steps[-1])
    margin = 0.015 * (last - first) or 1.0
    limits = first - margin, last + margin
    if len(steps) > 2 and np.median(steps) < last / 10:
        smallest = float(steps[steps > 0][0])
        axes.set_xscale("symlog", linthresh=smallest)
        axes.xaxis.set_major_locator(FixedLocator(_decades(last, ticks)))
        axes.xaxis.set_minor_locator(NullLocator())
        limits = first - 0.15 * smallest, 1.2 * last  # about as wide as on a linear axis
    else:
        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(limits)
    if label:
        axes.set_xlabel("training step")


def cell_edges(steps: np.ndarray) -> np.ndarray:
    """Edges [S + 1] of the cells of a heatmap with one column per checkpoint: halfway to the neighbours."""
    if len(steps) < 2:
        return steps[0] + np.array([-0.5, 0.5])
    middles = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])


def log_scale(axes: Axes, *lines: np.ndarray) -> None:
    """Make the y-axis logarithmic over what the lines reach; intervals may go below, and zeros are cut off."""
    values = np.concatenate(lines)
    axes.set_yscale("log", nonpositive="clip")
    if (visible := values[values > ZERO]).size:
        axes.set_ylim(visible.min() / 2, visible.max() * 2)
    plain_log_axis(axes.yaxis)


def plain_log_axis(axis: mpl.axis.Axis) -> None:
    """Label a logarithmic axis with plain numbers where it spans less than two decades, else with powers."""
    low, high = sorted(axis.get_view_interval())
    if high < 100 * low:
        digits = (1, 2, 5) if high > 5 * low else range(1, 10)
        ticks = [digit * 10.0**power for power in range(-12, 13) for digit in digits]
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def head_panel(axes: Axes, letter: str, title: str, subtitle: str = "", legend: bool = False, lift: float = 0) -> None:
    """Head a panel with its bold letter and a title, and below them, still above the axes, a subtitle or a legend.

    Nothing that is put there can hide data. All of it is lifted by `lift` points.
    """
    above = lift + (17 if subtitle or legend else 5)
    points = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(letter, (0, 1), (-14, above), weight="bold", **points)
    axes.annotate(title, (0, 1), (0, above), **points)
    if legend:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1, borderpad=0.2, columnspacing=1)
    elif subtitle:
        axes.annotate(subtitle, (0, 1), (0, lift + 5), color=GREY, **points)


def band(axes: Axes, x: np.ndarray, values: dict[str, np.ndarray], colour: str, label: str = "") -> None:
    """Draw the estimates as a line and their interval as a band.

    Parameters
    ----------
    values
        ``estimate``, ``low`` and ``high``, [S] each; NaN leaves a gap.
    """
    axes.fill_between(x, values["low"], values["high"], color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, values["estimate"], color=colour, label=label)


def null_band(axes: Axes, x: np.ndarray, values: dict[str, np.ndarray]) -> None:
    """Shade where null graphs lie, from ``low`` to ``high`` [S] each, behind everything else."""
    axes.fill_between(x, values["low"], values["high"], color=NULL, linewidth=0, zorder=0.7)


def say_undefined(axes: Axes, why: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.text(0.5, 0.5, f"undefined:\n{why}", color=GREY, ha="center", va="center", transform=axes.transAxes)


def _decades(last: float, most: int) -> list[float]:
    """Give 0 and at most so many powers of ten, evenly spread, up to the last step."""
    count = int(np.log10(max(last, 1))) + 1
    return [0.0, *(10.0**power for power in range(0, count, -(-count // most)))]

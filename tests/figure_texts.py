"""Whether the texts of a figure can be read."""

import itertools

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from phasegraph.report import style


def written(figure):
    """Every visible text with the box that it takes, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    hidden = set()
    for axes in figure.findobj(Axes):
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            hidden |= set() if axes.axison else {axis.label}
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if not (axes.axison and min(limits) <= tick.get_loc() <= max(limits)):
                    hidden |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and text not in hidden:
            yield text, text.get_window_extent(renderer)


def check_texts(figure):
    """No text is too small, leaves the figure or touches another one."""
    with mpl.rc_context(style.THEME):
        figure.draw_without_rendering()
        texts_boxes = list(written(figure))
    width, height = figure.bbox.size
    for text, box in texts_boxes:
        assert text.get_fontsize() >= 8, text
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (text, box)
    for (one, a), (other, b) in itertools.combinations(texts_boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(overlap) <= 1.5, (one, other, overlap)

"""Curves as inline SVG, drawn by Matplotlib."""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from markupsafe import Markup

Curve = Sequence[tuple[float, float]]

COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
"""Of the curves, in their order; further ones begin again."""
_SIZE = (7.0, 2.8)  # inches
_RC_PARAMS: dict[Any, Any] = {  # Matplotlib 3.11 types the keys, 3.9 does not
    "svg.fonttype": "none",  # text stays text: it can be searched and selected
    "svg.hashsalt": "cyclestyle",  # the same ids in every run
    "text.parse_math": False,  # "$" in a name is a dollar sign
    "text.usetex": False,
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib, which measures the text with it
    "font.size": 9.0,
}


def draw_curves(curves: Mapping[str, Curve], *, x_label: str, y_label: str, id_prefix: str) -> Markup:
    """Draw curves in one coordinate system and return it as an `<svg>` element, without a legend.

    The output is deterministic: it contains no date, and its ids depend only on the content and on `id_prefix`.

    Args:
        curves: points `(x, y)` of each curve, by its name, in the order of `COLOURS`.
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis, with its unit.
        id_prefix: put before each id; unique on a page, since an HTML document has one namespace of ids.
    """
    import matplotlib  # imported here: it takes time that pages without curves do not need
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC_PARAMS):
        figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        for points, colour in zip(curves.values(), cycle(COLOURS), strict=False):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=colour, linewidth=1.5, marker="o" if len(points) == 1 else "", markersize=4)
        axes.locator_params(axis="x", integer=all(float(x).is_integer() for line in curves.values() for x, _ in line))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        axes.margins(x=0.02)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Markup(_inline(buffer.getvalue(), id_prefix))


def _inline(document: str, id_prefix: str) -> str:
    """Turn an SVG document into an element that can stand in HTML beside others.

    The XML declaration, the document type, namespaces and the global style rule are removed; ids get a prefix.
    """
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # its selector `*` would match the whole page

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", tag[0])
        return re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{id_prefix}", text)

    return re.sub(r"<[^>]+>", adapt, svg)

"""Figures to inline SVG: one style, colours that follow the page's, the same bytes for the same data.

Colours are drawn as placeholders and written as CSS variables, so that the page decides on light or dark. The palette
is that of Okabe & Ito (2008), which readers with a colour deficiency can tell apart; marks differ in shape as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "rule": "#030303",
    "paper": "#040404",
    "blue": "#050505",
    "orange": "#060606",
    "green": "#070707",
    "purple": "#080808",
    "grey": "#090909",
}
"""Placeholder of each colour; the page sets ``--ink``, ``--blue``, ..."""

WIDTH = 9.6
"""Inches of a figure; with 9 point text a line of it reads like the page's small print."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold dollar signs
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.7,
    "lines.linewidth": 1.4,
}
_DRAWING = re.compile(r"<svg\b.*</svg>", re.DOTALL)
_STYLE_ELEMENT = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_TAG = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>")
_FONT = re.compile(r"font-family: [^;\"]*")
_IDENTIFIER = re.compile(r"\bid=\"|\burl\(#|xlink:href=\"#")


def draw(name: str, title: str, height: float, paint: Callable[[Figure], None], *, width: float = WIDTH) -> Markup:
    """Return a figure as an inline SVG that fills the width it is given.

    Parameters
    ----------
    name
        Of the figure, unique on the page; its identifiers begin with it.
    title
        What it shows, for readers who do not see it.
    height, width
        In inches.
    paint
        Draws on the empty figure.
    """
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return Markup(_inline(stream.getvalue(), name, title))  # matplotlib escapes the text it writes


def _inline(document: str, name: str, title: str) -> str:
    """Return the drawing of an SVG document, fit to stand in a page."""
    found = _DRAWING.search(document)
    assert found is not None, "matplotlib writes one svg element"
    drawing = _STYLE_ELEMENT.sub("", found.group())  # its rules would hold for the whole page
    drawing = _IDENTIFIER.sub(lambda match: match.group().replace("xlink:", "") + f"{name}-", drawing)
    drawing = _FONT.sub("font-family: inherit", drawing)
    for colour, placeholder in COLOURS.items():
        drawing = drawing.replace(placeholder, f"var(--{colour})")
    opening = f'<svg class="chart" role="img" aria-labelledby="{name}-title" viewBox="\\1">'
    return _TAG.sub(f'{opening}<title id="{name}-title">{_literal(title)}</title>', drawing, count=1)


def _literal(text: str) -> str:
    return str(escape(text)).replace("\\", r"\\")


def number_label(value: float, _: object = None) -> str:
    """Return a tick of a logarithmic axis in digits."""
    return f"{value:g}"


def quiet(axes: Axes) -> None:
    """Take off the vertical axis of a panel that has no quantity there."""
    axes.grid(visible=False)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)

"""Line charts as inline SVG: deterministic, without external resources, in the colours of the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

# Placeholder colours: `_inline` replaces them by CSS variables, so one drawing serves light and dark themes.
_INK, _GRID = "#010203", "#040506"
_SERIES = ("#070809", "#0a0b0c", "#0d0e0f", "#101112")
_MARKERS, _DASHES = ("o", "s", "^", "D"), ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Line:
    """A line of a chart: one value per epoch; a value that is not finite leaves a gap."""

    name: str
    values: tuple[float, ...]
    colour: int = 0  # index of the series colour of the page


def line_chart(key: str, title: str, y_label: str, lines: Sequence[Line], digits: int = 2) -> str | None:
    """Draw values against epochs.

    Args:
        key: Prefix of the chart's element ids, unique on the page.
        title: Heading of the chart; screen readers read it, too.
        y_label: Label of the vertical axis, with its unit.
        lines: Lines to draw.
        digits: Decimals in the description for screen readers.

    Returns:
        An ``<svg>`` element, or None if no value is finite.
    """
    drawn = [line for line in lines if any(math.isfinite(value) for value in line.values)]
    if not drawn:
        return None
    # Fonts have no glyph for a control character or half an emoji.
    drawn = [replace(line, name="".join(filter(str.isprintable, line.name))) for line in drawn]
    described = "; ".join(
        f"{line.name}: "
        + ", ".join(f"{value:.{digits}f}" if math.isfinite(value) else "none" for value in line.values)
        for line in drawn
    )
    return _inline(_draw(key, title, y_label, drawn), key, title, f"{y_label} by epoch. {described}.")


def _draw(key: str, title: str, y_label: str, lines: Sequence[Line]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style: dict[Any, object] = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": key,  # so that the same data give the same bytes
        "text.parse_math": False,
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _GRID,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for line in lines:
            shape = line.colour % len(_SERIES)
            axes.plot(
                range(1, len(line.values) + 1),
                line.values,
                color=_SERIES[shape],
                marker=_MARKERS[shape],
                linestyle=_DASHES[shape],
                linewidth=1.8,
                markersize=4.5,
                label=line.name,
            )
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel("epoch")
        axes.set_ylabel(y_label)
        last = max(len(line.values) for line in lines)
        axes.set_xlim(1 - 0.05 * last, last + 0.05 * last)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=min(last, 10), integer=True, min_n_ticks=1))
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(y=0.12)
        axes.legend(frameon=False, handlelength=2.6, labelcolor=_INK)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _inline(svg: str, key: str, title: str, description: str) -> str:
    """Convert an SVG file to an element of an HTML page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    body = body[body.index(">") + 1 :]
    # Ids must be unique on a page, and matplotlib gives all charts the same ids.
    body = re.sub(r'(?<= )id="', f'id="{key}-', body)
    body = body.replace("url(#", f"url(#{key}-").replace('xlink:href="#', f'href="#{key}-')
    body = re.sub(r"font-family: [^;\"]*; ", "", body)  # the page sets the font
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # it styles every chart
    body = body.replace(_INK, "currentColor").replace(_GRID, "var(--rule)")
    for place, colour in enumerate(_SERIES, start=1):
        body = body.replace(colour, f"var(--series-{place})")
    return (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(description)}</desc>{body}'
    )

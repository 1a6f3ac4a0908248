"""What figures are made of: SVG that is as wide as the page, with text that keeps its size.

Places across and up are shares of the drawing, so that it fits a telephone and a wall; sizes of
marks and letters are pixels. Lines are drawn in a square of their own, which is stretched.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.inspect.report.markup import Markup, element, join, percent, text
from workloads.roofline import Bound

SIDE = 1000
"""Length of the sides of the square that lines are drawn in."""


class Place(NamedTuple):
    """Where something lies: shares of width, from the left, and of height, from below."""

    across: float
    up: float


SHAPES = {
    # so that a bound is told by more than its colour: paths around 0, 0
    Bound.COMPUTE: "M-5,5H5L0,-6Z",
    Bound.MEMORY: "M-4.5,-4.5H4.5V4.5H-4.5Z",
    Bound.LINK: "M0,-6.5L6.5,0L0,6.5L-6.5,0Z",
    Bound.IO: "M-6,-5H6L0,6Z",
}
ROUND = "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z"


def drawing(summary: str, height: int, *children: Markup | None, class_: str = "") -> Markup:
    """Return a drawing of so many pixels' height, with a summary for those who cannot see it."""
    return element(
        "svg",
        *children,
        class_=f"drawing {class_}".rstrip(),
        height=height,
        role="img",
        aria_label=summary,
    )


def lines(*paths: Markup) -> Markup:
    """Return paths in the stretched square."""
    return element(
        "svg",
        *paths,
        class_="lines",
        width="100%",
        height="100%",
        viewBox=f"0 0 {SIDE} {SIDE}",
        preserveAspectRatio="none",
    )


def path(pieces: Iterable[Sequence[Place]], class_: str) -> Markup:
    """Return a line in pieces; a piece of one point is a dot, which round ends make visible."""
    drawn = "".join("M" + "L".join(map(_coordinates, _seen(piece))) for piece in pieces if piece)
    return element("path", d=drawn, class_=class_)


def area(above: Sequence[Place], below: Sequence[Place], class_: str) -> Markup:
    """Return the area between two lines that begin and end at the same places across."""
    around = [*above, *reversed(below)]
    return element("path", d="M" + "L".join(map(_coordinates, around)) + "Z", class_=class_)


def shade(begin: float, end: float, words: str, class_: str | None = None) -> Markup:
    """Return a stripe from top to bottom, with words for who points at it."""
    return element(
        "rect",
        element("title", words),
        x=percent(begin),
        width=percent(end - begin),
        height="100%",
        class_=class_,
    )


def grid(across: Iterable[float], up: Iterable[float]) -> Markup:
    """Return thin lines at marks."""
    upright = [element("line", x1=percent(x), x2=percent(x), y2="100%") for x in across]
    level = [element("line", y1=percent(1 - y), y2=percent(1 - y), x2="100%") for y in up]
    return element("g", *upright, *level, class_="grid")


def labels(across: Iterable[tuple[float, str]], up: Iterable[tuple[float, str]]) -> Markup:
    """Return the numbers of the axes, below and to the left."""
    below = [
        element("text", words, x=percent(x), y="100%", dy="1.3em", text_anchor=_anchor(x))
        for x, words in across
    ]
    left = [
        element("text", words, x="-6", y=percent(1 - y), dy="0.35em", text_anchor="end")
        for y, words in up
    ]
    return element("g", *below, *left, class_="labels")


def at(place: Place, *children: Markup, words: str = "") -> Markup:
    """Return children that are drawn around a place, in pixels."""
    title = element("title", words) if words else None
    return element(
        "svg", title, *children, x=percent(place.across), y=percent(1 - place.up), class_="at"
    )


def mark(bound: Bound, class_: str = "mark") -> Markup:
    """Return the mark of a bound: its colour and its shape."""
    return element("path", d=SHAPES.get(bound, ROUND), class_=f"{class_} {bound.value}")


def bar(shares: Iterable[tuple[Bound, float]]) -> Markup:
    """Return a bar of which each part is as long as its share; the words stand beside it."""
    parts, begin = [], 0.0
    for bound, share in shares:
        words = f"{bound.value} {share:.0%}"
        parts.append(shade(begin, begin + share, words, bound.value))
        begin += share
    return element("svg", *parts, class_="bar", height=14, aria_hidden="true")


def legend_mark(bound: Bound) -> Markup:
    """Return the mark of a bound as it stands in text."""
    return element("svg", mark(bound), class_="swatch", viewBox="-8 -8 16 16", aria_hidden="true")


def legend_line(class_: str) -> Markup:
    """Return a piece of a line as it stands in text."""
    piece = element("path", d="M0,5H24", class_=class_)
    return element(
        "svg", piece, class_="swatch line-swatch", viewBox="0 0 24 10", aria_hidden="true"
    )


def key(*entries: Markup) -> Markup:
    """Return what the marks of a figure mean."""
    return element("p", *(element("span", each) for each in entries), class_="key")


def bounds_key(bounds: Iterable[Bound]) -> Markup:
    """Return what the marks and colours of bounds mean."""
    shown = set(bounds)
    return key(*(join(legend_mark(each), text(each.value)) for each in Bound if each in shown))


def _seen(piece: Sequence[Place]) -> Sequence[Place]:
    return piece if len(piece) > 1 else [*piece, *piece]


def _coordinates(place: Place) -> str:
    return f"{SIDE * place.across:.1f},{SIDE * (1 - place.up):.1f}"


def _anchor(share: float) -> str:
    """Return how a number stands to its mark, so that it stays on the page."""
    return "start" if share < 0.02 else "end" if share > 0.95 else "middle"

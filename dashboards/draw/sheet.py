"""A page to draw on, in the pixels of a browser's window, from its top left corner."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path

from dashboards.draw.colors import Theme

WIDTH = 1280
"""Pixels of the window."""

SCALE = 1.25
"""Pixels of the picture for one of the window: letters stay readable at half the size."""

DOTS_PER_INCH = 100
POINTS_PER_PIXEL = 72 / DOTS_PER_INCH

SMALL, NORMAL, TITLE = 12.0, 12.5, 14.0
"""Heights of letters, in pixels of the window."""

FAMILY = "DejaVu Sans"
"""The one family that matplotlib brings, so that pictures look alike wherever they are made."""

MORE = "…"

Side = Literal["left", "center", "right"]


class Box(NamedTuple):
    """A rectangle on the page, in pixels of the window."""

    left: float
    top: float
    width: float
    height: float

    def within(
        self, left: float = 0.0, top: float = 0.0, right: float = 0.0, bottom: float = 0.0
    ) -> "Box":
        """Return what margins leave of it."""
        width, height = self.width - left - right, self.height - top - bottom
        return Box(self.left + left, self.top + top, max(width, 1.0), max(height, 1.0))

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Where it ends below."""
        return self.top + self.height


@cache
def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """Return how wide words are."""
    points, _, _ = text_to_path.get_text_width_height_descent(text, font(size, bold=bold), False)
    return points / POINTS_PER_PIXEL


def font(size: float, *, bold: bool = False) -> FontProperties:
    """Return the letters of a height in pixels."""
    weight = "bold" if bold else "normal"
    return FontProperties(family=FAMILY, size=size * POINTS_PER_PIXEL, weight=weight)


def fitted(text: str, size: float, width: float, *, bold: bool = False) -> str:
    """Return as much of the words as fits, with a sign where some are missing."""
    if width_of(text, size, bold=bold) <= width:
        return text
    end = len(text)
    while end and width_of(text[:end].rstrip() + MORE, size, bold=bold) > width:
        end -= 1
    return text[:end].rstrip() + MORE if end else ""


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Return the words in lines that fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@dataclass(frozen=True)
class Sheet:
    """A figure of matplotlib as one page.

    Attributes:
        height: in pixels of the window.
        theme: its colours.
        figure: what is drawn so far.

    """

    height: float
    theme: Theme
    figure: Figure

    @classmethod
    def new(cls, height: float, theme: Theme) -> "Sheet":
        """Return an empty page."""
        inches = (WIDTH / DOTS_PER_INCH, height / DOTS_PER_INCH)
        figure = Figure(figsize=inches, dpi=DOTS_PER_INCH * SCALE, facecolor=theme.page)
        FigureCanvasAgg(figure)
        return cls(height, theme, figure)

    def plate(self, box: Box, name: str) -> "Plate":
        """Return a part of the page; everything drawn on it carries the name."""
        return Plate(self, box, name)

    def point(self, left: float, top: float) -> tuple[float, float]:
        """Return a place as the figure counts it: shares of its size, from below."""
        return left / WIDTH, 1 - top / self.height


@dataclass(frozen=True)
class Plate:
    """A part of the page, such as a panel; places are those of the page."""

    sheet: Sheet
    box: Box
    name: str

    @property
    def theme(self) -> Theme:
        """The page's colours."""
        return self.sheet.theme

    def part(self, box: Box) -> "Plate":
        """Return a part of it under the same name."""
        return Plate(self.sheet, box, self.name)

    def text(
        self,
        left: float,
        middle: float,
        words: str,
        *,
        size: float = NORMAL,
        color: str = "",
        side: Side = "left",
        bold: bool = False,
        edged: bool = False,
    ) -> None:
        """Write words, whose middle is as high as said; `edged` to be read over lines."""
        edge = withStroke(linewidth=3, foreground=self.theme.panel)
        self.sheet.figure.text(
            *self.sheet.point(left, middle),
            words,
            color=color or self.theme.text,
            fontproperties=font(size, bold=bold),
            ha=side,
            va="center_baseline",
            parse_math=False,
            path_effects=[edge] if edged else None,
            gid=self.name,
        )

    def fill(self, box: Box, color: str, *, edge: str = "", rounded: float = 0.0) -> None:
        """Fill a rectangle."""
        corner = self.sheet.point(box.left, box.bottom)
        across, down = box.width / WIDTH, box.height / self.sheet.height
        patch = FancyBboxPatch(
            corner,
            across,
            down,
            boxstyle=f"round,pad=0,rounding_size={rounded / WIDTH}" if rounded else "square,pad=0",
            mutation_aspect=WIDTH / self.sheet.height,
            facecolor=color,
            edgecolor=edge or "none",
            linewidth=POINTS_PER_PIXEL,
            transform=self.sheet.figure.transFigure,
            gid=self.name,
        )
        self.sheet.figure.add_artist(patch)

    def line(
        self,
        across: Sequence[float],
        down: Sequence[float],
        color: str,
        width: float = 1.0,
    ) -> None:
        """Draw a line from place to place."""
        points = [self.sheet.point(*place) for place in zip(across, down, strict=True)]
        line = Line2D(
            [left for left, _ in points],
            [top for _, top in points],
            color=color,
            linewidth=width * POINTS_PER_PIXEL,
            transform=self.sheet.figure.transFigure,
            gid=self.name,
        )
        self.sheet.figure.add_artist(line)

    def axes(self, box: Box) -> Axes:
        """Return axes that fill a rectangle."""
        left, bottom = self.sheet.point(box.left, box.bottom)
        place = (left, bottom, box.width / WIDTH, box.height / self.sheet.height)
        axes = self.sheet.figure.add_axes(place, facecolor="none", zorder=2.5)
        axes.set_gid(self.name)
        return axes

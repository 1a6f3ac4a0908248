"""Figures over the job's time: phases, bounds, and one panel for each kind of thing."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from agent.inspect.report.drawing import (
    Place,
    area,
    bounds_key,
    drawing,
    grid,
    key,
    labels,
    legend_line,
    lines,
    path,
    shade,
)
from agent.inspect.report.markup import Markup, element, join, percent, text
from agent.inspect.report.scales import Scale, mark_words, scale, time_marks, time_words
from agent.inspect.report.spans import Span, mean_shares
from agent.inspect.series import MOST_LINES, Line, Panel, Point, Shares, Timelines
from agent.inspect.units import show, show_seconds
from workloads.roofline import Bound

PANEL_HEIGHT = 110
RIBBON_HEIGHT = 22
STRIP_HEIGHT = 16


class Clock:
    """Where moments lie on the job's time."""

    def __init__(self, timelines: Timelines) -> None:
        self._since_ms = timelines.since_ms
        self._span_ms = max(1, timelines.until_ms - timelines.since_ms)
        self.every_ms = timelines.every_ms

    def share(self, moment_ms: float) -> float:
        """Return how far into the job a moment is: 0 to 1."""
        return min(1.0, max(0.0, (moment_ms - self._since_ms) / self._span_ms))

    def middle(self, end_ms: float) -> float:
        """Return where the middle of a window lies that ends at a moment."""
        return self.share(end_ms - self.every_ms / 2)

    def words(self, moment_ms: float) -> str:
        """Return a moment as time since the start."""
        return show_seconds(max(0.0, (moment_ms - self._since_ms) / 1000))

    def marks(self) -> list[tuple[float, str]]:
        """Return round moments with their places."""
        seconds = self._span_ms / 1000
        return [(each / seconds, time_words(each)) for each in time_marks(seconds)]


def ribbon(spans: Sequence[Span], clock: Clock) -> Markup:
    """Return the phases over time; of those that took turns, each has its share of the height."""
    parts = [each for span in spans for each in _ribbon_parts(span, clock)]
    ends = [*(clock.share(span.begin_ms) for span in spans[1:]), 1.0]
    names = [_ribbon_name(span, clock, end) for span, end in zip(spans, ends, strict=True)]
    summary = "; ".join(
        f"{span.words()}, {clock.words(span.begin_ms)} to {clock.words(span.end_ms)}"
        for span in spans
    )
    drawn = drawing(
        f"Phases over time: {summary}", 2 * RIBBON_HEIGHT, *names, *parts, class_="ribbon"
    )
    bounds = [span.bound_of(part) for span in spans for part in span.parts]
    return element(
        "figure", element("figcaption", element("b", "When phases ran")), drawn, bounds_key(bounds)
    )


def _ribbon_parts(span: Span, clock: Clock) -> Iterable[Markup]:
    begin, end = clock.share(span.begin_ms), clock.share(span.end_ms)
    whole = sum(part.seconds for part in span.parts) or 1.0
    top = 0.5
    for part in span.parts:
        height = 0.5 * part.seconds / whole
        yield element(
            "rect",
            element("title", f"{span.words(part)}, {show_seconds(part.seconds)}"),
            x=percent(begin),
            y=percent(top),
            width=percent(end - begin),
            height=percent(height),
            class_=span.bound_of(part).value,
        )
        top += height


def _ribbon_name(span: Span, clock: Clock, end: float) -> Markup:
    """Return the name above its stretch, cut off where the next begins."""
    begin = clock.share(span.begin_ms)
    return element(
        "svg",
        element("text", span.name, x="1", y="14"),
        x=percent(begin),
        width=percent(end - begin),
        height=RIBBON_HEIGHT,
    )


def strips(bounds: Mapping[str, Shares], clock: Clock) -> Markup:
    """Return what each GPU was under when; all together where they are many."""
    if len(bounds) > MOST_LINES:
        rows = [_mixture(bounds, clock)]
    else:
        rows = [_strip(name, shares, clock) for name, shares in bounds.items()]
    shown = {bound for shares in bounds.values() for each in shares.values() for bound in each}
    caption = element("figcaption", element("b", "Bound of the GPUs"))
    return element("figure", caption, *rows, bounds_key(shown))


def _strip(name: str, shares: Shares, clock: Clock) -> Markup:
    """Return a GPU's strip: for each window, what it was under for most of it."""
    runs = groupby(
        ((end_ms, max(each, key=each.__getitem__)) for end_ms, each in shares.items()),
        key=lambda pair: pair[1],
    )
    pieces = []
    for bound, run in runs:
        ends = [end_ms for end_ms, _ in run]
        begin_ms, end_ms = ends[0] - clock.every_ms, ends[-1]
        words = f"{name}: {bound.value}, {clock.words(begin_ms)} to {clock.words(end_ms)}"
        pieces.append(shade(clock.share(begin_ms), clock.share(end_ms), words, bound.value))
    drawn = drawing(f"{name} over time: {_mostly(shares)}", STRIP_HEIGHT, *pieces, class_="strip")
    return element("div", element("span", name, class_="row-name"), drawn, class_="strip-row")


def _mixture(bounds: Mapping[str, Shares], clock: Clock) -> Markup:
    """Return for each window the share of the GPUs under each bound, one above the other."""
    together = mean_shares(bounds.values())
    pieces = []
    for end_ms, shares in together.items():
        top = 1.0
        begin = clock.share(end_ms - clock.every_ms)
        for bound in (each for each in Bound if each in shares):
            top -= shares[bound]
            words = f"{clock.words(end_ms)}: {shares[bound]:.0%} {bound.value}"
            pieces.append(
                element(
                    "rect",
                    element("title", words),
                    x=percent(begin),
                    y=percent(max(0.0, top)),
                    width=percent(clock.share(end_ms) - begin),
                    height=percent(shares[bound]),
                    class_=bound.value,
                )
            )
    summary = f"{len(bounds)} GPUs over time: {_mostly(together)}"
    return drawing(summary, PANEL_HEIGHT, *pieces, labels((), ((0, "0"), (1, "all"))))


def _mostly(shares: Shares) -> str:
    """Say how much of the windows was under which bound, the longest first."""
    sums = {bound: sum(each.get(bound, 0.0) for each in shares.values()) for bound in Bound}
    whole = sum(sums.values()) or 1.0
    ranked = sorted(sums, key=sums.__getitem__, reverse=True)
    return ", ".join(f"{bound.value} {sums[bound] / whole:.0%}" for bound in ranked if sums[bound])


def is_still(panel: Panel) -> bool:
    """Tell whether nothing of a panel ever moved."""
    return all(point.high == 0 for line in panel.lines for point in line.points)


def panel_figure(panel: Panel, spans: Iterable[Span], clock: Clock) -> Markup:
    """Return one panel: lines over the job's time, on phases in the colour of their bound."""
    highest = max(point.high for line in panel.lines for point in line.points)
    up = scale(highest, panel.unit)
    kind = "gpu" if panel.title.startswith("GPU") and len(panel.lines) > 2 else "line"
    summaries = [_line_words(line, panel.unit) for line in panel.lines]
    drawn = drawing(
        f"{panel.title} over time. {'; '.join(summaries)}",
        PANEL_HEIGHT,
        *(_phase_shade(span, clock) for span in spans),
        grid((x for x, _ in clock.marks()), (up.share(each) for each in up.marks)),
        labels(
            clock.marks(), ((up.share(each), mark_words(each, panel.unit)) for each in up.marks)
        ),
        lines(*_paths(panel, up, clock, kind)),
        _readings(panel, clock),
        class_="panel",
    )
    entries = [
        join(legend_line(f"line {kind}{number}"), text(words))
        for number, words in enumerate(summaries)
    ]
    caption = element("figcaption", element("b", panel.title), _several_words(panel))
    return element("figure", caption, drawn, key(*entries))


def _several_words(panel: Panel) -> str:
    """Say what the lines stand for, where each is that of several hosts or GPUs."""
    if not panel.several:
        return ""
    banded = f"{panel.lines[0].name}, " if len(panel.lines) > 1 else ""
    return f", mean of {panel.several}; the band: {banded}lowest to highest"


def _phase_shade(span: Span, clock: Clock) -> Markup:
    begin, end = clock.share(span.begin_ms), clock.share(span.end_ms)
    return shade(begin, end, span.words(), f"shade {span.bound.value}")


def _paths(panel: Panel, up: Scale, clock: Clock, kind: str) -> list[Markup]:
    """Return bands first, so that none covers a line, and the first line last, above the others.

    A band is the range within a window. Only the first of several lines has one, unless each is
    that of a GPU.
    """
    banded = panel.lines if panel.title.startswith("GPU") and not panel.several else panel.lines[:1]
    bands = [
        area(
            [Place(clock.middle(point.end_ms), up.share(point.high)) for point in piece],
            [Place(clock.middle(point.end_ms), up.share(point.low)) for point in piece],
            f"band {kind}{number}",
        )
        for number, line in enumerate(banded)
        for piece in line.pieces()
        if len(piece) > 1 and any(point.low < point.high for point in piece)
    ]
    drawn = [
        path([_places(piece, up, clock) for piece in line.pieces()], f"line {kind}{number}")
        for number, line in enumerate(panel.lines)
    ]
    return [*bands, *reversed(drawn)]


def _places(piece: Iterable[Point], up: Scale, clock: Clock) -> list[Place]:
    return [Place(clock.middle(point.end_ms), up.share(point.mean)) for point in piece]


def _line_words(line: Line, unit: str) -> str:
    """Return the line's name and its highest value."""
    highest = max(point.high for point in line.points)
    return f"{line.name}: up to {show(highest, unit)}"


def _readings(panel: Panel, clock: Clock) -> Markup:
    """Return for each window an unseen stripe that tells its numbers to who points at it."""
    windows: dict[int, list[str]] = {}
    for line in panel.lines:
        for point in line.points:
            reading = f"{line.name} {show(point.mean, panel.unit)}"
            windows.setdefault(point.end_ms, []).append(reading)
    stripes = []
    for end_ms, words in sorted(windows.items()):
        begin, end = clock.share(end_ms - clock.every_ms), clock.share(end_ms)
        stripes.append(shade(begin, end, f"{clock.words(end_ms)}: {', '.join(words)}"))
    return element("g", *stripes, class_="readings")

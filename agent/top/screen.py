"""The whole screen: from a look and the user's choices to lines. Nothing else decides on it."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from agent.top import jobscreen, nodescreen
from agent.top.gpurows import BOUNDS
from agent.top.keys import Reach, State
from agent.top.model import Frame, Host, Process
from agent.top.notices import WARN, Notice, notices
from agent.top.paint import Line, Piece, cut, left, line

FEWEST_ROWS = 4
"""With less room for processes than this, everything under the notices scrolls."""

MOST_PRINTED = 20
"""Processes in a frame that is printed and not scrolled."""

ROOMY_FROM = 30
"""Lines of a screen with room for more notices and for what the signs mean."""

MANY, FEW, FEW_GPUS = 6, 3, 4

FIRST = "rooflight top: taking a first look ..."

KEYS = (
    ("q F10", "quit"),
    ("h F1", "this page"),
    ("P M T N", "sort by cpu, memory, time or pid; a job's hosts: T heat, N name"),
    ("G", "processes that hold a GPU first; a job's hosts by GPU utilization"),
    ("F6 I", "sort by the next column; turn the order round"),
    ("arrows", "scroll; so do PgUp, PgDn, Home and End"),
    ("g", "a job's hosts with or without their GPUs"),
    ("job, cpu", "in a host's bar: of the job's own CPUs, or of the whole node"),
    ("comp, mem", "shares that a GPU reaches of its compute and memory roof (120 columns)"),
    ("space", "stop the screen, and let it go on"),
    ("+ -", "look less often, more often"),
)
SIGNS = (
    ("compute", "compute: at the roof of its arithmetic; only more FLOP/s help"),
    ("memory", "memory: at the roof of its memory bandwidth; move fewer bytes"),
    ("link", "link: waits for PCIe or NVLink"),
    ("latency", "latency: under no roof; launches, waiting, work too small"),
    ("balanced", "balanced: compute and memory are equally near"),
    ("idle", "idle: no kernel runs"),
    ("unknown", "unknown: no counters (GPM, DCGM), and like no reference phase"),
)

NOTHING = Notice("good", "nothing stands out")


class Screen(NamedTuple):
    """What a terminal shows, and how far the list on it goes."""

    lines: Sequence[Line]
    reach: Reach = Reach()


class Parts(NamedTuple):
    """What a view is made of: lines that stay, the list's heading, and the list.

    Attributes:
        items: of the list; they may be thousands, and are made into lines as they are shown.
        make: makes a line of one.

    """

    fixed: Sequence[Line]
    heading: Line
    items: Sequence[Line | Process]
    make: Callable[[Process], Line]

    def lines(self, items: Iterable[Line | Process]) -> list[Line]:
        """Return the lines of some items."""
        return [self.make(item) if isinstance(item, Process) else item for item in items]


def render(frame: Frame | None, state: State, width: int, height: int) -> Screen:
    """Return a full screen."""
    if state.help:
        return _scrolled(help_lines(frame, width), state.offset, width, height)
    if frame is None:
        return _scrolled([line(FIRST)], 0, width, height)
    roomy = height >= ROOMY_FROM
    top = [_title(frame, state, width), *_notice_lines(frame, MANY if roomy else FEW)]
    parts = _parts(frame, state, width, roomy=roomy)
    room = max(1, height - len(top) - 1)
    items: Sequence[Line | Process] = parts.items
    if room - len(parts.fixed) - 1 >= min(FEWEST_ROWS, len(items)):
        top += [*parts.fixed, parts.heading]
    else:
        items = [*parts.fixed, parts.heading, *items]
    reach = Reach(len(items), max(1, height - len(top) - 1))
    first = min(state.offset, reach.last)
    shown = parts.lines(items[first : first + reach.page])
    blank = [line("")] * (reach.page - len(shown))
    lines = [*top, *shown, *blank, _footer(frame, reach, first, width)]
    return Screen([cut(each, width) for each in lines[:height]], reach)


def print_lines(frame: Frame, state: State, width: int) -> list[Line]:
    """Return a frame to be printed: all GPUs and hosts, and the first processes."""
    parts = _parts(frame, state, width, roomy=True)
    rows = parts.lines(parts.items if frame.job else parts.items[:MOST_PRINTED])
    head = [_title(frame, state, width), *_notice_lines(frame, most=None)]
    return [cut(each, width) for each in (*head, *parts.fixed, parts.heading, *rows)]


def _parts(frame: Frame, state: State, width: int, *, roomy: bool) -> Parts:
    host = frame.hosts[0] if frame.hosts and not frame.job else Host("")
    jobs = any(process.job for process in host.processes)
    make = partial(nodescreen.process_row, width=width, jobs=jobs)
    if frame.job:
        heading, rows = jobscreen.host_block(frame, state, width)
        return Parts([], heading, rows, make)
    heading = nodescreen.process_heading(state, width, jobs=jobs)
    gpus = nodescreen.gpu_block(frame, host, width, signs=roomy or len(host.gpus) <= FEW_GPUS)
    fixed = [*gpus, *nodescreen.host_block(host, width)]
    return Parts(fixed, heading, nodescreen.in_order(host, state), make)


def _title(frame: Frame, state: State, width: int) -> Line:
    clock = time.strftime("%H:%M:%S", time.localtime(frame.at_ms / 1000))
    pace = "PAUSED" if state.paused else f"every {state.interval:g}s"
    end = f"  {clock}  {pace} "
    what = "rooflight top"
    if frame.job:
        what = jobscreen.title(frame.job)
    elif frame.hosts:
        what = nodescreen.title(frame.hosts[0])
    return line(Piece(left(f" {what}", max(0, width - len(end))) + end, "title"))


def _notice_lines(frame: Frame, most: int | None) -> list[Line]:
    found = notices(frame) or [NOTHING]
    if most is not None and len(found) > most:
        rest = len(found) - most + 1
        found = [*found[: most - 1], Notice(WARN, f"!  and {rest} more: h shows them all")]
    return [line(Piece(words, style)) for style, words in found]


def _footer(frame: Frame, reach: Reach, first: int, width: int) -> Line:
    """Return the keys, as many as fit beside the place in the list."""
    last = "T heat  N name  g gpus" if frame.job else "T time  N pid"
    keys = f"q quit  h help  sort: P cpu  M memory  G gpu  {last}  space pause  + - pace"
    place = ""
    if reach.last:
        place = f"  {first + 1}-{min(reach.lines, first + reach.page)} of {reach.lines}"
    kept = keys.split("  ")
    while len("  ".join(kept)) + len(place) > width and len(kept) > 1:
        kept.pop()
    text = "  ".join(kept)
    return line(Piece(text.ljust(width - len(place)) + place, "dim"))


def _scrolled(lines: Sequence[Line], offset: int, width: int, height: int) -> Screen:
    """Return a page below its first line, which stays."""
    reach = Reach(len(lines) - 1, max(1, height - 1))
    first = 1 + min(offset, reach.last)
    shown = [cut(each, width) for each in (lines[0], *lines[first : first + reach.page])]
    shown += [line("")] * (height - len(shown))
    return Screen(shown[:height], reach)


def help_lines(frame: Frame | None, width: int) -> list[Line]:
    """Return the page of keys and signs, and every notice there is."""
    keys = [line(Piece(f"  {key:<12}", "bold"), words) for key, words in KEYS]
    signs = [line(Piece(f"  {BOUNDS[name][0]} ", BOUNDS[name][1]), words) for name, words in SIGNS]
    found = _notice_lines(frame, most=None) if frame else []
    head = line(
        Piece(" rooflight top: arrows scroll, any other key goes back".ljust(width), "title")
    )
    about = line(Piece("Bounds, now and over the last minutes", "bold"))
    return [head, *found, line(""), *keys, about, *signs]

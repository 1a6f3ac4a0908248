"""A line for each GPU, and the columns that hosts of a job share with them."""

from typing import NamedTuple

from agent.top.history import HISTORY_SECONDS, UNSEEN, strip
from agent.top.model import Gpu
from agent.top.paint import Line, Piece, amount, bar, joined, line, of_whole, percent, right

BOUNDS = {
    # bound -> its sign in the strip, and its style: roofs have letters, and what is no roof a mark
    "compute": ("C", "green"),
    "memory": ("M", "magenta"),
    "link": ("L", "blue"),
    "io": ("D", "blue"),
    "latency": ("~", "yellow"),
    "balanced": ("=", "cyan"),
    "idle": (".", "dim"),
    "unknown": ("?", "dim"),
    UNSEEN: (" ", ""),
}

UNKNOWN = BOUNDS["unknown"]

WIDE_FROM = 120
HOT_FROM = 80.0
"""Degrees Celsius; whether heat slows the GPU is told apart."""

TEMPERATURE, BOUND, SHARE, CLOCK = 4, 8, 4, 7
WIDER = 2 * SHARE + CLOCK + 3


class Columns(NamedTuple):
    """Widths in cells; `wide` adds shares of the roofs and the clock."""

    label: int
    busy: int
    memory: int
    power: int
    strip: int
    wide: bool

    @property
    def beside(self) -> int:
        """Everything that stands right of the power."""
        return TEMPERATURE + BOUND + self.strip + 2 + (WIDER if self.wide else 0)


def columns(width: int, label: int) -> Columns:
    """Return what fits into a line of this width."""
    wide = width >= WIDE_FROM
    busy, memory, power = (18, 22, 17) if wide else (11 - (label > 4), 18 - 2 * (label > 4), 13)
    taken = label + busy + memory + power + TEMPERATURE + BOUND + 6
    taken += WIDER if wide else 0
    return Columns(label, busy, memory, power, max(0, width - taken), wide)


def heading(shape: Columns, label: str, busy: str = "utilization") -> Line:
    """Return the names of the columns."""
    names = [
        label.ljust(shape.label),
        busy[: shape.busy].ljust(shape.busy),
        "memory".ljust(shape.memory),
        "power".ljust(shape.power),
        "temp",
        "bound".ljust(BOUND),
    ]
    if shape.wide:
        names += [right("comp", SHARE), right("mem", SHARE), right("clock", CLOCK)]
    names.append(f"last {HISTORY_SECONDS / 60:.0f} min"[: shape.strip].ljust(shape.strip))
    return line(Piece(" ".join(names), "reverse"))


def gpu_row(gpu: Gpu, shape: Columns, now_ms: int) -> Line:
    """Return the line of one GPU."""
    label = right(gpu.index, min(shape.label, 4)).ljust(shape.label)
    if not gpu.answers:
        gap = shape.busy + shape.memory + shape.power + shape.beside - shape.strip + 2
        words = Piece("does not answer".ljust(gap), "bad")
        return joined([line(label), line(words), _history(gpu, shape, now_ms)], " ")
    parts = [
        line(label),
        bar(gpu.utilization, percent(gpu.utilization), shape.busy, "green"),
        memory_bar(gpu.memory_used, gpu.memory_total, shape.memory),
        _power_bar(gpu, shape.power),
        _temperature(gpu),
        line(Piece(gpu.bound.ljust(BOUND), BOUNDS.get(gpu.bound, UNKNOWN)[1])),
    ]
    if shape.wide:
        clock = "-" if gpu.hertz is None else amount(gpu.hertz, "Hz")
        shares = (right(percent(share), SHARE) for share in (gpu.compute, gpu.memory))
        parts += [*map(line, shares), line(right(clock, CLOCK))]
    return joined([*parts, _history(gpu, shape, now_ms)], " ")


def legend() -> Line:
    """Return what the signs of the strip mean."""
    shown = [(bound, *BOUNDS[bound]) for bound in BOUNDS if bound not in (UNSEEN, "io")]
    words = [line(Piece(sign, style), Piece(f" {bound}", "dim")) for bound, sign, style in shown]
    return joined([line("    "), *words], "  ")


def memory_bar(used: float | None, total: float | None, width: int) -> Line:
    """Return a bar with both amounts in it."""
    if used is None or not total:
        return bar(None, "", width)
    return bar(used / total, of_whole(used, total), width, "magenta")


def _power_bar(gpu: Gpu, width: int) -> Line:
    if gpu.watts is None:
        return bar(None, "", width)
    if not gpu.watts_limit:
        return line(amount(gpu.watts, "W").ljust(width))
    words = f"{gpu.watts:.0f}/{gpu.watts_limit:.0f}W"
    return bar(gpu.watts / gpu.watts_limit, words, width, "cyan")


def _temperature(gpu: Gpu) -> Line:
    if gpu.celsius is None:
        return line(right("-", TEMPERATURE))
    style = "bad" if gpu.slowed_for_heat else "warn" if gpu.celsius >= HOT_FROM else ""
    return line(Piece(right(f"{gpu.celsius:.0f}C", TEMPERATURE), style))


def _history(gpu: Gpu, shape: Columns, now_ms: int) -> Line:
    """Return the strip, neighbours of one style in one piece."""
    signs = [BOUNDS.get(bound, UNKNOWN) for bound in strip(gpu.history, now_ms, shape.strip)]
    pieces: list[Piece] = []
    for sign, style in signs:
        if pieces and pieces[-1].style == style:
            pieces[-1] = Piece(pieces[-1].text + sign, style)
        else:
            pieces.append(Piece(sign, style))
    return tuple(pieces)

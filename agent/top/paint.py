"""Lines of styled text, and what they are made of: cells of a fixed width, bars, amounts.

ASCII alone, but for names that are not ours: every terminal and every font can show it. A style is
a word; `terminal.py` turns it into what a terminal understands, or into nothing.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from agent.inspect.units import show
from agent.printable import printable

PLAIN = ""


class Piece(NamedTuple):
    """Some text in one style."""

    text: str
    style: str = PLAIN


Line = tuple[Piece, ...]


def line(*parts: str | Piece) -> Line:
    """Return a line of pieces and plain texts."""
    return tuple(Piece(part) if isinstance(part, str) else part for part in parts)


def text_of(pieces: Iterable[Piece]) -> str:
    """Return a line without its styles."""
    return "".join(piece.text for piece in pieces)


def width_of(pieces: Iterable[Piece]) -> int:
    """Return how many cells of a terminal a line takes."""
    return sum(cell_len(piece.text) for piece in pieces)


def cut(pieces: Iterable[Piece], width: int) -> Line:
    """Return as much of a line as a terminal of this width shows, none of which commands it."""
    kept: list[Piece] = []
    for piece in (each._replace(text=printable(each.text)) for each in pieces):
        needed = cell_len(piece.text)
        if needed > width:
            kept.append(piece._replace(text=set_cell_size(piece.text, width)))
            break
        kept.append(piece)
        width -= needed
    return tuple(kept)


def left(text: str, width: int) -> str:
    """Return foreign text in exactly so many cells, cut at its end if need be."""
    return set_cell_size(printable(text), width)


def left_tail(text: str, width: int) -> str:
    """Return the same, cut at its beginning: names of nodes and paths differ at their ends."""
    clean = printable(text)
    if cell_len(clean) > width:
        clean = ".." + clean[-max(0, width - 2) :]
    return set_cell_size(clean, width)


def right(text: str, width: int) -> str:
    """Return text of ours in so many cells, aligned at the right."""
    return text.rjust(width)[:width]


def bar(share: float | None, words: str, width: int, style: str = PLAIN) -> Line:
    """Return `[|||||   words]`; empty brackets for what is not known."""
    inner = width - 2
    if share is None:
        return line(Piece("[", "dim"), Piece(right("-", inner), "dim"), Piece("]", "dim"))
    filled = min(inner, max(0, math.floor(share * inner + 0.5)))
    cells = ("|" * filled).ljust(inner)
    body = cells[: inner - len(words)] + words[:inner]
    return line(Piece("[", "dim"), Piece(body[:filled], style), body[filled:], Piece("]", "dim"))


def percent(share: float | None) -> str:
    """Return a share as whole percent; "-" if it is not known."""
    return "-" if share is None else f"{share:.0%}"


def of_whole(part: float, whole: float, step: float = 1024.0) -> str:
    """Return both with the prefix of the whole: "60.0/79.6G"."""
    power = 0
    while whole >= step**power * step * 0.9995 and power < len(PREFIXES) - 1:
        power += 1
    unit = step**power
    return f"{_short(part / unit)}/{_short(whole / unit)}{PREFIXES[power]}"


PREFIXES = ("", "K", "M", "G", "T", "P")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 or value == 0 else f"{value:.1f}"


def amount(value: float, unit: str) -> str:
    """Return a value with its unit, without the space: "1.52kW", "12.1GB/s"."""
    return show(value, unit).replace(" ", "")


def brief(rate: float) -> str:
    """Return bytes per second as "12.1G"."""
    return amount(rate, "B/s").removesuffix("B/s")


def joined(parts: Sequence[Line], gap: str) -> Line:
    """Return lines one after the other with a gap between."""
    found: list[Piece] = []
    for number, part in enumerate(parts):
        if number:
            found.append(Piece(gap))
        found.extend(part)
    return tuple(found)

"""Columns and lines for a terminal; plain strings, because a report is printed in a hurry.

What comes from others (names of jobs, hosts, phases) is written out: it cannot command a terminal.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import click

from agent.printable import printable

Style = Literal["bold", "dim", "red", "yellow", "cyan"]
NARROWEST = 8
"""Columns that a folded cell has at least."""


class Paint:
    """Styles words if somebody looks at a terminal that can show it."""

    def __init__(self, *, color: bool) -> None:
        self._color = color

    def __call__(self, words: str, style: Style) -> str:
        """Return the words in a style."""
        if not self._color:
            return words
        if style in ("bold", "dim"):
            return click.style(words, bold=style == "bold", dim=style == "dim")
        return click.style(words, fg=style, bold=style == "red")


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        head: its name.
        right: numbers stand at the right.
        width: its least width; most are as wide as what is in them.

    """

    head: str
    right: bool = False
    width: int = 0


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    width: int,
    *,
    fold: int = 0,
    head: bool = True,
) -> Iterator[str]:
    """Yield the lines of a table, one blank between its columns.

    Args:
        columns: its columns.
        rows: a text for each column.
        width: of the terminal.
        fold: the column whose texts go over several lines where they would not fit.
        head: whether to begin with the columns' names and a rule.

    """
    cells = [[printable(text) for text in row] for row in rows]
    widths = [
        max(column.width, len(column.head) if head else 0, *(len(row[at]) for row in cells), 0)
        for at, column in enumerate(columns)
    ]
    room = width - (sum(widths) - widths[fold]) - (len(widths) - 1)
    widths[fold] = min(widths[fold], max(NARROWEST, room))
    if head:
        yield _line([column.head for column in columns], columns, widths)
        yield "─" * (sum(widths) + len(widths) - 1)
    for row in cells:
        parts = _folded(row[fold], widths[fold])
        for number, part in enumerate(parts):
            shown = list(row) if number == 0 else [""] * len(row)
            shown[fold] = part
            yield _line(shown, columns, widths)


def _line(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = [
        text.rjust(width) if column.right else text.ljust(width)
        for text, column, width in zip(texts, columns, widths, strict=True)
    ]
    return " ".join(padded).rstrip()


def _folded(text: str, width: int) -> list[str]:
    """Return a text in parts that fit, cut between words where it can be."""
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, drop_whitespace=True) or [""]


def paragraph(words: str, width: int, *, indent: str = "") -> Iterator[str]:
    """Yield words of ours or of others as lines that fit, all but the first with an indent."""
    yield from textwrap.wrap(printable(words), width, subsequent_indent=indent) or [""]

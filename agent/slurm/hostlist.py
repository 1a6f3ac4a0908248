"""Slurm's lists of nodes: `n[1-3,07],gpu[01-02]-ib` and the names that it stands for.

Source: `man 1 scontrol`, "show hostnames". Ranges keep the width of their first number.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

MOST_HOSTS = 100_000
"""More than any cluster has: a list is somebody's words, and could say a thousand million."""

LONGEST_NAME = 255
"""Characters; DNS allows 253."""

_PARTS = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PIECES = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_NUMBERS = re.compile(r"([0-9]{1,18})")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


class _Range(NamedTuple):
    """The numbers from first to last, each of at least `width` digits."""

    first: int
    last: int
    width: int

    def size(self) -> int:
        return max(0, self.last - self.first + 1)

    def words(self) -> Iterator[str]:
        return (f"{number:0{self.width}}" for number in range(self.first, self.last + 1))


Piece = str | list[_Range]
"""A part of a name: as it stands, or the numbers in brackets."""


def natural(name: str) -> list[tuple[int, str]]:
    """Return what names of hosts are sorted by, so that n2 comes before n10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(name)]


def expand_hosts(text: str) -> list[str]:
    """Return the names in their order.

    Raises:
        ValueError: it is no list of nodes, or one of too many.

    """
    parts = _parsed(text)
    return [name for part in parts for name in map("".join, itertools.product(*map(_words, part)))]


def count_hosts(text: str) -> int:
    """Return how many nodes a list stands for; 0 if it is none, or one of too many."""
    try:
        return sum(map(_count, _parsed(text)))
    except ValueError:
        return 0


def _parsed(text: str) -> list[list[Piece]]:
    """Return the parts of a list, whose names are counted before any is made.

    Raises:
        ValueError: see `expand_hosts`.

    """
    if _PARTS.sub("", text).strip(","):
        raise ValueError(f"not a list of nodes: {text[:LONGEST_NAME]!r}")
    parts = [_pieces(part) for part in _PARTS.findall(text)]
    if sum(map(_count, parts)) > MOST_HOSTS:
        raise ValueError(f"more than {MOST_HOSTS} nodes")
    if any(
        sum(len(piece) for piece in part if isinstance(piece, str)) > LONGEST_NAME for part in parts
    ):
        raise ValueError(f"a name of more than {LONGEST_NAME} characters")
    return parts


def _pieces(part: str) -> list[Piece]:
    found = _PIECES.findall(part)
    return [outside or [_range(words) for words in inside.split(",")] for inside, outside in found]


def _range(words: str) -> _Range:
    match = _RANGE.fullmatch(words)
    if match is None:
        raise ValueError(f"not a range of nodes: {words[:LONGEST_NAME]!r}")
    return _Range(int(match[1]), int(match[2] or match[1]), len(match[1]))


def _count(part: list[Piece]) -> int:
    return math.prod(
        1 if isinstance(piece, str) else sum(each.size() for each in piece) for piece in part
    )


def _words(piece: Piece) -> Iterator[str]:
    if isinstance(piece, str):
        return iter((piece,))
    return itertools.chain.from_iterable(each.words() for each in piece)

"""Slurm's lists of nodes: `n[1-3,07],gpu[01-02]-ib` and the names that it stands for.

Source: `man 1 scontrol`, "show hostnames". Ranges keep the width of their first number.
"""

import itertools
import re
from collections.abc import Iterator

MOST_HOSTS = 100_000
"""More than any cluster has: a list is somebody's words, and could say a thousand million."""

_PARTS = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")
_PIECES = re.compile(r"\[([^\]]*)\]|([^\[\]]+)")
_NUMBERS = re.compile(r"([0-9]{1,18})")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def natural(name: str) -> list[tuple[int, str]]:
    """Return what names of hosts are sorted by, so that n2 comes before n10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(name)]


def expand_hosts(text: str) -> list[str]:
    """Return the names in their order.

    Raises:
        ValueError: it is no list of nodes, or one of too many.

    """
    names = (name for part in _PARTS.findall(text) for name in _names(part))
    found = list(itertools.islice(names, MOST_HOSTS + 1))
    if len(found) > MOST_HOSTS:
        raise ValueError(f"more than {MOST_HOSTS} nodes")
    return found


def count_hosts(text: str) -> int:
    """Return how many nodes a list stands for; 0 if it is none."""
    try:
        return len(expand_hosts(text))
    except ValueError:
        return 0


def _names(part: str) -> Iterator[str]:
    """Yield the names of a part without a comma outside of brackets."""
    pieces = [
        list(_numbers(inside)) if inside else [outside] for inside, outside in _PIECES.findall(part)
    ]
    return map("".join, _product(pieces))


def _product(pieces: list[list[str]]) -> Iterator[tuple[str, ...]]:
    size = 1
    for choices in pieces:
        size *= len(choices)
    if size > MOST_HOSTS:
        raise ValueError(f"more than {MOST_HOSTS} nodes")
    return itertools.product(*pieces)


def _numbers(inside: str) -> Iterator[str]:
    """Yield the numbers of `1-3,07`, as wide as they are written."""
    for words in inside.split(","):
        match = _RANGE.fullmatch(words)
        if match is None:
            raise ValueError(f"not a range of nodes: {words!r}")
        first, last = match[1], match[2] or match[1]
        if int(last) - int(first) >= MOST_HOSTS:
            raise ValueError(f"more than {MOST_HOSTS} nodes")
        yield from (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))

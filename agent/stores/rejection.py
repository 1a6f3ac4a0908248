"""Which lines of a batch a server refused, as far as its words name them; no network here.

Source: InfluxDB 1.6 to 1.8 (`tsdb.PartialWriteError`, `models.ParsePoints`), 2.x (the same
words), 3.x ("Write line protocol": `line_number`, `original_line`); see `tests/unit`.
"""

import re
from collections.abc import Iterator, Sequence

from agent.stores.connection import TOO_LARGE, RefusedLine, Reply

_UNPARSED = re.compile(r"unable to parse '(.*)': ")
_CONFLICT = re.compile(
    r'input field "(.*?)" on measurement "(.*?)" is type (\w+), .* dropped=(\d{1,9})'
)
_VALUES = {"string": rb'"', "float": rb"[-+.\d]+(?:[eE][-+]?\d+)?(?:,|$|\s)"}
"""How the value of a field begins; other types this agent does not write."""
_TOO_OLD = re.compile(r"points beyond retention policy dropped=(\d{1,9})")
_UNESCAPED_SPACE = re.compile(rb"(?<!\\) ")
_TIME = re.compile(rb" (-?\d{1,19})$")


def sort_out(
    reply: Reply, lines: Sequence[bytes], *, give_up: bool
) -> tuple[list[bytes], list[Sequence[bytes]]]:
    """Return the lines that are refused for certain, and the batches to try again, in order.

    All but the lines that the server names are sent again, whole: some versions have stored them
    already, others none, and some name only the first bad one. Where none is named, both halves.
    """
    if len(lines) == 1 or (give_up and reply.status != TOO_LARGE):
        return list(lines), []
    named = named_lines(reply, lines)
    if not named:
        middle = len(lines) // 2
        return [], [lines[:middle], lines[middle:]]
    rest = [line for place, line in enumerate(lines) if place not in named]
    return [lines[place] for place in sorted(named)], [rest] if rest else []


def named_lines(reply: Reply, lines: Sequence[bytes]) -> set[int]:
    """Return the places in `lines` of all that the reply names; none if it leaves a doubt."""
    text = reply.message()
    if numbered := reply.refused_lines():
        return _numbered(lines, numbered)
    if unparsed := {each.encode() for each in _UNPARSED.findall(text)}:
        found = {place for place, line in enumerate(lines) if line in unparsed}
        return found if {lines[place] for place in found} == unparsed else set()
    if conflict := _CONFLICT.search(text):
        field, measurement, kind, dropped = conflict.groups()
        found = set(_having(lines, measurement, field, _VALUES.get(kind, rb"\0")))
        return found if len(found) == int(dropped) else set()
    if too_old := _TOO_OLD.search(text):
        return set(_oldest(lines, int(too_old[1])))
    return set()


def _numbered(lines: Sequence[bytes], numbered: Sequence[RefusedLine]) -> set[int]:
    places = {each.line_number - 1: each.original_line.encode() for each in numbered}
    same = all(
        0 <= place < len(lines) and lines[place].startswith(start)
        for place, start in places.items()
    )
    return set(places) if same else set()


def _having(lines: Sequence[bytes], measurement: str, field: str, value: bytes) -> Iterator[int]:
    starts = (f"{measurement},".encode(), f"{measurement} ".encode())
    wanted = re.compile(rb"(?:^|,)" + re.escape(field.encode()) + rb"=" + value)
    for place, line in enumerate(lines):
        if line.startswith(starts) and wanted.search(_UNESCAPED_SPACE.split(line, maxsplit=1)[-1]):
            yield place


def _oldest(lines: Sequence[bytes], count: int) -> Sequence[int]:
    """Return the places of the `count` lines with the earliest times; none if a line has none."""
    times = [int(found[1]) for line in lines if (found := _TIME.search(line))]
    if not count <= len(lines) == len(times):
        return ()
    return sorted(range(len(lines)), key=times.__getitem__)[:count]

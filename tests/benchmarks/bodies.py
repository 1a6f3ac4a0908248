"""What the agents of many nodes send, made before it is sent: gzipped bodies, and when each is due.

They wait in memory: about 2 kB for each tick of a CPU node and 4 kB for one of a GPU node, 250 MB
for 10,000 nodes and two minutes.
"""

import gzip
import multiprocessing
import os
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from probes.catalogue import Database
from tests.benchmarks.node_ticks import BEAT_TICKS, NUMBER, Play, values_in
from tests.benchmarks.writers import Turn
from tests.integration.simulated import TICK_SECONDS

FLEETS: Mapping[str, Sequence[str]] = {
    "cpu": ("cpu",),
    "fabric": ("fabric",),
    "gpu": ("gpu",),
    "mixed": ("gpu", *("fabric",) * 9),
}
"""Kind of fleet -> the kinds of ten nodes in a row, or of all."""

VARIANTS = 48
"""Different ways in which the nodes of a kind go on; names and series are each node's own."""

GZIP_LEVEL = 1  # the agent's, see agent/stores/connection.py
HEAD = (
    "POST /write?db={}&precision=ms HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\n"
    "User-Agent: python-urllib3\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n"
)

Makers = Mapping[str, Callable[[int], Play]]
Bodies = list[tuple[bytes, ...]]
"""The requests of one writer, turn by turn."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is played.

    Attributes:
        fleet: a key of `FLEETS`.
        nodes: how many.
        ticks: the number of the last.
        first: the number of the first. Tick 0 makes all series; 1 means that they are made before
            and are not measured, by few large writes.
        ticks_per_write: that an agent gathers: 1 with the default `agent.flush_seconds`.
        nodes_per_write: that one writer gathers: more than 1 plays a relay in between.
        begin_ms: time of tick 0.

    """

    fleet: str
    nodes: int
    ticks: int
    first: int = 1
    ticks_per_write: int = 1
    nodes_per_write: int = 1
    begin_ms: int = 0

    def kind(self, node: int) -> str:
        """Return a node's kind."""
        kinds = FLEETS[self.fleet]
        return kinds[node % len(kinds)]

    @property
    def writers(self) -> int:
        """How many write, each to a connection of its own."""
        return -(-self.nodes // self.nodes_per_write)

    def nodes_of(self, writer: int) -> range:
        """Return the nodes whose lines a writer sends."""
        first = writer * self.nodes_per_write
        return range(first, min(first + self.nodes_per_write, self.nodes))

    def turns(self) -> list[range]:
        """Return the ticks that are written at each turn."""
        step, stop = self.ticks_per_write, self.ticks + 1
        return [range(n, min(n + step, stop)) for n in range(self.first, stop, step)]


def request(database: str, lines: str) -> bytes:
    """Return what the agent sends for lines of one database."""
    body = gzip.compress(lines.encode(), GZIP_LEVEL)
    return HEAD.format(database, len(body)).encode() + body


class Texts:
    """The lines of every kind and variant at every turn; a node's are these with its number."""

    def __init__(self, size: Size, makers: Makers) -> None:
        self._turns = {
            (kind, variant): list(_turns(make(variant), size))
            for kind, make in makers.items()
            for variant in range(VARIANTS)
        }
        self._size = size

    def of(self, node: int, turn: int) -> Mapping[Database, str]:
        """Return a node's lines at a turn; `NUMBER` stands for its number."""
        return self._turns[self._size.kind(node), node % VARIANTS][turn]


def _turns(play: Play, size: Size) -> Iterator[Mapping[Database, str]]:
    for ticks in size.turns():
        yield merged(play.tick(tick) for tick in ticks)


def merged(texts: Iterable[Mapping[Database, str]]) -> dict[Database, str]:
    """Return the lines of several, database by database."""
    found: dict[Database, list[str]] = {}
    for each in texts:
        for database, text in each.items():
            found.setdefault(database, []).append(text)
    return {database: "".join(parts) for database, parts in found.items()}


def bodies(size: Size, makers: Makers, names: Mapping[Database, str], part: range) -> list[Bodies]:
    """Return the requests of some writers."""
    texts = Texts(size, makers)
    return [
        [_turn(size, texts, names, writer, turn) for turn in range(len(size.turns()))]
        for writer in part
    ]


def _turn(
    size: Size, texts: Texts, names: Mapping[Database, str], writer: int, turn: int
) -> tuple[bytes, ...]:
    lines = merged(
        {
            database: text.replace(NUMBER, f"{node:06}")
            for database, text in texts.of(node, turn).items()
        }
        for node in size.nodes_of(writer)
    )
    # measurements first, then the rows of jobs, as the agent's shipper does
    return tuple(request(names[each], lines[each]) for each in Database if each in lines)


def all_bodies(size: Size, makers: Makers, names: Mapping[Database, str]) -> list[Bodies]:
    """Return the requests of all writers, made by all CPUs."""
    processes = os.cpu_count() or 1
    step = -(-size.writers // processes)
    parts = [range(n, min(n + step, size.writers)) for n in range(0, size.writers, step)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        made = pool.map(partial(bodies, size, makers, names), parts)
    return [each for part in made for each in part]


def schedule(size: Size, made: Sequence[Bodies]) -> list[Turn]:
    """Return all turns, sorted by when they are due.

    Agents ship at moments of their own, see `Shipper`: each has one phase, by chance.
    """
    chance = random.Random(size.nodes)
    period = float(TICK_SECONDS * size.ticks_per_write)
    return sorted(
        Turn((phase + number) * period, writer, requests)
        for writer, (phase, turns) in enumerate((chance.random(), turns) for turns in made)
        for number, requests in enumerate(turns)
    )


def values_per_tick(makers: Makers, kinds: Sequence[str]) -> float:
    """Return how many field values a node of these kinds writes in a tick, its slow rows shared."""
    counts = {
        kind: statistics.fmean(
            sum(map(values_in, play.tick(tick).values()))
            for play in map(makers[kind], range(BEAT_TICKS))
            for tick in range(1, BEAT_TICKS + 1)
        )
        for kind in {*kinds}
    }
    return statistics.fmean(counts[kind] for kind in kinds)

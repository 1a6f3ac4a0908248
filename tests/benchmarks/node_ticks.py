"""What the agent of a node writes, tick after tick, for benchmarks that play many nodes.

The real agent samples a fixture machine for some ticks, in a process of its own, with one job on
it; four H100s are replayed through NVML's own interface. Every field that moved goes on moving at
the pace that it had there, up to half as much more or less; what stood still stands still.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.config import load
from agent.daemon import daemon
from agent.lineprotocol import Point, encode_fields, parse, series_key
from agent.messages import JobStart
from probes.catalogue import CATALOGUE, Database, Field, Kind
from probes.registry import PROBES
from probes.sample import Value
from tests.benchmarks.gpu_node import write_trace
from tests.integration.simulated import (
    TICK_SECONDS,
    Clock,
    Machine,
    SimulatedJob,
    Simulation,
    runners,
    step,
)
from tests.made_up_jobs import CLUSTER
from tests.nvml.build import environment

HOST, JOBID, UUID = "recorded-node", "987654321", "GPU-44444444"
NUMBER = "@@@@@@"
"""Stands for the number of the node in the names of host, job and GPUs."""
NAMES = {HOST: f"node{NUMBER}", JOBID: f"77{NUMBER}", UUID: f"GPU-44{NUMBER}"}

TICKS = 10
BEAT_TICKS = 3
"""The agent writes its slow rows every 30 s: footprints, and what its probes cost."""

Tick = dict[Database, str]

# the fixture machine has one of everything; this is what a node of a cluster has
HOST_PROBES = ("cpu", "memory", "pressure", "power", "network", "blockdisk", "tempdisk")
CPU: Mapping[str, Sequence[str]] = {
    "interface": ("eth0", "lo"),
    "device": ("nvme0n1",),
    "mount": (),
    "gpu": (),
    "cache": (),  # needs a mounted resctrl, which is rare
    "probe": HOST_PROBES,
}
FABRIC: Mapping[str, Sequence[str]] = {
    **CPU,
    "interface": ("eth0", "ib0", "lo"),
    "device": ("nvme0n1", "mlx5_0"),
    "mount": ("/rooflight-golden/home", "/rooflight-golden/scratch"),
    "probe": (*HOST_PROBES, "infiniband", "filesystem"),
}
GPU: Mapping[str, Sequence[str]] = {
    **FABRIC,
    "device": ("nvme0n1", "mlx5_0", "mlx5_1"),
    "gpu": ("0", "1", "2", "3"),
    "probe": (*FABRIC["probe"], "gpu"),
}
KINDS = {"cpu": CPU, "fabric": FABRIC, "gpu": GPU}
"""Kind of node -> for each tag that names a part of it, the parts that it has."""


class Sink:
    """Takes what the loop appends."""

    def __init__(self) -> None:
        self.texts: dict[Database, str] = {}

    def append(self, database: Database, lines: bytes) -> None:
        self.texts[database] = self.texts.get(database, "") + lines.decode()


def record(folder: Path, begin_ms: int, gpus: Sequence[str]) -> list[Tick]:
    """Return what the real agent appends at each tick; the job begins before the first."""
    file = folder / "rooflight.toml"
    agent = f'[agent]\nstate_directory = "{folder}/state"'
    file.write_text(f'cluster = "{CLUSTER}"\nhost = "{HOST}"\nstore = "stdout"\n{agent}\n')
    config = load(file, environment={}).config
    off = msgspec.structs.replace(config.probes, disabled=tuple(kind.name for kind in PROBES))
    bare = msgspec.structs.replace(config, probes=off)
    machine, clock = Machine("gpu_node", folder / "machine"), Clock(begin_ms)
    simulation = Simulation(
        str(file), str(folder), begin_ms, TICKS, jobs=[SimulatedJob(_job(gpus), begins=0)]
    )
    ticks = []
    spool, socket = folder / "spool", folder / "agent.sock"
    (folder / "nvml-clock").write_text("0")
    with daemon(
        bare, spool_directory=spool, socket=socket, roots=machine.roots, clock=clock
    ) as running:
        running.loop.runners = list(runners(config, machine.roots, clock))
        for number in range(TICKS + 1):
            clock.ahead = float(TICK_SECONDS * number)
            (folder / "nvml-clock").write_text(str(clock.ahead))
            machine.move(number)
            running.loop.sink = sink = Sink()
            step(running, simulation, number, clock)
            ticks.append(sink.texts)
    return ticks[1:]


def _job(gpus: Sequence[str]) -> JobStart:
    return JobStart(
        JOBID,
        0,
        user="ann",
        account="physics",
        partition="batch",
        name="train",
        gpus=tuple(gpus),
        cpus=8.0,
        node=HOST,
        nodes=HOST,
        source="slurm",
    )


def recorded(kind: str, begin_ms: int) -> list[Tick]:
    """Return the ticks of a kind of node, as an agent in a new process wrote them."""
    gpus = KINDS[kind]["gpu"]
    with tempfile.TemporaryDirectory(prefix="rooflight-ticks-") as folder:
        variables = {}
        if gpus:
            write_trace(Path(folder) / "trace.csv")
            clock = str(Path(folder) / "nvml-clock")
            variables = environment(Path(folder) / "trace.csv", clock=clock, loop="1")
        words = [sys.executable, "-m", __name__, folder, str(begin_ms), *gpus]
        done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=list[dict[Database, str]])


class Course:
    """How one field goes on from tick to tick; `seen` are ticks and values, oldest first."""

    def __init__(self, known: Field, seen: Sequence[tuple[int, Value]]) -> None:
        self.name = known.name
        first, last = seen[0], seen[-1]
        self._value = last[1]
        numbers = [value for _, value in seen if not isinstance(value, str)]
        self.moves = len(set(numbers)) > 1
        self._low, self._high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)
        grown = (self._high - self._low) / max(1, last[0] - first[0])
        self._step = grown if known.kind is Kind.COUNTER else 0.0
        self._digits = max(map(_decimals, numbers), default=0)

    def after(self, ticks: int, chance: random.Random) -> Value:
        """Return the value so many ticks after the one before."""
        if not self.moves or isinstance(self._value, str):
            return self._value
        if self._step:
            self._value += self._step * ticks * chance.uniform(0.5, 1.5)
        else:
            self._value = chance.uniform(self._low, self._high)
        return round(self._value, self._digits)


def _decimals(value: float) -> int:
    _, point, digits = repr(value).partition(".")
    return len(digits) if point and "e" not in digits and digits != "0" else 0


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a node.

    Attributes:
        measurement: in the catalogue.
        key: measurement and tags as line protocol.
        slow: written with the agent's slow rows only.
        start_ms: of a job's rows, which stay at the job's start; None for those of a tick.
        fields: ticks and values that were seen of each.

    """

    measurement: str
    key: str
    database: Database
    slow: bool
    start_ms: int | None
    fields: Mapping[str, Sequence[tuple[int, Value]]]


class Seen(NamedTuple):
    """A point in its tick."""

    tick: int
    point: Point


def lines_of(ticks: Sequence[Tick], kind: str) -> list[Line]:
    """Return the series of a kind of node, from the ticks that an agent wrote."""
    found: dict[tuple[Database, str], list[Seen]] = {}
    for number, tick in enumerate(ticks):
        for database, text in tick.items():
            for point in parse(_named(text)):
                if _has(kind, point):
                    key = series_key(point.measurement, point.tags)
                    found.setdefault((database, key), []).append(Seen(number, point))
    return [_line(database, key, seen) for (database, key), seen in found.items()]


def _named(text: str) -> str:
    for recorded_name, name in NAMES.items():
        text = text.replace(recorded_name, name)
    return text


def _has(kind: str, point: Point) -> bool:
    tags = dict(point.tags)
    return all(tags.get(name, "") in ("", *parts) for name, parts in KINDS[kind].items())


def _line(database: Database, key: str, seen: Sequence[Seen]) -> Line:
    fields: dict[str, list[tuple[int, Value]]] = {}
    for tick, point in seen:
        for name, value in point.fields.items():
            fields.setdefault(name, []).append((tick, value))
    point = seen[-1].point
    start_ms = point.time_ms if database is Database.JOBS else None
    slow = len(seen) <= TICKS // BEAT_TICKS + 1
    return Line(point.measurement, key, database, slow, start_ms, fields)


class Play:
    """One way in which a kind of node may go on; ask for tick after tick.

    Attributes:
        number: which way; also, in which ticks its slow rows come.

    """

    def __init__(self, lines: Sequence[Line], begin_ms: int, number: int) -> None:
        self._number = number
        self._begin_ms = begin_ms
        self._chance = random.Random(number)
        self._rows = [_Row(line) for line in lines]

    def tick(self, count: int) -> dict[Database, str]:
        """Return the lines of a tick; the first has all, so that it makes all series."""
        beats = count == 0 or (count + self._number) % BEAT_TICKS == 0
        time_ms = self._begin_ms + count * TICK_SECONDS * 1000
        texts: dict[Database, list[str]] = {}
        for row in self._rows:
            if beats or not row.line.slow:
                text = row.text(time_ms, BEAT_TICKS if row.line.slow else 1, self._chance)
                texts.setdefault(row.line.database, []).append(text)
        return {database: "".join(lines) for database, lines in texts.items()}


class _Row:
    def __init__(self, line: Line) -> None:
        self.line = line
        known = CATALOGUE[line.measurement].fields
        courses = [Course(known[name], seen) for name, seen in line.fields.items()]
        self._moving = [course for course in courses if course.moves]
        nothing = random.Random()
        still = [(each.name, each.after(0, nothing)) for each in courses if not each.moves]
        self._still = encode_fields(still)

    def text(self, time_ms: int, ticks: int, chance: random.Random) -> str:
        moving = encode_fields((each.name, each.after(ticks, chance)) for each in self._moving)
        fields = ",".join(filter(None, (self._still, moving)))
        return f"{self.line.key} {fields} {self.line.start_ms or time_ms}\n"


def values_in(text: str) -> int:
    """Return how many field values lines hold."""
    return sum(len(point.fields) for point in parse(text))


def plays(kind: str, begin_ms: int) -> Callable[[int], Play]:
    """Return what makes the ways in which a kind of node may go on, by their number."""
    return partial(Play, lines_of(recorded(kind, begin_ms), kind), begin_ms)


def main(words: Sequence[str]) -> None:
    folder, begin_ms, *gpus = words
    print(msgspec.json.encode(record(Path(folder), int(begin_ms), gpus)).decode())


if __name__ == "__main__":
    main(sys.argv[1:])

"""What became of every tick: the witness's words against the store's."""

import json
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from agent.ledger import Reason, read_numbers
from agent.lineprotocol import Point, parse_line
from probes.sample import Tags, Value
from tests.faults.bed import Bed, Place

Key = tuple[str, Tags, int]
Fields = dict[str, Value]

BOUNDED = (Reason.SPOOL_FULL, Reason.MEMORY_FULL, Reason.NOT_SAVED)
"""Losses for want of room: only in the bed's windows."""


class Witnessed(NamedTuple):
    """One line that was handed to the spool."""

    place: Place
    line: bytes
    fields: Fields
    finished: bool


@dataclass
class Verdict:
    """How a run ended; all numbers but `ticks` are of lines (points).

    Attributes:
        ticks: finished ticks.
        lines: lines of finished ticks.
        replaced: lines to whose time and tags another was written later: the clock, or a job's row.
        missing: lines that are not in the store.
        lost: what the agent says that it lost, by reason.
        faults: what must not be; empty if all is well.
        replaced_ticks: ticks at a time that had one before.
        told_replaced: what the agents said of that.

    """

    ticks: int = 0
    lines: int = 0
    replaced: int = 0
    missing: int = 0
    lost: dict[Reason, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    replaced_ticks: int = 0
    told_replaced: int = 0

    @property
    def unaccounted(self) -> int:
        """Lines that are missing beyond what the agent says that it lost."""
        return max(0, self.missing - sum(self.lost.values()))


def judge(bed: Bed) -> Verdict:
    """Hold the store against the witness; the bed's agent has ended, and its spool is empty."""
    verdict = Verdict()
    numbers = read_numbers(bed.spool / "ledger")
    verdict.lost = {reason: numbers[reason] for reason in Reason if numbers[reason]}
    stored = dict(stored_points(bed.server.url, "rooflight"))
    stored |= stored_points(bed.server.url, "rooflight_jobs")
    history = _history(bed, verdict)
    _count_replaced(bed, verdict)
    verdict.faults += _untold(bed, verdict.lost)
    quarantined = Counter(_quarantined(bed))
    explained: Counter[str] = Counter()
    for key, versions in history.items():
        told = stored.pop(key, None)
        finished = [each for each in versions if each.finished]
        if not finished:
            continue
        last = finished[-1]
        if told is not None and _is_one_of(told, versions[versions.index(last) :]):
            continue
        verdict.missing += 1
        if told is not None and not _is_one_of(told, versions):
            verdict.faults.append(f"the store has {told} for {last.line!r}")
        elif quarantined[last.line] > 0:
            quarantined[last.line] -= 1
            explained["refused"] += 1
        elif any(begin <= last.place <= end for begin, end in bed.windows):
            explained["no room"] += 1
        else:
            verdict.faults.append(f"lost, and nothing was wrong then: {last.place} {last.line!r}")
    verdict.faults += [f"in the store, and never sampled: {key}" for key in stored]
    _compare("refused", explained["refused"], verdict, (Reason.REFUSED,))
    _compare("no room", explained["no room"], verdict, BOUNDED)
    return verdict


def _compare(what: str, missing: int, verdict: Verdict, reasons: tuple[Reason, ...]) -> None:
    counted = sum(verdict.lost.get(reason, 0) for reason in reasons)
    if missing > counted:
        verdict.faults.append(f"{what}: {missing} lines missing, only {counted} counted")


def _is_one_of(told: Fields, versions: list[Witnessed]) -> bool:
    """Tell whether the store has one of these; fields of an earlier one may remain beside it."""
    return any(each.fields.items() <= told.items() for each in versions)


def _history(bed: Bed, verdict: Verdict) -> dict[Key, list[Witnessed]]:
    """Return all witnessed lines by what they overwrite, oldest first."""
    history: dict[Key, list[Witnessed]] = {}
    for life in range(1, bed.lives + 1):
        for number, record in enumerate(bed.records(life)):
            for line in record.lines.splitlines():
                point = parse_line(line.decode())
                key = (point.measurement, point.tags, point.time_ms)
                versions = history.setdefault(key, [])
                verdict.lines += record.finished
                verdict.replaced += record.finished and any(each.finished for each in versions)
                seen = Witnessed((life, number), line, point.fields, record.finished)
                versions.append(seen)
    return history


def _count_replaced(bed: Bed, verdict: Verdict) -> None:
    """Count ticks at times that had one, and see that the agent has counted them, too."""
    seen: set[int] = set()
    for life in range(1, bed.lives + 1):
        # not the first: it was taken when the job began, and not at a multiple of the interval
        told = [
            (point.time_ms, float(point.fields["ticks_replaced_total"]))
            for point in _agent_points(bed, life)
        ][1:]
        verdict.ticks += len(told) + 1
        for (earlier_ms, before), (time_ms, count) in pairwise(told):
            if time_ms in seen:
                verdict.replaced_ticks += 1
                if count == before:
                    verdict.faults.append(f"agent {life} did not count that it replaced {time_ms}")
            # the last before a step may have been begun before it and finished after it
            if earlier_ms < time_ms:
                seen.add(earlier_ms)
        verdict.told_replaced += int(told[-1][1]) if told else 0


def _untold(bed: Bed, lost: dict[Reason, int]) -> Iterator[str]:
    """Yield what the last agent's own measurement does not say of the losses."""
    *_, last = _agent_points(bed, bed.lives)
    expected = {f"dropped_{reason}_total": float(points) for reason, points in lost.items()}
    expected["dropped_points_total"] = float(sum(lost.values()))
    for name, points in expected.items():
        if last.fields.get(name) != points:
            yield f"{name} is {last.fields.get(name)}, and the ledger has {points}"


def _agent_points(bed: Bed, life: int) -> Iterator[Point]:
    """Yield what an agent said of itself in each finished tick."""
    for record in bed.records(life):
        for line in record.lines.splitlines():
            if record.finished and line.startswith(b"agent,"):
                yield parse_line(line.decode())


def _quarantined(bed: Bed) -> Iterator[bytes]:
    for name in ("quarantine.old", "quarantine.lp"):
        path = bed.spool / name
        lines = path.read_bytes().splitlines() if path.exists() else []
        yield from (line for line in lines if not line.startswith(b"#"))


def stored_points(url: str, database: str) -> Iterator[tuple[Key, Fields]]:
    """Yield all points of a database, read by no code of rooflight's."""
    asked = {"db": database, "epoch": "ms", "q": "SELECT * FROM /.*/ GROUP BY *"}
    with urllib.request.urlopen(f"{url}/query?{urllib.parse.urlencode(asked)}") as answer:
        (result,) = json.load(answer)["results"]
    for series in result.get("series", ()):
        tags = tuple(sorted((name, value) for name, value in series["tags"].items() if value))
        for values in series["values"]:
            row = dict(zip(series["columns"], values, strict=True))
            fields = {
                name: value if isinstance(value, str) else float(value)
                for name, value in row.items()
                if name != "time" and value is not None
            }
            yield (series["name"], tags, int(row["time"])), fields

"""Why there is nothing to show: causes, in the words of an admin, and whether to worry.

What a missing measurement means, and what a condition in a query asks for, stands here once; the
tests hold both tables against every query of the dashboards and alert rules.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dashboards.expand import View
from dashboards.pages.scope import (
    NO_ACCOUNT,
    NO_AGENT,
    NO_CEILING,
    NO_DISK,
    NO_FILESYSTEM,
    NO_GPU,
    NO_INFINIBAND,
    NO_JOB,
    NO_PHASE,
    NO_POWER,
    NO_PRESSURE,
    NO_TRAFFIC,
)
from dashboards.query import CLUSTER, Query
from dashboards.rules import EVERYWHERE

HOUR_MS = 3_600_000
SILENT_MS = 300_000
"""Whoever sent nothing for longer is silent; the alert has the same limit."""

LEAST_HOURS = 0.1
FEW_NAMES = 3


class Kind(StrEnum):
    """What sort of cause, as the last line of a check has it."""

    HARDWARE = "hardware or counters that no agent reports"
    WORK = "work that nobody ran"
    TIME = "a time that does not suit"
    WORRY = "needs a look"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is empty; causes that differ only in detail are the same.

    Attributes:
        words: a sentence, as the panel says it where that is right.
        detail: how it was found, or how long ago it was otherwise.

    """

    words: str
    kind: Kind
    detail: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the whole of it in one line."""
        return f"{self.words.rstrip('.')}; {self.detail}" if self.detail else self.words


@dataclass(frozen=True, slots=True)
class Lack:
    """What it means that nothing of a measurement is there.

    Attributes:
        words: as the panels say it.
        needs: measurement without which there cannot be any of this one.

    """

    words: str
    kind: Kind
    needs: str = "agent"


_UNSENT = "An agent is heard of, but sends nothing of this."

LACKS: Mapping[str, Lack] = {
    "agent": Lack(NO_AGENT, Kind.WORRY, needs=""),
    "agent_probe": Lack("No agent has told of its probes yet: ask again in a minute.", Kind.TIME),
    "cpu": Lack(_UNSENT, Kind.WORRY),
    "cpu_bound": Lack(_UNSENT, Kind.WORRY, needs="cpu"),
    "memory": Lack(_UNSENT, Kind.WORRY),
    "network": Lack(_UNSENT, Kind.WORRY),
    "tempdisk": Lack(_UNSENT, Kind.WORRY),
    "pressure": Lack(NO_PRESSURE, Kind.HARDWARE),
    "memory_traffic": Lack(NO_TRAFFIC, Kind.HARDWARE),
    "power": Lack(NO_POWER, Kind.HARDWARE),
    "infiniband": Lack(NO_INFINIBAND, Kind.HARDWARE),
    "blockdisk": Lack(NO_DISK, Kind.HARDWARE),
    "filesystem": Lack(NO_FILESYSTEM, Kind.HARDWARE),
    "gpu": Lack(NO_GPU, Kind.HARDWARE),
    "bound": Lack("GPUs are seen, but not what holds them back.", Kind.WORRY, needs="gpu"),
    "job_gpu_footprint": Lack("No GPU was held.", Kind.WORK, needs="gpu"),
    "job": Lack("No job runs now.", Kind.WORK, needs=""),
    "job_cgroup": Lack(NO_ACCOUNT, Kind.WORRY, needs="job"),
    "job_footprint": Lack("No job has totals yet: ask again in a minute.", Kind.TIME, needs="job"),
    "phase": Lack(NO_PHASE, Kind.WORK, needs=""),
    "ceiling": Lack(NO_CEILING, Kind.WORK, needs=""),
}
"""Measurement -> what it means that there is none."""

_GENERAL = {NO_JOB, *(lack.words for lack in LACKS.values())}
"""What panels say where a whole measurement is missing: wrong where only a field of it is."""

PLACES: Mapping[str, str] = {
    CLUSTER: "",
    EVERYWHERE: "",
    "\"host\" = '$host'": "on {host}",
    '"host" =~ /^$host$/': "on {host}",
    "\"jobid\" = '$jobid'": "job {jobid}",
    '"gpu" =~ /^$gpu$/': "GPU {gpu}",
    '"model" =~ /^$model$/': "{model}",
    '"phase" =~ /^$phase$/': "{phase}",
}
"""Condition on what was chosen -> words for it."""

_NO_JOB_RUNS = Cause(LACKS["job"].words, Kind.WORK)
_NOT_COUNTED = Cause(
    "No phase has its work counted: rooflight workload run does so, and measures the ceilings.",
    Kind.WORK,
)
_GPUS_AT_REST = Cause("The GPUs did nothing that their counters see.", Kind.WORK)

FITS: Mapping[str, Cause] = {
    '"jobid" =~ /^$running$/': _NO_JOB_RUNS,
    '"final_state" = 0': _NO_JOB_RUNS,
    "\"state\" <> 'RUNNING'": Cause("No job has ended.", Kind.WORK),
    '"updated_epoch_milliseconds" >= ${__from}': _NO_JOB_RUNS,
    "\"workload\" <> 'user'": Cause(
        "No reference workload was run: rooflight workload run does so.", Kind.WORK
    ),
    '"compute_ratio" > 0': _NOT_COUNTED,
    '"memory_ratio" > 0': _NOT_COUNTED,
    '"ridge_flops_per_byte" > 0': _NOT_COUNTED,
    '"intensity over ridge" > 0': _GPUS_AT_REST,
    '"reached" > 0': _GPUS_AT_REST,
    '"domain" =~ /^package/': Cause("The CPUs do not tell their power.", Kind.HARDWARE),
    '"domain" =~ /^dram/': Cause("The memory does not tell its power.", Kind.HARDWARE),
    '"domain" =~ /^node$/': Cause("No node has a sensor for all its power.", Kind.HARDWARE),
    "\"domain\" = 'node'": Cause("No node has a sensor for all its power.", Kind.HARDWARE),
    "\"interface\" <> 'lo'": Cause("No network interface but loopback.", Kind.HARDWARE),
}
"""Any other condition -> what it means that nothing fits it."""


def conditions_of(query: Query) -> list[list[str]]:
    """Return the conditions of a query but for its time, those of the innermost selection first."""
    clauses = re.findall(r"WHERE (.*?)(?: GROUP BY| ORDER BY| fill\(|\)|$)", query.text)
    return [
        [each for each in clause.split(" AND ") if not each.startswith(("time ", "$timeFilter"))]
        for clause in clauses
    ]


def root(measurement: str, holds: Callable[[str], bool]) -> str:
    """Return the last in a row of what a measurement needs for which something holds.

    "" if it does not hold for the measurement itself.
    """
    found = ""
    while measurement and holds(measurement):
        found, measurement = measurement, LACKS[measurement].needs
    return found


def absent(measurement: str, place: str = "") -> Cause:
    """Return the cause: there is nothing of a measurement, anywhere or in a place."""
    lack = LACKS[measurement]
    known = lack.kind in (Kind.WORK, Kind.TIME) or "rooflight check" in lack.words
    why = "" if known else f": rooflight check {'there' if place else 'on a node'} says why"
    return Cause(_at(place, lack.words), lack.kind, _none_of(measurement, place) + why)


def without(measurement: str, name: str, meaning: str, empty: str, place: str = "") -> Cause:
    """Return the cause: a measurement is there, but not one field of it."""
    what = f"{measurement}.{name}"
    if empty and empty not in _GENERAL:
        return Cause(_at(place, empty), Kind.HARDWARE, _none_of(what, place))
    return Cause(_at(place, f"Nothing tells {what} ({meaning})."), Kind.HARDWARE)


def late(measurement: str, newest_ms: float, view: View, empty: str = "") -> Cause:
    """Return the cause: all there is of a measurement is older than the time shown."""
    lack, age_ms = LACKS[measurement], view.until_ms - newest_ms
    detail = f"the newest of {measurement} is {spell(age_ms)} before the end of this time"
    if lack.kind is Kind.WORK:
        return Cause(empty or lack.words, Kind.WORK, detail)
    if max(age_ms, view.until_ms - view.since_ms) < SILENT_MS:
        words = f"Too short a time: try --hours {LEAST_HOURS}, or a longer job."
        return Cause(words, Kind.TIME, detail)
    hint = ": does it run (systemctl status rooflight-agent)?" if measurement == "agent" else ""
    return Cause(lack.words, Kind.WORRY, detail + hint)


def early() -> Cause:
    """Return the cause: all there is is newer than the time shown."""
    words = "All that is left of this is newer: the store drops what is old."
    return Cause(words, Kind.TIME, "influx.retention_days says when")


def few(view: View, points: int, oldest_ms: float, newest_ms: float) -> Cause:
    """Return the cause: a rate takes samples in two points of a panel, and there is one."""
    interval = view.interval_ms(points)
    shorter = replace(view, since_ms=int(view.until_ms - LEAST_HOURS * HOUR_MS))
    span = newest_ms - max(oldest_ms, shorter.since_ms)
    if shorter.interval_ms(points) <= min(span, interval - 1):
        words = f"Too long a time for a rate: try --hours {LEAST_HOURS}."
        spans = f"each point of the panel spans {spell(interval)}"
        return Cause(words, Kind.TIME, f"{spans}, longer than the agent or job ran")
    if view.until_ms - view.since_ms < 2 * interval:
        words = f"Too short a time for a rate: it takes two points of {spell(interval)}."
        return Cause(words, Kind.TIME, "try more --hours, or a longer job")
    return Cause("Too few samples for a rate: let the agent run for a minute.", Kind.TIME)


def place_of(conditions: Iterable[str], view: View) -> str:
    """Return words for what a query is confined to by what was chosen."""
    chosen = {
        name: value if isinstance(value, str) else briefly(value, ", ")
        for name, value in view.variables.items()
    }
    words = (PLACES[each].format(**chosen) for each in conditions if each in PLACES)
    return ", ".join(dict.fromkeys(filter(None, words)))


def heaviest(causes: Sequence[Cause], empty: str) -> Cause:
    """Return which of several to tell: a worry, else what the panel itself says."""
    return min(causes, key=lambda each: (each.kind is not Kind.WORRY, each.words != empty))


def briefly(names: Sequence[str], separator: str) -> str:
    """Return the first few names, and how many more there are."""
    if len(names) <= FEW_NAMES + 1:
        return separator.join(names)
    more = f"and {len(names) - FEW_NAMES} more"
    return separator.join([*names[:FEW_NAMES], more])


def spell(milliseconds: float) -> str:
    """Return a duration in its largest whole unit."""
    for unit, size in (("d", 24 * HOUR_MS), ("h", HOUR_MS), ("min", 60_000)):
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.0f} {unit}"
    return f"{milliseconds / 1000:.0f} s"


def _none_of(what: str, place: str) -> str:
    return f"there is nothing of {what}" if place else f"no agent ever sent {what}"


def _at(place: str, words: str) -> str:
    return f"{place[0].upper()}{place[1:]}: {words}" if place else words

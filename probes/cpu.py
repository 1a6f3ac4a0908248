"""Processor time, load and clock of the whole node."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from probes.parsing import ONE_RECORD, KeptFile, counters, number, read_number, whole_lines
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample
from probes.seldom import Seldom

COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""First columns of a `cpu` line. The two after them, guest times, are already in user and nice."""
IDLE, IOWAIT = COLUMNS.index("idle"), COLUMNS.index("iowait")

TOTALS = {
    b"ctxt": "context_switches_total",
    b"processes": "forks_total",
    b"procs_running": "running_total",
    b"procs_blocked": "blocked_total",
}
LOADS = ("load_1m_load", "load_5m_load", "load_15m_load")

FREQUENCY_SECONDS = 10.0
"""How old a clock may be: reading it costs about 10 us per CPU, more than all the rest here."""

Ticks = Sequence[float]


class Stat(NamedTuple):
    """What /proc/stat says.

    Attributes:
        node: ticks of all CPUs by column, as `COLUMNS`; None if the line is malformed.
        cpus: the same of every CPU, by name.
        totals: the numbers of other lines, by field name.

    """

    node: Ticks | None
    cpus: Mapping[bytes, Ticks]
    totals: Mapping[str, float]


class CpuProbe(Probe):
    """Reads /proc/stat, /proc/loadavg and the CPUs' clocks.

    Ratios are of the time since the last sample, so the first sample has none. Sources: `man 5
    proc_stat`, `man 5 proc_loadavg`, kernel documentation `admin-guide/pm/cpufreq`.
    """

    name = "cpu"

    def __init__(self, context: Context) -> None:
        proc, sys = context.roots.proc, context.roots.sys
        self._stat = KeptFile(proc / "stat", ONE_RECORD)
        self._load = KeptFile(proc / "loadavg", ONE_RECORD)
        self._cpuinfo = proc / "cpuinfo"
        self._clocks = sorted((sys / "devices/system/cpu").glob("cpu*/cpufreq/scaling_cur_freq"))
        self._frequency = Seldom(self._read_frequency, FREQUENCY_SECONDS)
        self._monotonic = context.monotonic
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self._last: Stat | None = None
        if not self._stat.path.exists():
            raise ProbeUnavailable(f"{self._stat.path} is absent")

    def sample(self) -> Sequence[Sample]:
        """Read the processors' time, load and clock.

        Raises:
            OSError: /proc/stat cannot be read.

        """
        stat = parse_stat(self._stat.read())
        fields = dict(stat.totals)
        if stat.node:
            for column, ticks in zip(COLUMNS, stat.node, strict=True):
                fields[f"{column}_seconds"] = ticks / self._ticks_per_second
        if stat.cpus and stat.totals:  # the totals come last: with them, the list of CPUs is whole
            fields["cpus_total"] = float(len(stat.cpus))
        if self._last:
            fields |= ratios(self._last, stat)
        self._last = stat
        with suppress(OSError):
            fields |= parse_loadavg(self._load.read())
        if (frequency := self._frequency.values(self._monotonic())) is not None:
            fields["frequency_hertz"] = frequency
        return [Sample("cpu", (), fields)] if fields else []

    def close(self) -> None:
        """Close the kept files."""
        self._stat.close()
        self._load.close()

    def _read_frequency(self) -> float | None:
        kilohertz = [value for path in self._clocks if (value := read_number(path))]
        if kilohertz:
            return 1e3 * sum(kilohertz) / len(kilohertz)
        return read_cpuinfo_frequency(self._cpuinfo)


def parse_stat(content: bytes) -> Stat:
    """Parse /proc/stat; malformed lines are left out, and so is a `cpu` line unlike the others.

    A kernel writes the same columns, with one space between, in every `cpu` line: a line that
    lacks one would be read with its numbers shifted. Source: fs/proc/stat.c, show_stat.
    """
    rows: dict[bytes, list[bytes]] = {}
    totals: dict[str, float] = {}
    for line in whole_lines(content):
        name, _, rest = line.partition(b" ")
        if name.startswith(b"cpu"):
            rows[name] = rest.removeprefix(b" ").split(b" ")  # that of all CPUs has one space more
        elif name in TOTALS and (value := number(rest)) is not None:
            totals[TOTALS[name]] = value
    width = _usual_width(rows.values())
    cpus = {name: ticks for name, row in rows.items() if (ticks := _ticks(row, width))}
    return Stat(cpus.pop(b"cpu", None), cpus, totals)


def _usual_width(rows: Collection[Sequence[bytes]]) -> int:
    """Return how many columns more than half of the lines have; 0 if no number has so many."""
    widths = Counter(map(len, rows))
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return width if 2 * count > len(rows) else 0


def _ticks(row: Sequence[bytes], width: int) -> Ticks | None:
    if len(row) != width or width < len(COLUMNS) or not all(row):
        return None
    return counters(row[: len(COLUMNS)])


def ratios(before: Stat, now: Stat) -> dict[str, float]:
    """Return the ratios of the time between two readings; absent where no time has passed."""
    fields = {}
    if before.node and now.node:
        passed = _passed(before.node, now.node)
        if total := sum(passed):
            fields["utilization_ratio"] = _busy(passed) / total
            fields["iowait_ratio"] = passed[IOWAIT] / total
    busy_ratios = [
        _busy_ratio(before.cpus[name], ticks)
        for name, ticks in now.cpus.items()
        if name in before.cpus
    ]
    if told := [ratio for ratio in busy_ratios if ratio is not None]:
        fields["busiest_core_ratio"] = max(told)
    return fields


def _busy_ratio(before: Ticks, now: Ticks) -> float | None:
    """Return one CPU's ratio, idle and iowait as one: 0.33 ms for 256 CPUs, by column 0.62."""
    total = sum(now) - sum(before)
    idle = now[IDLE] + now[IOWAIT] - before[IDLE] - before[IOWAIT]
    return min(1.0, max(0.0, 1.0 - idle / total)) if total > 0 else None


def _passed(before: Ticks, now: Ticks) -> Ticks:
    # iowait may go backwards (man 5 proc_stat), and a CPU that was offline may start again
    return [new - old if new > old else 0.0 for old, new in zip(before, now, strict=True)]


def _busy(passed: Ticks) -> float:
    return max(0.0, sum(passed) - passed[IDLE] - passed[IOWAIT])


def parse_loadavg(content: bytes) -> dict[str, float]:
    """Parse /proc/loadavg: mean numbers of processes over 1, 5 and 15 minutes."""
    words = b" ".join(whole_lines(content)).split()
    loads = [number(word) for word in words[: len(LOADS)]]
    return {name: load for name, load in zip(LOADS, loads, strict=False) if load is not None}


def read_cpuinfo_frequency(path: Path) -> float | None:
    """Return the mean of the `cpu MHz` lines of /proc/cpuinfo in hertz; None if there are none."""
    try:
        lines = whole_lines(path.read_bytes())
    except OSError:
        return None
    values = [number(line.partition(b":")[2]) for line in lines if line.startswith(b"cpu MHz")]
    megahertz = [value for value in values if value]
    return 1e6 * sum(megahertz) / len(megahertz) if megahertz else None

"""Measure what sampling once a second costs: rooflight in four ways, collectd, node_exporter.

One program after the other, in rounds, so that a machine that slows down slows all of them; with
--quick all at the same time.
"""

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import contenders
from tests.benchmarks.accounting import cpu_seconds, memory
from tests.benchmarks.contenders import Contender
from tests.integration.services import influxd

MEBIBYTE = 2.0**20
LATENESS = ("late_median", "late_p99")
VERSION_OPTIONS = {"influxd": "version", "collectd": "-h", "prometheus-node-exporter": "--version"}

BASE = "rooflight, sampling only"
LOCAL = "rooflight agent, local store"
SHIPPING = "rooflight agent, to InfluxDB"
GPU_NODE = "rooflight, 8 GPUs, 4 IB ports, 4 jobs"
COLLECTD = "collectd"
EXPORTER = "node_exporter"
NAMES = (BASE, LOCAL, SHIPPING, GPU_NODE, COLLECTD, EXPORTER)

WARM_UP_SECONDS = 12
"""Longer than the agent waits before it first ships: what is imported then is not counted."""
QUICK_WARM_UP_SECONDS = 3

Make = Callable[[Path], Contender]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one program costs at one sample a second.

    Attributes:
        cpu: milliseconds of CPU per sample, user and system.
        resident: MiB in memory at the end.
        proportional: the same, shared pages in proportion.
        lines: lines per sample.
        size: bytes per sample.
        late_median: milliseconds that a sample was late; None where the program does not say.
        late_p99: the same, 99 of 100 are earlier.

    """

    cpu: float
    resident: float
    proportional: float
    lines: float
    size: float
    late_median: float | None
    late_p99: float | None


def measure(running: Mapping[str, Contender], seconds: int, warm_up: int) -> dict[str, Figures]:
    """Start programs, let them warm up, and return their figures over so many seconds."""
    with contextlib.ExitStack() as stack:
        for contender in running.values():
            contender.start()
            stack.callback(contender.kill)
        _watch(running, warm_up)
        before = {name: cpu_seconds(each.process.pid) for name, each in running.items()}
        _watch(running, seconds)
        used = {
            name: cpu_seconds(each.process.pid) - before[name] for name, each in running.items()
        }
        return {name: _figures(each, used[name] / seconds) for name, each in running.items()}


def _watch(running: Mapping[str, Contender], seconds: int) -> None:
    """Wait from the middle of a second to the middle of another: ticks lie at whole seconds."""
    for _ in range(seconds):
        _sleep_until_fraction(0.0)
        for contender in running.values():
            contender.check()
            contender.each_second()
        _sleep_until_fraction(0.5)


def _sleep_until_fraction(fraction: float) -> None:
    time.sleep((fraction - time.time()) % 1.0)


def _figures(contender: Contender, cpu_per_second: float) -> Figures:
    held = memory(contender.process.pid)
    output = contender.output()
    late = [1e3 * seconds for seconds in output.lateness]
    return Figures(
        cpu=1e3 * cpu_per_second,
        resident=held.resident / MEBIBYTE,
        proportional=held.proportional / MEBIBYTE,
        lines=output.lines,
        size=output.size,
        late_median=statistics.median(late) if late else None,
        late_p99=statistics.quantiles(late, n=100, method="inclusive")[98] if late else None,
    )


@contextlib.contextmanager
def programs() -> Iterator[dict[str, Make]]:
    """Give the programs that are installed here, by the name of their row."""
    with contextlib.ExitStack() as stack:
        there: dict[str, Make] = {BASE: contenders.Sampling, LOCAL: contenders.Agent}
        if contenders.find("influxd"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = stack.enter_context(influxd(folder)).url
            there[SHIPPING] = lambda folder: contenders.ShippingAgent(folder, url=url)
        if contenders.find("cc"):
            there[GPU_NODE] = contenders.SamplingGpuNode
        if contenders.find("collectd"):
            there[COLLECTD] = contenders.Collectd
        if contenders.find("prometheus-node-exporter"):
            there[EXPORTER] = contenders.NodeExporter
        yield there


def run(seconds: int, rounds: int, *, together: bool = False) -> dict[str, list[Figures]]:
    """Return the figures of every round by the program's name; each round begins all anew."""
    results: dict[str, list[Figures]] = {}
    with programs() as there, tempfile.TemporaryDirectory() as top:
        for number in range(rounds):
            made = {
                name: make(Path(top) / f"{number}-{place}")
                for place, (name, make) in enumerate(there.items())
            }
            groups = [made] if together else [{name: each} for name, each in made.items()]
            for group in groups:
                warm_up = QUICK_WARM_UP_SECONDS if together else WARM_UP_SECONDS
                for name, figures in measure(group, seconds, warm_up).items():
                    results.setdefault(name, []).append(figures)
    return results


def table(results: Mapping[str, Sequence[Figures]]) -> str:
    """Return the means over all rounds as a Markdown table; CPU with its range over the rounds."""
    base = statistics.fmean(figures.cpu for figures in results[BASE])
    rows = [
        "| program | CPU ms/sample | ratio | RSS MiB | PSS MiB | lines | bytes | late p50 | p99 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rounds in results.items():
        cpus = [figures.cpu for figures in rounds]
        spread = f"{statistics.fmean(cpus):.2f} ({min(cpus):.2f}-{max(cpus):.2f})"
        cells = [spread, f"{statistics.fmean(cpus) / base:.2f}"]
        cells += [f"{_mean(rounds, name):.0f}" for name in ("resident", "proportional")]
        cells += [f"{_mean(rounds, name):.0f}" for name in ("lines", "size")]
        told = rounds[0].late_p99 is not None
        cells += [f"{_mean(rounds, name):.2f}" if told else "" for name in LATENESS]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    absent = [name for name in NAMES if name not in results]
    rows += [f"\nNot installed here, or without its means: {', '.join(absent)}."] if absent else []
    return "\n".join(rows)


def _mean(rounds: Sequence[Figures], name: str) -> float:
    return statistics.fmean(getattr(figures, name) for figures in rounds)


def heading(seconds: int, rounds: int) -> str:
    """Return where, when, how and with which versions this was measured."""
    versions = ", ".join(_versions())
    return f"{machine()}, {versions}. {rounds} rounds of {seconds} s at one sample a second."


def machine() -> str:
    """Return the day, the machine and the versions that every figure here depends on."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {os.cpu_count()} CPUs, Linux "
        f"{platform.release()}, Python {platform.python_version()}; "
        f"rooflight {version('rooflight')}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _versions() -> Iterator[str]:
    for program, option in VERSION_OPTIONS.items():
        if path := contenders.find(program):
            said = subprocess.run([path, option], capture_output=True, text=True)
            number = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
            yield f"{program} {number[0] if number else '?'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="measured in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="10 s, one round, all at once")
    parser.add_argument("--output", type=Path, help="write the table to a file, too")
    arguments = parser.parse_args()
    seconds, rounds = (10, 1) if arguments.quick else (arguments.seconds, arguments.rounds)
    results = run(seconds, rounds, together=arguments.quick)
    text = f"{heading(seconds, rounds)}\n\n{table(results)}\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()

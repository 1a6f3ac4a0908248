"""Measure what sampling costs: rooflight in several ways, collectd, node_exporter and PCP.

One program after the other, in rounds, so that a machine that slows down slows all of them; with
--quick all at the same time.
"""

import argparse
import contextlib
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import contenders, instructions, pcp, under_load
from tests.benchmarks.accounting import memory, usage
from tests.benchmarks.contenders import Contender
from tests.benchmarks.instructions import REPEATS, Count, Load
from tests.benchmarks.tables import Figures, loaded_table, markdown, table
from tests.integration.services import influxd

MEBIBYTE = 2.0**20
VERSION_OPTIONS = {
    "influxd": "version",
    "collectd": "-h",
    "prometheus-node-exporter": "--version",
    "stress-ng": "--version",
    "valgrind": "--version",
}

BASE = "rooflight, sampling only"
LOCAL = "rooflight agent, local store"
SHIPPING = "rooflight agent, to InfluxDB"
GPU_NODE = "rooflight, 8 GPUs, 4 IB ports, 4 jobs"
TREES = "rooflight, the same, jobs by process tree"
COLLECTD = "collectd"
EXPORTER = "node_exporter"
PCP = "pcp: pmcd, pmlogger"
NAMES = (BASE, LOCAL, SHIPPING, GPU_NODE, TREES, COLLECTD, EXPORTER, PCP)
LATE = (LOCAL, GPU_NODE)
"""Programs that are watched on a loaded machine: the whole agent, and the longest ticks."""

PARTS = ("second", "ten-seconds", "load", "instructions")

Make = Callable[[Path, float], Contender]
Results = dict[str, list[Figures]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        interval: seconds between two samples.
        samples: in each round.
        warm_up: samples before, so long that the agent has shipped once: what is imported and
            opened until then is not counted.
        rounds: each begins all anew.

    """

    interval: float
    samples: int
    warm_up: int
    rounds: int

    def __str__(self) -> str:
        pace = "Every second" if self.interval == 1 else f"Every {self.interval:g} s"
        rounds = f"{self.rounds} round{'s' if self.rounds > 1 else ''}"
        return f"{pace}, {rounds} of {self.samples} samples"


SECOND = Plan(1.0, samples=30, warm_up=12, rounds=2)
TEN_SECONDS = Plan(10.0, samples=5, warm_up=2, rounds=1)
LOADED = Plan(1.0, samples=60, warm_up=1, rounds=1)
QUICK = Plan(1.0, samples=10, warm_up=3, rounds=1)


def measure(running: Mapping[str, Contender], plan: Plan) -> dict[str, Figures]:
    """Start programs, let them warm up, and return their figures over a round."""
    with contextlib.ExitStack() as stack:
        for contender in running.values():
            stack.callback(contender.kill)
            contender.start()
        _watch(running, plan.interval, plan.warm_up)
        before = {name: usage(each.pids) for name, each in running.items()}
        _watch(running, plan.interval, plan.samples)
        after = {name: usage(each.pids) for name, each in running.items()}
        return {
            name: _figures(
                each,
                cpu=1e3 * (after[name].cpu_seconds - before[name].cpu_seconds) / plan.samples,
                wakeups=(after[name].wakeups - before[name].wakeups) / plan.samples,
            )
            for name, each in running.items()
        }


def _watch(running: Mapping[str, Contender], interval: float, samples: int) -> None:
    """Wait from between two ticks to between two others; they lie at multiples of the interval."""
    for _ in range(samples):
        _sleep_until(0.0, interval)
        for contender in running.values():
            contender.check()
            contender.each_sample()
        _sleep_until(interval / 2, interval)


def _sleep_until(moment: float, interval: float) -> None:
    time.sleep((moment - time.time()) % interval)


def _figures(contender: Contender, cpu: float, wakeups: float) -> Figures:
    held = memory(*contender.pids)
    output = contender.output()
    return Figures(
        cpu=cpu,
        wakeups=wakeups,
        resident=held.resident / MEBIBYTE,
        proportional=held.proportional / MEBIBYTE,
        lines=output.lines,
        size=output.size,
        late=[1e3 * seconds for seconds in output.lateness],
        skipped=output.skipped,
    )


@contextlib.contextmanager
def programs() -> Iterator[dict[str, Make]]:
    """Give the programs that are installed here, by the name of their row."""
    with contextlib.ExitStack() as stack:
        there: dict[str, Make] = {
            BASE: lambda folder, interval: contenders.Sampling(folder, interval=interval),
            LOCAL: lambda folder, interval: contenders.Agent(folder, interval=interval),
        }
        if contenders.find("influxd"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = stack.enter_context(influxd(folder)).url
            there[SHIPPING] = lambda folder, interval: contenders.ShippingAgent(
                folder, url, interval=interval
            )
        yield {**there, **_others()}


def _others() -> dict[str, Make]:
    kinds: dict[str, tuple[type[Contender], bool]] = {
        GPU_NODE: (contenders.SamplingGpuNode, bool(contenders.find("cc"))),
        TREES: (contenders.SamplingProcessTrees, bool(contenders.find("cc"))),
        COLLECTD: (contenders.Collectd, bool(contenders.find("collectd"))),
        EXPORTER: (contenders.NodeExporter, bool(contenders.find("prometheus-node-exporter"))),
        PCP: (pcp.Pcp, pcp.found()),
    }
    return {name: _maker(kind) for name, (kind, is_there) in kinds.items() if is_there}


def _maker(kind: type[Contender]) -> Make:
    return lambda folder, interval: kind(folder, interval=interval)


def run(plan: Plan, names: Collection[str] = NAMES, *, together: bool = False) -> Results:
    """Return the figures of every round by the program's name; each round begins all anew."""
    results: Results = {}
    with programs() as there, tempfile.TemporaryDirectory() as top:
        for number in range(plan.rounds):
            made = {
                name: make(Path(top) / f"{number}-{place}", plan.interval)
                for place, (name, make) in enumerate(there.items())
                if name in names
            }
            groups = [made] if together else [{name: each} for name, each in made.items()]
            for group in groups:
                for name, figures in measure(group, plan).items():
                    results.setdefault(name, []).append(figures)
    return results


def loads(interval: float) -> dict[str, Load]:
    """Return of which rows instructions are counted, and how."""
    host = {BASE: Load(interval=interval)}
    if interval > 1 or not contenders.find("cc"):  # GPM is then read between the ticks, too
        return host
    return {**host, GPU_NODE: Load("slurm"), TREES: Load("trees")}


def count_all() -> dict[Plan, dict[str, Count]]:
    """Return instructions per sample by how often it is sampled, and by the row's name."""
    plans = {plan: loads(plan.interval) for plan in (SECOND, TEN_SECONDS)}
    counts = instructions.count([load for wanted in plans.values() for load in wanted.values()])
    return {
        plan: {name: counts[load] for name, load in wanted.items()}
        for plan, wanted in plans.items()
    }


def chapters(parts: Collection[str], second: Plan) -> Iterator[str]:
    """Yield the report's parts, each as soon as it is measured."""
    counts = count_all() if "instructions" in parts and instructions.available() else {}
    results: Results = {}
    if "second" in parts:
        results = run(second)
        yield _chapter(second, results, counts.get(SECOND, {}))
    if "ten-seconds" in parts:
        seldom = run(TEN_SECONDS, [name for name in NAMES if name != TREES])
        yield _chapter(TEN_SECONDS, seldom, counts.get(TEN_SECONDS, {}))
    if "load" in parts and contenders.find("stress-ng"):
        yield loaded_chapter(results)
    if counts:
        yield counted_chapter(counts)


def _chapter(plan: Plan, results: Results, counts: Mapping[str, Count]) -> str:
    means = {name: count.mean for name, count in counts.items()}
    absent = [name for name in NAMES if name not in results]
    left_out = f"\n\nNot measured here: {', '.join(absent)}." if absent else ""
    return f"{plan}:\n\n{table(results, BASE, means)}{left_out}"


def counted_chapter(counts: Mapping[Plan, Mapping[str, Count]]) -> str:
    """Return each count of instructions, so that it is seen how well they repeat."""
    rows = [
        [name, f"{plan.interval:g} s", *_millions(count.figures), f"{count.spread:.2%}"]
        for plan, of_plan in counts.items()
        for name, count in of_plan.items()
    ]
    head = ["M instructions/sample", "every", *map(str, range(1, REPEATS + 1)), "apart"]
    return f"Instructions outside of the kernel, counted by valgrind:\n\n{markdown(head, rows)}"


def _millions(figures: Sequence[float]) -> list[str]:
    return [f"{figure / 1e6:.3f}" for figure in figures]


def loaded_chapter(idle: Results) -> str:
    """Measure lateness beside stress-ng, and tell it beside that of the idle machine."""
    priority = under_load.unit_priority()
    with programs() as there:
        rows: dict[tuple[str, str], Sequence[Figures]] = {}
        for name in LATE:
            if name in idle:
                rows[name, "idle"] = idle[name]
            if name in there:
                busy, share = _loaded(there[name], priority.niceness)
                rows[name, f"stress-ng on {share:.0%} of the CPUs"] = [busy]
    words = f"Once a second under `{' '.join(under_load.COMMAND)}`; {priority}"
    return f"{words}:\n\n{loaded_table(rows)}"


def _loaded(make: Make, niceness: int) -> tuple[Figures, float]:
    """Return the figures of a program on a loaded machine, and stress-ng's share of the CPUs."""
    with tempfile.TemporaryDirectory() as top, under_load.stress(Path(top)) as stress:
        contender = make(Path(top) / "program", LOADED.interval)
        contender.niceness = niceness
        (figures,) = measure({"": contender}, LOADED).values()
        return figures, stress.share()


def heading() -> str:
    """Return when, where and with which versions this was measured."""
    return f"{machine()}, {', '.join(_versions())}."


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
    if pcp.found():
        yield f"pcp {pcp.version()}"


def report(parts: Collection[str], plan: Plan) -> Iterator[str]:
    yield heading()
    yield from chapters(parts, plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECOND.samples, help="once a second")
    parser.add_argument("--rounds", type=int, default=SECOND.rounds, help="of them")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="10 s, one round, all at once")
    parser.add_argument("--output", type=Path, help="write the tables to a file, too")
    arguments = parser.parse_args()
    if arguments.quick:
        texts = iter([heading(), _chapter(QUICK, run(QUICK, together=True), {})])
    else:
        plan = Plan(SECOND.interval, arguments.seconds, SECOND.warm_up, arguments.rounds)
        texts = report(arguments.parts, plan)
    told = ""
    for text in texts:
        print(f"{text}\n", flush=True)
        told += f"{text}\n\n"
    if arguments.output:
        arguments.output.write_text(told.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()

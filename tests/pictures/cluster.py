"""A small cluster at work, for pictures: seven simulated nodes with a replayed H100 each.

The nodes are those of `integration/simulated.py`, twenty minutes up to now; what their GPUs do is
made of the levels of `nvml/make_traces.py`. Job 1001 trains on three nodes, one of them slower;
1002 serves a language model; 1003 holds a GPU for nothing; 1004 streams weights from the host's
memory; 1005 failed, and its node is free.
"""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from shutil import ignore_patterns
from typing import NamedTuple

import msgspec

from agent.messages import JobStart, PointMessage
from tests.golden.machine import MACHINES
from tests.integration import dashboard_site
from tests.integration.commands import Site
from tests.integration.services import Service
from tests.integration.simulated import TICK_SECONDS, SimulatedJob, Simulation
from tests.nvml import make_traces
from tests.nvml.build import environment
from tests.nvml.make_traces import DECODE, HELD, OFFLOAD, PREFILL, TRAINING, Level

CLUSTER = "hall2"
TICKS = 120
LONGEST_SECONDS = 300

COMPUTE_ROOF, MEMORY_ROOF = 700e12, 3e12
"""Of each GPU, as `dashboard_site.ceilings` has them: FLOP/s and bytes/s."""

FREE = HELD._replace(watts=72.0, megahertz=345)
STEADY = TRAINING._replace(deviation=0.02)
SLOWER = STEADY._replace(utilization=74, watts=560)

Stretches = Sequence[tuple[int, Level]]
"""For how many seconds a GPU does what; again from the first when the last is over."""

CHECKPOINT = (20, HELD)
STEPS: Stretches = ((180, STEADY), CHECKPOINT)
"""Training, and a checkpoint every three minutes."""


class Node(NamedTuple):
    """A node, its job, and the load of its GPU while the job runs.

    Attributes:
        begins: tick at which the job begins.
        ends: tick at which it ends; -1 for never.
        cpus: how many of its four the job keeps busy.

    """

    host: str
    job: JobStart
    load: Stretches
    begins: int = 6
    ends: int = -1
    exit_code: int = 0
    cpus: float = 3.0


def _job(jobid: str, user: str, name: str, nodes: str) -> JobStart:
    made = dashboard_site.job(jobid, gpu="0", nodes=nodes)
    return msgspec.structs.replace(made, user=user, name=name)


_TRAINING = _job("1001", "ann", "train-7b", "gpu[1-3]")

NODES = (
    Node("gpu1", _TRAINING, STEPS),
    Node("gpu2", _TRAINING, STEPS),
    Node("gpu3", _TRAINING, ((180, SLOWER), CHECKPOINT), cpus=2.8),
    Node("gpu4", _job("1002", "bob", "serve-70b", "gpu4"), ((60, PREFILL), (120, DECODE)), 20),
    Node("gpu5", _job("1003", "cem", "notebook", "gpu5"), ((60, HELD),), 2, cpus=0.1),
    Node("gpu6", _job("1004", "dora", "offload", "gpu6"), ((60, OFFLOAD),), 30, 110, cpus=1.1),
    Node("gpu7", _job("1005", "eva", "decode-test", "gpu7"), ((60, DECODE),), 12, 55, exit_code=1),
)


def fill(folder: Path, service: Service) -> tuple[Site, int]:
    """Play all nodes, and return a site that asks of them and when they began."""
    now = int(time.time()) // TICK_SECONDS * TICK_SECONDS
    begin_ms = (now - TICK_SECONDS * (TICKS - 1)) * 1000
    sites = [_site(folder / node.host, service, node.host) for node in NODES]
    sites[0].call("rooflight", "store", "setup")
    playing = [_play(site, node, begin_ms) for site, node in zip(sites, NODES, strict=True)]
    for each in playing:
        words, _ = each.communicate(timeout=LONGEST_SECONDS)
        assert each.returncode == 0, words
    return sites[0], begin_ms


def _site(folder: Path, service: Service, host: str) -> Site:
    site = dashboard_site.host_site(folder, service, host)
    text = site.file.read_text().replace(f'"{dashboard_site.CLUSTER}"', f'"{CLUSTER}"')
    text = text.replace('"dash', '"hall')
    site.file.write_text(text)
    return site


def _play(site: Site, node: Node, begin_ms: int) -> subprocess.Popen[str]:
    played = SimulatedJob(node.job, node.begins, node.ends, node.exit_code, node.cpus)
    points = [*_ceilings(node.host, begin_ms)]
    points += _phases(begin_ms) if node is NODES[0] else []
    fixture = site.folder / "fixture"
    # of CPUs' energy, its counters wrap at every tick, which no real one's do
    shutil.copytree(MACHINES / "gpu_node", fixture, ignore=ignore_patterns("powercap", "hwmon"))
    simulation = Simulation(
        str(site.file),
        str(site.folder),
        begin_ms,
        TICKS,
        machine=str(fixture),
        jobs=[played],
        points=points,
    )
    (site.folder / "simulation.json").write_bytes(msgspec.json.encode(simulation))
    trace = site.folder / "trace.csv"
    trace.write_text(_trace(node))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.simulated", str(site.folder / "simulation.json")],
        env={**site.variables(), **environment(trace, clock=str(site.folder / "nvml-clock"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ceilings(host: str, begin_ms: int) -> Iterator[PointMessage]:
    """Yield what the node's one GPU reaches."""
    for point in dashboard_site.ceilings(host, begin_ms):
        if point.tags["device"] == "cuda:0":
            yield point


def _phases(begin_ms: int) -> Iterator[PointMessage]:
    """Yield the phases of job 1001 on its first node: two under one roof, one under the other."""
    reached = (
        ("train.forward", 290.0, 0.81, 0.37, "compute"),
        ("train.backward", 540.0, 0.78, 0.41, "compute"),
        ("train.optimizer", 70.0, 0.004, 0.86, "memory"),
    )
    template = dashboard_site.phases(begin_ms)[0]
    for number, (name, seconds, compute, memory, bound) in enumerate(reached):
        speed, moved = compute * COMPUTE_ROOF, memory * MEMORY_ROOF
        fields: dict[str, float | str] = {
            "duration_seconds": seconds,
            "flops_per_second": speed,
            "moved_bytes_per_second": moved,
            "intensity_flops_per_byte": speed / moved,
            "ridge_flops_per_byte": COMPUTE_ROOF / MEMORY_ROOF,
            "compute_ratio": compute,
            "memory_ratio": memory,
            "bound": bound,
            "explanation": f"{max(compute, memory):.0%} of the {bound} roof",
        }
        yield msgspec.structs.replace(
            template,
            tags={**template.tags, "phase": name},
            fields={**template.fields, **fields},
            time_ms=begin_ms + 200_000 + 30_000 * number,
        )


def _trace(node: Node) -> str:
    """Return what NVML says of the node's GPU, a row for each second."""
    chance = random.Random(node.host)
    totals = make_traces.Totals()
    rows = [
        make_traces.row(second, [level], 1 + chance.gauss(0, level.deviation), totals)
        for second, level in enumerate(islice(_levels(node), TICKS * TICK_SECONDS + 1))
    ]
    device = make_traces.GPU.format(number=NODES.index(node))
    return "\n".join([device, make_traces.COLUMNS, *rows]) + "\n"


def _levels(node: Node) -> Iterator[Level]:
    """Yield what the GPU does, second by second: nothing before and after the job."""
    before = repeat(FREE, node.begins * TICK_SECONDS)
    working = _each_second(cycle(node.load))
    if node.ends >= 0:
        working = islice(working, (node.ends - node.begins) * TICK_SECONDS)
    return chain(before, working, repeat(FREE))


def _each_second(stretches: Iterable[tuple[int, Level]]) -> Iterator[Level]:
    for seconds, level in stretches:
        yield from repeat(level, seconds)

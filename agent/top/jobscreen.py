"""A job: a line for each of its hosts, and under it one for each GPU that the job holds."""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from agent.inspect.model import JobHeader
from agent.inspect.units import show_seconds
from agent.top.gpurows import Columns, columns, gpu_row, heading, memory_bar
from agent.top.keys import State
from agent.top.model import Frame, Host
from agent.top.nodescreen import flow_words
from agent.top.paint import (
    Line,
    Piece,
    amount,
    bar,
    brief,
    joined,
    left,
    left_tail,
    line,
    percent,
)

LABEL, WIDE_LABEL = 11, 24
NAME = 16


def title(job: JobHeader) -> str:
    """Return who runs what, in which state, and for how long."""
    name = left(job.name, NAME).rstrip()
    nodes = f"{job.nodes} node{'s' if job.nodes > 1 else ''}"
    return "  ".join(filter(None, (f"job {job.jobid}", _state(job), nodes, job.user, name)))


def host_block(frame: Frame, state: State, width: int) -> tuple[Line, list[Line]]:
    """Return the names of the columns, and the lines of hosts and GPUs."""
    longest = max((len(host.name) for host in frame.hosts), default=0)
    shape = columns(width, label=0)
    label = min(max(longest, LABEL), WIDE_LABEL if shape.wide else LABEL)
    shape = columns(width, label)
    rows: list[Line] = []
    for host in in_order(frame.hosts, state):
        rows.append(_host_row(host, shape))
        if state.gpus:
            rows += [gpu_row(gpu, shape, frame.at_ms) for gpu in host.gpus]
    return heading(shape, "HOST / GPU", "busy"), rows


def in_order(hosts: Sequence[Host], state: State) -> list[Host]:
    """Return the hosts as the user wants them sorted; of equals, by name."""
    by_name = sorted(hosts, key=lambda host: _natural(host.name), reverse=state.inverted)
    return sorted(by_name, key=_KEYS[state.order], reverse=state.inverted)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts node9 before node10."""
    return [(int(digits or 0), other) for digits, other in re.findall(r"(\d+)|(\D+)", name)]


def _hottest(host: Host) -> float:
    return max((gpu.celsius or 0.0 for gpu in host.gpus), default=0.0)


def _gpu_mean(host: Host) -> float:
    return fmean([gpu.utilization or 0.0 for gpu in host.gpus] or [0.0])


def _memory_share(host: Host) -> float:
    return (host.memory_used or 0.0) / host.memory_total if host.memory_total else 0.0


_KEYS: Mapping[str, Callable[[Host], float]] = {
    "cpu": lambda host: -(host.cpu or 0.0),
    "memory": lambda host: -_memory_share(host),
    "time": lambda host: -_hottest(host),
    "gpu": lambda host: -_gpu_mean(host),
    "name": lambda host: 0.0,
}


def _state(job: JobHeader) -> str:
    if not job.start_ms:
        return f"{job.state} ({job.reason or 'waiting'})"
    limit = job.time_limit_seconds
    of = f" of {show_seconds(limit)}" if limit else ""
    return f"{job.state} {show_seconds(round(job.elapsed_seconds))}{of}"


def _host_row(host: Host, shape: Columns) -> Line:
    name = line(Piece(left_tail(host.name, shape.label), "bold"))
    if host.silent_seconds:
        heard = show_seconds(round(host.silent_seconds))
        return joined([name, line(Piece(f"nothing heard for {heard}", "bad"))], " ")
    if host.cpu is None and host.memory_used is None:
        return joined([name, line(Piece("no agent reports from here", "warn"))], " ")
    power = dict(host.watts).get("node")
    whose = "job" if host.of_job else "cpu"
    parts = [
        name,
        bar(host.cpu, f"{whose} {percent(host.cpu)}", shape.busy, "green"),
        memory_bar(host.memory_used, host.memory_total, shape.memory),
        line(left("" if power is None else amount(power, "W"), shape.power)),
        line(_traffic(host, shape.beside)),
    ]
    return joined(parts, " ")


def _traffic(host: Host, width: int) -> str:
    """Return what moves over links and how full the fullest temp disk is, as the room allows."""
    flows = [("ib", host.infiniband), ("net", host.network)]
    known = [(name, flow) for name, flow in flows if flow is not None]
    disk = max((disk.share for disk in host.disks), default=None)
    tail = [] if disk is None else [f"tmp {disk:.0%}"]
    long = "  ".join([*(f"{name} {flow_words(flow)}" for name, flow in known), *tail])
    short = " ".join([*(f"{name} {brief(flow.into + flow.out)}" for name, flow in known), *tail])
    return left(long if len(long) <= width else short, width)

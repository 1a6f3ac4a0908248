"""What an admin must not miss: one line each, the worst first."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agent.inspect.units import show_seconds
from agent.printable import printable
from agent.top.history import HISTORY_SECONDS, always
from agent.top.model import Frame, Gpu, Host, gpu_list
from probes.gpu import LOST

DISK_FULL = 0.9
MEMORY_FULL = 0.95
WAITS_MUCH = {"memory": 0.2, "io": 0.5}
SLOWED = 0.05

BAD, WARN, NOTE = "bad", "warn", "dim"
HANGS = "hangs"
SILENT = "does not answer"

RANKS = (BAD, WARN, NOTE)
MARKS = {BAD: "!! ", WARN: "!  ", NOTE: ""}
"""For terminals without colour."""


class Notice(NamedTuple):
    """A line, and how bad it is: a style of `paint`."""

    style: str
    words: str


def notices(frame: Frame) -> list[Notice]:
    """Return all that stands out, ready to be shown; empty if nothing does."""
    found = [Notice(BAD, f"{frame.trouble}; trying again")] if frame.trouble else []
    told = any(_is_bad(limit) for limit in frame.limits)
    for host in frame.hosts:
        name = f"{host.name}: " if frame.job else ""
        about = [*_about_host(host), *_about_gpus(host.gpus, told)]
        found += [Notice(style, name + words) for style, words in about]
    found += [Notice(BAD if _is_bad(limit) else NOTE, limit) for limit in frame.limits]
    ranked = sorted(found, key=lambda notice: RANKS.index(notice.style))
    return [Notice(style, MARKS[style] + printable(words)) for style, words in ranked]


def _is_bad(limit: str) -> bool:
    """Tell a GPU or a probe that fails from one that has less to tell."""
    return any(words in limit for words in (LOST, SILENT, HANGS))


def _about_host(host: Host) -> Iterator[Notice]:
    if host.silent_seconds:
        heard = show_seconds(round(host.silent_seconds))
        yield Notice(BAD, f"nothing heard for {heard}: does its agent run?")
    for disk in host.disks:
        if disk.share >= DISK_FULL:
            yield Notice(BAD, f"temp disk {disk.path} is {disk.share:.0%} full")
    if host.memory_used and host.memory_total:
        share = host.memory_used / host.memory_total
        if share >= MEMORY_FULL:
            yield Notice(BAD, f"memory is {share:.0%} full")
    for resource, share in host.waits:
        if share >= WAITS_MUCH.get(resource, 2.0):
            what = {"io": "disk"}.get(resource, resource)
            yield Notice(WARN, f"work waits for {what} {share:.0%} of the time")
    for port in host.fabric_errors:
        yield Notice(WARN, f"InfiniBand {port}: error counters grow")


def _about_gpus(gpus: Sequence[Gpu], told: bool) -> Iterator[Notice]:
    """Yield what stands out, GPUs with the same trouble in one line."""
    troubled: defaultdict[Notice, list[str]] = defaultdict(list)
    for gpu in gpus:
        for notice in _about_gpu(gpu, told):
            troubled[notice].append(gpu.index)
    for notice, indices in troubled.items():
        yield Notice(notice.style, f"GPU {gpu_list(indices)}: {notice.words}")


def _about_gpu(gpu: Gpu, told: bool) -> Iterator[Notice]:
    if not gpu.answers:
        if not told:
            yield Notice(BAD, SILENT)
        return
    if gpu.errors:
        yield Notice(BAD, "memory errors that were not corrected, or critical Xid errors")
    if gpu.slowed_by_brake >= SLOWED:
        yield Notice(BAD, "slowed by the chassis (power brake)")
    if gpu.slowed_for_heat >= SLOWED:
        yield Notice(BAD, "slowed for heat")
    if gpu.held and always(gpu.history, "idle"):
        minutes = round(HISTORY_SECONDS / 60)
        yield Notice(WARN, f"held, and idle for {minutes} minutes")

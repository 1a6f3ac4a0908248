"""`rooflight check`: what works on this node, what does not, and what would mend it."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from agent.client import ask
from agent.config import Config
from agent.daemon import gpu_order, runners
from agent.gpus import host_name
from agent.jobdisk import limits
from agent.loop import seen_gpus
from agent.messages import Ping
from agent.plausible import plausible
from agent.printable import printable
from agent.relay import Relay
from agent.runner import Runner, open_all, read_now
from agent.slurm.discovery import folders_of_jobs
from agent.slurm.gres import units
from agent.stores.opening import open_store
from agent.stores.settings import SettingsError
from agent.stores.store import Select, StoreRefused, StoreUnreachable
from probes.roots import Roots

OPENING_SECONDS = 5.0
RATE_SECONDS = 0.2
YEAR_2024 = 1_704_067_200


class Line(NamedTuple):
    """One line of the answer: `mark` is on, off, ok or bad."""

    mark: str
    subject: str
    words: str


def check_node(config: Config) -> bool:
    """Print one line for each probe, the store, the clock, and the state folder.

    Returns:
        Whether an agent could sample and ship here.

    """
    lines = [
        *_probe_lines(config),
        *_job_disk_lines(config),
        *_store_lines(config),
        _state_line(config.state_directory()),
        _clock_line(time.time()),
        _agent_line(config),
    ]
    for line in lines:
        click.echo(printable(f"{line.mark:4} {line.subject:11} {line.words}"))
    return all(line.mark != "bad" for line in lines)


def _probe_lines(config: Config) -> Iterator[Line]:
    probes = runners(config, Roots())
    relay = Relay(config.agent.deadline_seconds)
    open_all(probes, relay, time.monotonic() + OPENING_SECONDS)
    _sample(probes, relay)
    time.sleep(RATE_SECONDS)  # rates need two samples
    found = _sample(probes, relay)
    for each in probes:
        yield _probe_line(each, found[each.health.name])
        for limit in each.limits():
            yield Line("", "", limit)
    yield from _gpu_order_lines(config, probes)
    for each in probes:
        each.close()
    for name in config.probes.disabled:
        yield Line("off", name, "disabled in the configuration")


def _sample(probes: Sequence[Runner], relay: Relay) -> dict[str, tuple[int, int, int]]:
    """Return samples, fields and implausible values of each probe."""
    deadline = time.monotonic() + OPENING_SECONDS
    counts = {}
    for each, samples in read_now(probes, relay, deadline):
        checked = [plausible(sample) for sample in samples]
        fields = sum(len(sample.fields) for sample, _ in checked)
        counts[each.health.name] = (len(checked), fields, sum(bad for _, bad in checked))
    return counts


def _probe_line(each: Runner, counts: tuple[int, int, int]) -> Line:
    name, health = each.health.name, each.health
    if health.unavailable:
        return Line("off", name, health.unavailable)
    if health.stalled or each.hangs:
        return Line("bad", name, "hangs: a file of its source does not answer")
    samples, fields, bad = counts
    words = f"{fields} values of {samples} {'thing' if samples == 1 else 'things'}"
    words += f" in {health.duration_seconds * 1000:.2f} ms"
    if bad:
        words += f"; {bad} implausible values left out"
    return Line("on", name, words)


def _gpu_order_lines(config: Config, probes: Sequence[Runner]) -> Iterator[Line]:
    """Yield which GPU Slurm means by which number, where that is not NVML's."""
    seen = seen_gpus(probes)
    try:
        indices = gpu_order(config, Roots()).indices(config.slurm.node or host_name(), seen)
    except ValueError as error:
        yield Line("bad", "gpu order", f"{error}; NVML's is taken")
        return
    if indices != units(seen):
        named = [index or "none that NVML shows" for index in indices]
        words = ", ".join(f"{position} is {index}" for position, index in enumerate(named))
        yield Line("on", "gpu order", f"Slurm's GPU {words}")


def _job_disk_lines(config: Config) -> Iterator[Line]:
    """Yield which folders count as a job's own; nothing where no Slurm runs."""
    patterns = config.slurm.job_tempdisk
    if patterns or folders_of_jobs(Roots(), config.slurm.node):
        words = "what job_container/tmpfs mounts for it"
        yield Line("on", "job disk", ", ".join([*patterns, words]))
        for limit in limits(Roots()):
            yield Line("", "", limit)


def _store_lines(config: Config) -> Iterator[Line]:
    yield _store_line(config)
    if config.store == "influx":
        with contextlib.suppress(SettingsError):  # the line before has told of it
            if words := config.influx.exposed():
                yield Line("", "", words)


def _store_line(config: Config) -> Line:
    where = str(config.local_path()) if config.store == "local" else config.influx.url
    name = f"{config.store} store"
    if config.store == "stdout":
        return Line("ok", name, "prints and keeps nothing")
    try:
        store = open_store(config)
        store.rows(Select("job", {"cluster": config.cluster}, newest=1))
        store.close()
    except (StoreUnreachable, StoreRefused, SettingsError) as error:
        return Line("bad", name, f"{where}: {error}")
    return Line("ok", name, f"{where} answers")


def _state_line(state: Path) -> Line:
    existing = next(path for path in (state, *state.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Line("bad", "state", f"{state} cannot be written: set agent.state_directory")
    free = shutil.disk_usage(existing).free / 2**30
    return Line("ok", "state", f"{state}, {free:.1f} GiB free")


def _clock_line(now: float) -> Line:
    if now < YEAR_2024:
        return Line("bad", "clock", f"says {time.ctime(now)}: points would be lost in the past")
    return Line("ok", "clock", time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now)))


def _agent_line(config: Config) -> Line:
    path = config.socket_path()
    reply = ask(str(path), Ping(), timeout_seconds=1.0)
    if reply is None:
        return Line("off", "agent", f"none answers at {path}; rooflight run brings its own")
    return Line("on", "agent", f"answers at {path}")

"""Put the agent together from its configuration, run it, take it apart again."""

import logging
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.client import ask
from agent.clock import Clock, SystemClock, next_tick
from agent.config import Config
from agent.encoder import Encoder
from agent.gpus import GpuBook
from agent.jobdisk import JobDisks
from agent.jobs import JobTable
from agent.labels import gpuroofs
from agent.labels.bounds import Labeller
from agent.labels.cpu import CpuLabeller
from agent.ledger import Ledger
from agent.listener import Listeners
from agent.loop import Loop, Pace
from agent.messages import Ping
from agent.notify import Notifier
from agent.permissions import keep_private, make_folders
from agent.runner import Runner, runner
from agent.scratch import scratch
from agent.segments import SpoolLocked, free_path, leftovers, lock, usable
from agent.shipper import Shipper
from agent.slurm.gres import GpuOrder
from agent.slurm.node import SlurmNode
from agent.spool import Spool
from agent.stores.opening import open_store
from agent.stores.store import StoreUnreachable
from agent.vitals import TickTimes, Vitals
from agent.waiting import when_usable
from probes.catalogue import Database
from probes.parsing import ONE_RECORD, KeptFile
from probes.probe import Context
from probes.registry import PROBES
from probes.roots import Roots

log = logging.getLogger("rooflight")

ONCE_SECONDS = 0.5
LAST_CALL_SECONDS = 5.0
"""How long a stopping agent tries to ship what it has; the rest stays in the spool."""

MOST_FILES = 65_536
"""Open at once: each job's control group takes a dozen, and 1,024 is what services may have."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running agent: its loop and what the loop feeds."""

    loop: Loop
    spool: Spool
    shipper: Shipper
    listeners: Listeners


def runners(config: Config, roots: Roots) -> list[Runner]:
    """Return a runner for every probe that is not disabled."""
    context = Context(
        roots,
        tempdisk_paths=tuple(map(Path, config.probes.tempdisk_paths)),
        dcgm_url=config.probes.dcgm_url,
    )
    return [runner(kind, context) for kind in PROBES if kind.name not in config.probes.disabled]


def gpu_order(config: Config, roots: Roots) -> GpuOrder:
    """Return Slurm's list of this node's GPUs."""
    return GpuOrder(Path(config.slurm.gres_conf) if config.slurm.gres_conf else None, roots)


@contextmanager
def daemon(
    config: Config,
    *,
    spool_directory: Path,
    socket: Path,
    interval: float | None = None,
    roots: Roots | None = None,
    clock: Clock | None = None,
    opening_seconds: float = 10.0,
) -> Iterator[Daemon]:
    """Give a running agent; on leaving, ship what can be shipped and keep the rest.

    Slow drivers are waited for `opening_seconds` at the start; later they are taken on when they
    answer.

    Raises:
        SpoolLocked: another agent uses this spool.
        SpoolUnusable: its folder cannot be made or read.
        SettingsError: the store's settings are wrong.

    """
    clock = clock or SystemClock()
    notifier = Notifier()
    pace = _pace(config, interval, beat=(notifier.watchdog_seconds or 3600.0) / 3)
    store = open_store(config)
    with ExitStack() as stack:  # on leaving, last first, each whatever happens to the others
        spool = _spool(config, spool_directory, clock)
        stack.callback(spool.close)
        shipper = Shipper(spool, store, flush_seconds=config.agent.flush_seconds, clock=clock)
        loop = _loop(config, pace, roots or Roots(), spool, shipper, clock)
        # a dead shipper gives no sign of life: systemd then starts both anew
        loop.beat = lambda: notifier.alive() if shipper.alive else None
        listeners = Listeners(socket, loop.intake.allows, clock.monotonic)
        loop.open(opening_seconds)
        loop.listen(listeners)
        shipper.start()
        stack.callback(shipper.stop, LAST_CALL_SECONDS)
        stack.callback(loop.close)
        stack.callback(listeners.close)
        stack.callback(notifier.stopping)
        notifier.ready(f"sampling every {pace.interval:g} s, shipping to {config.store}")
        yield Daemon(loop, spool, shipper, listeners)


def _pace(config: Config, interval: float | None = None, beat: float = 3600.0) -> Pace:
    agent = config.agent
    every = interval or agent.interval_seconds
    return Pace(every, agent.heartbeat_seconds, agent.deadline_seconds, beat)


def _spool(config: Config, directory: Path, clock: Clock) -> Spool:
    return Spool(directory, int(config.agent.spool_mebibytes * 2**20), clock=clock)


def _loop(
    config: Config, pace: Pace, roots: Roots, spool: Spool, shipper: Shipper, clock: Clock
) -> Loop:
    """Return a loop over this node's probes and jobs that feeds the spool."""
    host = config.host_name()
    statm = KeptFile(roots.proc / "self" / "statm", ONE_RECORD)
    readings = config.state_directory() / "gpu-roofs.json"
    cpu_readings = readings.with_name("cpu-roofs.json")
    return Loop(
        pace=pace,
        encoder=Encoder(config.cluster, host),
        host=host,
        runners=runners(config, roots),
        jobs=JobTable(spool.directory.parent / "jobs", roots),
        sink=spool,
        clock=clock,
        vitals=Vitals(times=TickTimes(spool.newest_ms)),
        own_samples=lambda vitals: [vitals.sample(spool, shipper, statm)],
        labeller=Labeller(gpuroofs.load(readings), partial(gpuroofs.save, readings)),
        cpu_labeller=CpuLabeller(gpuroofs.load(cpu_readings), partial(gpuroofs.save, cpu_readings)),
        gpu_book=GpuBook(gpu_order(config, roots), config.slurm.node),
        disks=JobDisks(config.slurm.job_tempdisk, roots),
        job_ended=shipper.wake,
    )


def run_agent(
    config: Config,
    seconds: float | None,
    interval: float | None,
    until_idle: float | None = None,
) -> int:
    """Run the agent until SIGTERM or SIGINT, for so long, or until so long without any job.

    Returns:
        Bytes that the store has not taken; they are in the spool.

    """
    state, socket = config.state_directory(), config.socket_path()
    keep_private()
    allow_many_files()
    when_usable(
        partial(_take_over, state, socket), Notifier(), lambda: bool(ask(str(socket), Ping()))
    )
    every, now = interval or config.agent.interval_seconds, time.time()
    with daemon(
        config,
        spool_directory=state / "spool",
        socket=socket,
        interval=interval,
        opening_seconds=next_tick(now, every) - now,  # a driver that hangs delays no tick
    ) as running:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: running.loop.stop())
        SlurmNode(running.loop, Roots(), node=config.slurm.node, until_idle=until_idle).follow()
        running.loop.run(seconds)
    return running.spool.depth_bytes


def run_elsewhere(
    config: Config,
    seconds: float | None,
    interval: float | None,
    until_idle: float | None = None,
) -> None:
    """Run an agent beside the node's own, for another store, with nothing of the node's state.

    Raises:
        StoreUnreachable: at the end the store had not taken everything; the rest is lost.

    """
    with scratch(config) as own:
        left = run_agent(own, seconds, interval, until_idle)
    if left:
        raise StoreUnreachable(
            f"the {config.store} store did not take everything: the last {left} bytes are lost, "
            "because only the configured store has a spool"
        )


def _take_over(state: Path, socket: Path) -> None:
    """Make the agent's folders, and take what runs left into its spool.

    Raises:
        SpoolUnusable: see `adopt_leftovers`; or another agent has the socket.

    """
    with usable(state):
        make_folders(state, socket)
    adopt_leftovers(state / "runs", state / "spool")
    if ask(str(socket), Ping()):
        raise SpoolLocked(f"{socket}: another agent answers there: stop it, or set agent.socket")


def allow_many_files() -> None:
    """Raise this process's own limit of open files, as far as it may without privileges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run_once(config: Config) -> None:
    """Take one tick now for the store; a sample just before it gives the rates their beginning.

    Nothing of the node's state is touched, and the footprints of its jobs are its agent's.

    Raises:
        StoreUnreachable, StoreRefused: the store did not take it.

    """
    # not without removing the scratch folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    keep_private()
    clock = SystemClock()
    with scratch(config) as own, ExitStack() as stack:
        store = open_store(own)
        stack.callback(store.close)
        spool = _spool(own, own.state_directory() / "spool", clock)
        stack.callback(spool.close)
        shipper = Shipper(spool, store, flush_seconds=own.agent.flush_seconds)  # never started
        loop = _loop(own, _pace(own), Roots(), spool, shipper, clock)
        loop.open()
        stack.callback(loop.close)
        loop.relay.call(loop.sample)
        time.sleep(ONCE_SECONDS)
        loop.relay.call(partial(loop.tick, int(time.time() * 1000)))
        for database in Database:
            spool.close_segment(database)
            for segment in spool.closed(database):
                store.write(database, segment.lines())


def adopt_leftovers(runs: Path, target: Path) -> None:
    """Take what runs left, which ended while the store did not answer, into a spool of our own.

    To be called before the spool in `target` is opened.

    Raises:
        SpoolLocked: another agent uses `target`.
        SpoolUnusable: `target` cannot be made or written to.

    """
    with usable(target):
        target.mkdir(mode=0o750, parents=True, exist_ok=True)
        ours = lock(target)
    ledger = Ledger(target / "ledger")
    for left in sorted(runs.glob("*/spool")):
        try:
            _adopt(left, target, ledger)
        except SpoolLocked:
            continue  # it runs
        except OSError as error:
            log.warning("what a run left stays there: %s", error)
    ledger.close()
    os.close(ours)


def _adopt(left: Path, target: Path, ledger: Ledger) -> None:
    """Move the segments and the losses of one spool.

    Raises:
        SpoolLocked: it is in use.
        OSError: a file cannot be moved; it stays.

    """
    theirs = lock(left)
    try:
        for segment in leftovers(left):
            segment.path.rename(free_path(segment, target))
        for reason, points in Ledger(left / "ledger").lost.items():
            ledger.lose(reason, points)
        shutil.rmtree(left.parent, ignore_errors=True)
    finally:
        os.close(theirs)

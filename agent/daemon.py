"""Put the agent together from its configuration, run it, take it apart again."""

import logging
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.clock import SystemClock
from agent.config import Config
from agent.encoder import Encoder
from agent.jobs import JobTable
from agent.labels import gpuroofs
from agent.labels.bounds import Labeller
from agent.listener import AgentSocket
from agent.loop import Loop, Pace
from agent.notify import Notifier
from agent.runner import Runner, runner
from agent.shipper import Shipper
from agent.slurm.node import SlurmNode
from agent.spool import Spool, SpoolLocked
from agent.stores.opening import open_store
from probes.probe import Context
from probes.registry import PROBES
from probes.roots import Roots

log = logging.getLogger("rooflight")

ONCE_SECONDS = 0.5
LAST_CALL_SECONDS = 5.0
"""How long a stopping agent tries to ship what it has; the rest stays in the spool."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running agent: its loop and what the loop feeds."""

    loop: Loop
    spool: Spool
    shipper: Shipper
    listener: AgentSocket


def runners(config: Config, roots: Roots) -> list[Runner]:
    """Return a runner for every probe that is not disabled."""
    context = Context(
        roots,
        tempdisk_paths=tuple(map(Path, config.probes.tempdisk_paths)),
        dcgm_url=config.probes.dcgm_url,
    )
    return [runner(kind, context) for kind in PROBES if kind.name not in config.probes.disabled]


@contextmanager
def daemon(
    config: Config,
    *,
    spool_directory: Path,
    socket: Path,
    interval: float | None = None,
    roots: Roots | None = None,
) -> Iterator[Daemon]:
    """Give a running agent; on leaving, ship what can be shipped and keep the rest.

    Raises:
        SpoolLocked: another agent uses this spool.
        SettingsError: the store's settings are wrong.

    """
    store = open_store(config)
    spool = Spool(spool_directory, limit_bytes=int(config.agent.spool_mebibytes * 2**20))
    shipper = Shipper(spool, store, flush_seconds=config.agent.flush_seconds)
    listener = AgentSocket(socket)
    notifier = Notifier()
    pace = Pace(
        interval or config.agent.interval_seconds,
        config.agent.heartbeat_seconds,
        config.agent.deadline_seconds,
        beat=(notifier.watchdog_seconds or 3600.0) / 3,
    )
    loop = _loop(config, pace, roots or Roots(), spool, shipper)
    # a dead shipper gives no sign of life: systemd then starts both anew
    loop.beat = lambda: notifier.alive() if shipper.alive else None
    loop.open()
    loop.watch(listener, lambda: loop.serve(listener))
    shipper.start()
    notifier.ready(f"sampling every {pace.interval:g} s, shipping to {config.store}")
    try:
        yield Daemon(loop, spool, shipper, listener)
    finally:
        notifier.stopping()
        loop.close()
        listener.close()
        shipper.stop(LAST_CALL_SECONDS)
        spool.close()


def _loop(config: Config, pace: Pace, roots: Roots, spool: Spool, shipper: Shipper) -> Loop:
    """Return a loop over this node's probes and jobs that feeds the spool."""
    host = config.host_name()
    statm = roots.proc / "self" / "statm"
    readings = config.state_directory() / "gpu-roofs.json"
    return Loop(
        pace=pace,
        encoder=Encoder(config.cluster, host),
        host=host,
        runners=runners(config, roots),
        jobs=JobTable(spool.directory.parent / "jobs", roots),
        sink=spool,
        clock=SystemClock(),
        own_samples=lambda vitals: [vitals.sample(spool, shipper, statm)],
        labeller=Labeller(gpuroofs.load(readings), partial(gpuroofs.save, readings)),
        job_ended=shipper.wake,
    )


def run_agent(
    config: Config,
    seconds: float | None,
    interval: float | None,
    until_idle: float | None = None,
) -> None:
    """Run the agent until SIGTERM or SIGINT, for so long, or until so long without any job."""
    state = config.state_directory()
    adopt_leftovers(state / "runs", state / "spool")
    with daemon(
        config, spool_directory=state / "spool", socket=config.socket_path(), interval=interval
    ) as running:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: running.loop.stop())
        SlurmNode(running.loop, Roots(), node=config.slurm.node, until_idle=until_idle).follow()
        running.loop.run(seconds)


def run_once(config: Config) -> None:
    """Take one tick now; a sample just before it gives the rates their beginning."""
    state = config.state_directory()
    with daemon(config, spool_directory=state / "spool", socket=config.socket_path()) as running:
        running.loop.sample()
        time.sleep(ONCE_SECONDS)
        running.loop.tick(int(time.time() * 1000))


def adopt_leftovers(runs: Path, target: Path) -> None:
    """Take what runs left, which ended while the store did not answer, into a spool of our own.

    To be called before the spool in `target` is opened.
    """
    for left in sorted(runs.glob("*/spool")):
        try:
            Spool(left, limit_bytes=2**62).close()  # proves that nobody uses it, and tidies it
        except SpoolLocked:
            continue
        target.mkdir(parents=True, exist_ok=True)
        for segment in left.glob("*.lp"):
            segment.rename(target / segment.name)
        shutil.rmtree(left.parent, ignore_errors=True)

"""`rooflight run -- CMD`: run any command as a job on this machine, with an agent of its own."""

import os
import pwd
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent import jobcgroup
from agent.client import ENVIRONMENT
from agent.config import Config
from agent.daemon import adopt_leftovers, daemon
from agent.launcher import Launched, launch
from agent.lineprotocol import stored_text
from agent.messages import JobStart
from agent.permissions import keep_private, make_folders
from agent.segments import usable
from probes.roots import Roots


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a local job ended.

    Attributes:
        jobid: what to ask `jobinspect` for.
        exit_code: the command's; 128 + N for signal N.
        left_in_spool: bytes that the store has not taken yet.

    """

    jobid: str
    exit_code: int
    left_in_spool: int


def new_jobid(now: float) -> str:
    """Return an id which sorts by time and is unique on this host."""
    return time.strftime("run-%Y%m%d-%H%M%S", time.localtime(now)) + f"-{os.getpid()}"


def run_command(
    config: Config,
    command: Sequence[str],
    *,
    interval: float,
    name: str = "",
    take_over: bool = True,
) -> RunResult:
    """Run a command, sample it and the node, keep its footprint, and ship everything.

    Args:
        config: the configuration.
        command: what to run.
        interval: seconds between ticks.
        name: of the job; the command's if there is none.
        take_over: whether what earlier runs left is shipped, too.

    Raises:
        SettingsError, StoreRefused: the store cannot be used.

    """
    jobid = new_jobid(time.time())
    state = config.state_directory()
    directory = state / "runs" / jobid
    socket = directory / "agent.sock"
    roots = Roots()
    environment = {**os.environ, ENVIRONMENT: str(socket), "ROOFLIGHT_JOBID": jobid}
    launched = launch(command, environment)  # before any thread is started, with the user's umask
    cgroup = jobcgroup.make(roots, jobid)
    cgroup.join(launched.pid)
    job = _describe(jobid, command, name, launched, cgroup)
    try:
        keep_private()
        with usable(directory):
            make_folders(state, socket)
        if take_over:
            adopt_leftovers(state / "runs", directory / "spool")
        left, exit_code = _sample_while_it_runs(
            config, job, launched, directory / "spool", socket, interval
        )
    finally:
        launched.reap()
        cgroup.remove()
    if left == 0:  # all of it is in the store
        shutil.rmtree(directory, ignore_errors=True)
    return RunResult(jobid, exit_code, left)


def _describe(
    jobid: str,
    command: Sequence[str],
    name: str,
    launched: Launched,
    cgroup: jobcgroup.JobCgroup,
) -> JobStart:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return JobStart(
        jobid=jobid,
        start_ms=0,
        pid=launched.pid,
        uid=os.getuid(),
        user=pwd.getpwuid(os.getuid()).pw_name,
        name=stored_text(name or Path(command[0]).name),  # whole characters only
        command=stored_text(shlex.join(command)),
        gpus=None if visible is None else tuple(filter(None, visible.split(","))),
        cpus=float(len(os.sched_getaffinity(0))),
        cgroup_v2=str(cgroup.v2 or ""),
        cgroup_v1={controller: str(path) for controller, path in cgroup.v1.items()},
    )


def _sample_while_it_runs(
    config: Config,
    job: JobStart,
    launched: Launched,
    spool_directory: Path,
    socket: Path,
    interval: float,
) -> tuple[int, int]:
    """Return what is left in the spool in bytes, and the command's exit code."""
    with daemon(
        config, spool_directory=spool_directory, socket=socket, interval=interval
    ) as running:
        loop = running.loop
        ended = os.pidfd_open(launched.pid)
        loop.watch(ended, loop.stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the command's to handle
        signal.signal(signal.SIGTERM, lambda *_: launched.terminate())
        # opening the probes took a while: the job begins now
        begun = msgspec.structs.replace(job, start_ms=int(time.time() * 1000))
        loop.relay.call(lambda: loop.start_job(begun))
        launched.go()
        loop.run()
        loop.inbox.drain()  # what the command said just before its end
        end_ms = int(time.time() * 1000)
        # the zombie still holds the whole account: sample first, reap afterwards
        exit_code = launched.peek()
        loop.relay.call(lambda: loop.end_job(job.jobid, exit_code, end_ms))
        launched.reap()
        loop.forget(ended)
        os.close(ended)
        spool = running.spool
    return spool.depth_bytes, exit_code

"""Write what a job did into Slurm's database when it has ended (AdminComment).

EpilogSlurmctld (`deploy/slurm/epilogslurmctld.sh`) puts a file for each ended job into a folder,
and starts one of these where none runs. Agents ship their last rows some seconds after a job's
end, so this waits for them, job by job, a bounded time; then it writes with what there is. It ends
when the folder is empty.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Annotated

import msgspec

from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.inspect.ask import STORE_ERRORS, inspect
from agent.inspect.collect import JobNotFound
from agent.inspect.comment import OURS, encode
from agent.inspect.model import JobReport
from agent.slurm.accounting import Ask, SlurmUnreachable, run_command
from agent.slurm.comments import comments, last_of, write_comment
from agent.stores.store import Store

log = logging.getLogger("rooflight.commenter")

PATIENCE_SECONDS = 600.0
"""How long after its end a job's last rows are waited for."""

UNSEEN_SECONDS = 120.0
"""The same for a job of which nothing is known: agents tell of a job when it begins."""

SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
"""Between two looks at one job; it doubles from look to look."""

Digits = Annotated[str, msgspec.Meta(pattern="^[0-9]*$", max_length=20)]


class Ended(msgspec.Struct, frozen=True):
    """What the epilog says of a job.

    Attributes:
        jobid: its number.
        array: number of the array that it is a task of; empty if of none.
        task: which task.
        het: number of the heterogeneous job that it is a component of; empty if of none.
        offset: which component.
        hosts: how many hosts it had.
        end_seconds: when it ended, since 1970.

    """

    jobid: Digits
    array: Digits
    task: Digits
    het: Digits
    offset: Digits
    hosts: Digits
    end_seconds: Digits

    @property
    def name(self) -> str:
        """Its id as users write it: a number alone may stand for many."""
        if self.array and self.task:
            return f"{self.array}_{self.task}"
        return f"{self.het}+{self.offset}" if self.het and self.offset else self.jobid


class Commenter:
    """Works on a folder of ended jobs until it is empty."""

    def __init__(
        self,
        store: Store,
        config: Config,
        folder: Path,
        ask: Ask,
        clock: Clock | None = None,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._store = store
        self._config = config
        self._folder = folder
        self._ask = ask
        self._clock = clock or SystemClock()
        self._pause = pause
        self._waits: dict[Path, tuple[float, float]] = {}

    def work(self) -> None:
        """Write comments until no job is left; meanwhile others may be put into the folder."""
        while files := sorted(self._folder.glob("*.json")):
            self._waits = {file: self._waits.get(file, (0.0, 0.0)) for file in files}
            for file in files:
                if self._waits[file][0] <= self._clock.monotonic():
                    self._look(file)
            due = min((at for at, _ in self._waits.values()), default=0.0)
            self._pause(max(0.0, min(due - self._clock.monotonic(), SHORTEST_WAIT_SECONDS)))

    def _look(self, file: Path) -> None:
        """Write the comment on one job, or wait for more, or give it up."""
        try:
            ended = msgspec.json.decode(file.read_bytes(), type=Ended)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s is left out: %s", file, error)
            self._done(file)
            return
        age = self._clock.time() - int(ended.end_seconds or 0)
        if self._tried(ended, age):
            self._done(file)
        elif age >= PATIENCE_SECONDS:
            log.warning("job %s has no comment: Slurm or the store did not answer", ended.name)
            self._done(file)
        else:
            wait = min(max(SHORTEST_WAIT_SECONDS, 2 * self._waits[file][1]), LONGEST_WAIT_SECONDS)
            self._waits[file] = self._clock.monotonic() + wait, wait

    def _tried(self, ended: Ended, age: float) -> bool:
        """Tell whether a job is done with: commented on, or not to be."""
        now_ms = int(self._clock.time() * 1000)
        try:
            asked = inspect(self._store, self._config, ended.name, now_ms, ask=self._ask)
            job = asked.report.job
            if asked.store_words or job.raw != ended.jobid or job.end_ms is None:
                return False
            if job.start_ms > 1000 * int(ended.end_seconds or 0):
                return True  # requeued: its next run has an end of its own
            if not asked.report.nodes:
                return age >= UNSEEN_SECONDS
            whole = is_complete(asked.report, int(ended.hosts or 1))
            return (whole or age >= PATIENCE_SECONDS) and self._write(ended, asked.report)
        except JobNotFound:
            return False
        except (SlurmUnreachable, *STORE_ERRORS) as error:
            log.warning("job %s: %s", ended.name, error)
            return False

    def _write(self, ended: Ended, report: JobReport) -> bool:
        """Write the comment, if slurmdbd has the job; what is not ours is left as it is."""
        there = last_of(comments(ended.name, self._ask), ended.jobid)
        if there is None:
            return False
        if there.text and not there.text.startswith(OURS):
            log.warning("job %s has another comment already, which is kept", ended.name)
            return True
        write_comment(ended.name, encode(report), self._ask)
        return True

    def _done(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        del self._waits[file]


def is_complete(report: JobReport, hosts: int) -> bool:
    """Tell whether every host's last row is there."""
    return len(report.nodes) >= hosts and all(node.final for node in report.nodes)


def run_commenter(store: Store, config: Config, folder: Path, ask: Ask = run_command) -> None:
    """Work on a folder, if nobody else does; nothing that is put there meanwhile is forgotten.

    Who puts a file there and sees the lock taken starts nobody: so this looks again once it has
    let the lock go.
    """
    while any(folder.glob("*.json")):
        with _locked(folder / "lock") as is_ours:
            if not is_ours:
                return
            Commenter(store, config, folder, ask).work()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock, and tell whether it could be had."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

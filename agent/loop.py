"""The sampling loop: one thread, ticks aligned to the wall clock, messages answered in between."""

import logging
import os
import pwd
import selectors
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.clock import Clock, next_tick
from agent.encoder import Encoder
from agent.jobs import JobTable, RunningJob, gpu_index, job_row
from agent.labels.bounds import Labeller
from agent.listener import AgentSocket, Received
from agent.messages import TOLD, JobEnd, JobStart, PointMessage, Points, Reply
from agent.plausible import plausible
from agent.runner import Runner
from agent.vitals import Vitals, health_samples
from probes.catalogue import CATALOGUE, Database
from probes.sample import Sample

log = logging.getLogger("rooflight.loop")


class Sink(Protocol):
    """Where finished ticks go: the spool."""

    def append(self, database: Database, lines: bytes) -> None:
        """Take whole lines."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things happen, in seconds.

    Attributes:
        interval: between ticks.
        heartbeat: between two writings of the footprints.
        deadline: how long a tick waits for a probe that can hang.
        beat: between two signs of life.

    """

    interval: float
    heartbeat: float
    deadline: float
    beat: float = 3600.0


@dataclass(slots=True)
class Loop:
    """Samples, folds footprints, and hands lines to the spool.

    Attributes:
        runners: the probes of this node.
        jobs: the jobs of this node.
        sink: where lines go.
        own_samples: returns the agent's own samples, given its counters.
        labeller: tells which roof each GPU is under.
        beat: called at least every `pace.beat` seconds (the sign of life for systemd).
        job_ended: called when a job ended and its last rows are in the sink.
        before_tick: called before every tick, to look for jobs that begin and end untold.

    """

    pace: Pace
    encoder: Encoder
    host: str
    runners: Sequence[Runner]
    jobs: JobTable
    sink: Sink
    clock: Clock
    own_samples: Callable[[Vitals], Sequence[Sample]]
    labeller: Labeller = field(default_factory=Labeller)
    beat: Callable[[], None] = lambda: None
    job_ended: Callable[[], None] = lambda: None
    before_tick: Callable[[], None] = lambda: None
    vitals: Vitals = field(default_factory=Vitals)
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _wakeup: int = field(default_factory=lambda: os.eventfd(0, os.EFD_NONBLOCK))
    _stopping: bool = False
    _next_heartbeat: float = 0.0
    _last_due: float = 0.0
    _gpus: tuple[str, ...] = ()

    def open(self) -> None:
        """Find the sources of all probes; those that hang are waited for only so long."""
        deadline = self.clock.monotonic() + max(10.0, self.pace.deadline)
        for runner in self.runners:
            runner.open(deadline)
            if runner.health.unavailable:
                log.info("probe %s is off: %s", runner.health.name, runner.health.unavailable)
        self._selector.register(self._wakeup, selectors.EVENT_READ, lambda: None)
        self._next_heartbeat = self.clock.monotonic() + self.pace.heartbeat

    def watch(self, source: int | AgentSocket, react: Callable[[], None]) -> None:
        """Call `react` in the loop's thread whenever `source` can be read."""
        self._selector.register(source, selectors.EVENT_READ, react)

    def forget(self, source: int | AgentSocket) -> None:
        """Watch a source no longer."""
        self._selector.unregister(source)

    def stop(self) -> None:
        """End the loop after what it is doing; may be called from a signal handler."""
        self._stopping = True
        os.eventfd_write(self._wakeup, 1)

    def run(self, seconds: float | None = None) -> None:
        """Tick until `stop`, or for so many seconds."""
        end = None if seconds is None else self.clock.monotonic() + seconds
        while not self._stopping:
            now = self.clock.time()
            due_wall = next_tick(now, self.pace.interval)
            due = self.clock.monotonic() + due_wall - now
            if end is not None and due > end:
                self._wait(end)
                return
            self._wait(due)
            if not self._stopping:
                self._tick_on_time(due_wall, due)

    def close(self) -> None:
        """Close probes, keep the jobs' state."""
        self.jobs.save()
        for runner in self.runners:
            runner.close()
        self._selector.close()
        os.close(self._wakeup)

    def sample(self) -> list[Sample]:
        """Read all probes now, impossible values left out and counted."""
        deadline = self.clock.monotonic() + self.pace.deadline
        for runner in self.runners:
            runner.begin()
        found = [self._checked(each) for runner in self.runners for each in runner.finish(deadline)]
        self._gpus = tuple(gpu_index(each) for each in found if each.measurement == "gpu")
        return found

    def tick(self, time_ms: int) -> None:
        """Sample everything, fold it into the jobs' footprints, and append it as one tick."""
        samples = self.sample()
        samples += self.labeller.label(samples, time_ms)
        written = [*samples, *self.own_samples(self.vitals)]
        for running in self.jobs:
            own = [self._checked(sample) for sample in running.samples()]
            running.fold([*samples, *own], time_ms)
            written += own
        if self.clock.monotonic() >= self._next_heartbeat:
            self._heartbeat(written, time_ms)
        self.write(written, time_ms)
        self.vitals.ticks += 1

    def write(self, samples: Iterable[Sample], time_ms: int) -> None:
        """Append samples of one moment to the sink, one write for each database."""
        for database, lines in self.encoder.lines(samples, time_ms).items():
            self.sink.append(database, lines)

    def start_job(self, job: JobStart) -> RunningJob:
        """Take on a job; a sample at once gives its counters their beginning."""
        earlier = self.jobs.get(job.jobid)
        if earlier and earlier.job.restart != job.restart:  # requeued, and its end was not told
            self.end_job(job.jobid, None)
        running = self.jobs.start(job)
        self.tick(self._now_ms())
        self._write_job(running, "RUNNING", final=False)
        self.jobs.save()  # an agent that is killed now still knows the job
        return running

    def glance(self, jobid: str) -> None:
        """Read what one job itself used, between two ticks."""
        running = self.jobs.get(jobid)
        if running:
            running.glance([self._checked(sample) for sample in running.samples()])

    def end_job(self, jobid: str, exit_code: int | None, end_ms: int | None = None) -> None:
        """Take a last sample of a job and write its final footprint; None: nobody told its end."""
        running = self.jobs.get(jobid)
        if running is None:
            return
        self.tick(self._now_ms())
        state = {0: "COMPLETED", None: "UNKNOWN"}.get(exit_code, "FAILED")
        end = (end_ms or running.saved.last_ms, exit_code)
        self._write_job(running, state, final=True, end=end)
        self.jobs.end(jobid)
        self.job_ended()

    def serve(self, listener: AgentSocket) -> None:
        """Handle what lies in the socket, a bounded number so that ticks stay on time."""
        for _ in range(100):
            received = listener.receive()
            if received is None:
                return
            listener.answer(received, self._handle(received))

    def _wait(self, due: float) -> None:
        """Handle messages until `due` on the monotonic clock."""
        while not self._stopping:
            left = due - self.clock.monotonic()
            if left <= 0:
                return
            for key, _ in self._selector.select(min(left, self.pace.beat)):
                key.data()
            self.beat()

    def _tick_on_time(self, due_wall: float, due: float) -> None:
        begun = self.clock.monotonic()
        self.vitals.lateness_seconds = max(0.0, begun - due)
        if self._last_due:
            missed = round((due - self._last_due) / self.pace.interval) - 1
            self.vitals.skipped += max(0, missed)
        self._last_due = due
        self.before_tick()
        self.tick(round(due_wall * 1000))
        self.vitals.tick_seconds = self.clock.monotonic() - begun

    def _heartbeat(self, written: list[Sample], time_ms: int) -> None:
        self._next_heartbeat = self.clock.monotonic() + self.pace.heartbeat
        written += health_samples(runner.health for runner in self.runners)
        for running in self.jobs:
            self._write_job(running, "RUNNING", final=False)
        self.jobs.save()

    def _write_job(
        self,
        running: RunningJob,
        state: str,
        *,
        final: bool,
        end: tuple[int, int | None] | None = None,
    ) -> None:
        """Write the job's rows, all at its start time: later ones replace earlier ones."""
        gpus = self._gpus if running.job.gpus is None else running.job.gpus
        rows = [job_row(running.job, state, self.host, len(gpus), end)]
        rows += [self._checked(row) for row in running.rows(self.pace.interval, final=final)]
        self.write(rows, running.job.start_ms)

    def _checked(self, sample: Sample) -> Sample:
        good, dropped = plausible(sample)
        self.vitals.implausible += dropped
        return good

    def _now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def _handle(self, received: Received) -> Reply:
        message = received.message
        if message is None:
            return Reply(False, f"not understood: {received.words}")
        if isinstance(message, Points):
            return self._take_points(message.points, received.uid)
        if isinstance(message, JobStart | JobEnd):
            if received.uid not in (0, os.geteuid()):
                return Reply(
                    False, f"jobs begin and end by root's word, not {_name(received.uid)}'s"
                )
            if isinstance(message, JobStart):
                self.start_job(message)
            elif self.jobs.get(message.jobid):
                self.end_job(message.jobid, message.exit_code)
            else:
                return Reply(False, f"no job {message.jobid} runs here")
        return Reply(True)

    def _take_points(self, points: Sequence[PointMessage], uid: int) -> Reply:
        phases = []
        for point in points:
            if point.measurement not in TOLD:
                return Reply(False, f"{point.measurement} is not for programs to report")
            known = CATALOGUE[point.measurement]
            own = tuple(
                sorted((name, text) for name, text in point.tags.items() if name in known.tags)
            )
            if not self._may_write(dict(own).get("jobid"), uid):
                return Reply(False, f"{_name(uid)} does not own this job")
            sample = self._checked(Sample(point.measurement, own, point.fields))
            self.write([sample], point.time_ms)
            if point.measurement == "phase":
                phases.append((point.time_ms, sample))
        if uid in (0, os.geteuid()):  # others' words do not change what everyone is held against
            self.labeller.learn(phases)
        return Reply(True)

    def _may_write(self, jobid: str | None, uid: int) -> bool:
        """Root, the agent's user, and a job's owner may; nobody else's numbers are believed."""
        running = self.jobs.get(jobid) if jobid else None
        return uid in (0, os.geteuid()) or (running is not None and running.job.uid == uid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"

"""The sampling loop: one thread, ticks aligned to the wall clock, messages answered in between."""

import logging
import math
import os
import selectors
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from agent.clock import Clock, next_tick
from agent.encoder import Encoder
from agent.gpus import GpuBook
from agent.inbox import Inbox
from agent.intake import Intake, is_trusted, user_name
from agent.jobdisk import JobDisks
from agent.jobs import JobTable, RunningJob, Tick, gpu_index, job_row
from agent.labels.bounds import Labeller
from agent.labels.cpu import CpuLabeller
from agent.listener import AgentSocket, Listeners, Received
from agent.messages import JobEnd, JobStart, Points, Reply
from agent.plausible import plausible
from agent.quota import Quota
from agent.relay import Relay
from agent.runner import Runner, open_all, read_all
from agent.vitals import Vitals, health_samples
from probes.catalogue import Database
from probes.gpu import GpuProbe
from probes.gpu_device import SeenGpu
from probes.sample import Sample
from workloads.roofline import Bound

log = logging.getLogger("rooflight.loop")

SHORT_WAIT = 1.0
"""Seconds; a wait of this length ends about 1 ms late, and one more wakeup costs nothing."""


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
        quota: bounds what users' programs may tell.
        own_samples: returns the agent's own samples, given its counters.
        gpu_book: knows which GPU is whose.
        disks: measure the temporary disk space of jobs.
        labeller: tells which roof each GPU is under.
        cpu_labeller: tells which roof the CPUs are under.
        beat: called at least every `pace.beat` seconds (the sign of life for systemd).
        job_started: called when a job begins, before its first sample.
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
    gpu_book: GpuBook = field(default_factory=GpuBook)
    disks: JobDisks = field(default_factory=JobDisks)
    labeller: Labeller = field(default_factory=Labeller)
    cpu_labeller: CpuLabeller = field(default_factory=CpuLabeller)
    beat: Callable[[], None] = lambda: None
    job_started: Callable[[RunningJob], None] = lambda running: None
    job_ended: Callable[[], None] = lambda: None
    before_tick: Callable[[], None] = lambda: None
    vitals: Vitals = field(default_factory=Vitals)
    quota: Quota = field(default_factory=lambda: Quota(time.monotonic))
    relay: Relay = field(init=False)
    inbox: Inbox = field(init=False)
    intake: Intake = field(init=False)
    _unfinished: Callable[[], None] | None = None
    _end: float = math.inf
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _wakeup: int = field(default_factory=lambda: os.eventfd(0, os.EFD_NONBLOCK))
    _stopping: bool = False
    _next_heartbeat: float = 0.0
    _last_due: float = 0.0

    def __post_init__(self) -> None:
        """Make what needs all of the above."""
        self.relay = Relay(self.pace.deadline)
        self.inbox = Inbox(self, self._handle)
        self.intake = Intake(self.jobs, self.quota, self._now_ms, self._write_reported, self._learn)

    def open(self, wait_seconds: float = 10.0) -> None:
        """Find the sources of all probes; those in threads of their own are waited for so long."""
        deadline = self.clock.monotonic() + wait_seconds
        open_all(self.runners, self.relay, deadline)
        for runner in self.runners:
            if runner.health.unavailable:
                log.info("probe %s is off: %s", runner.health.name, runner.health.unavailable)
        self._selector.register(self._wakeup, selectors.EVENT_READ, lambda: None)
        self._next_heartbeat = self.clock.monotonic() + self.pace.heartbeat

    def listen(self, listeners: Listeners) -> None:
        """Hear what comes in by these sockets; users whose jobs go on get their own."""
        self.inbox.listen(listeners)
        for running in self.jobs:
            self.inbox.admit(running.job.uid)

    def watch(self, source: int | AgentSocket, react: Callable[[], None]) -> None:
        """Call `react` in the loop's thread whenever `source` can be read."""
        self._selector.register(source, selectors.EVENT_READ, react)

    def forget(self, source: int | AgentSocket) -> None:
        """Watch a source no longer."""
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def stop(self) -> None:
        """End the loop after what it is doing; may be called from a signal handler."""
        self._stopping = True
        os.eventfd_write(self._wakeup, 1)

    def run(self, seconds: float | None = None) -> None:
        """Tick until `stop`, or for so many seconds, in a thread that is replaced if it hangs."""
        self._end = math.inf if seconds is None else self.clock.monotonic() + seconds
        self.relay.call(self._run)

    def _run(self) -> None:
        if unfinished := self._unfinished:  # by the thread before, which hangs
            self._unfinished = None
            self.do(unfinished)
        while not self._stopping:
            now = self.clock.time()
            due_wall = next_tick(now, self.pace.interval)
            due = self.clock.monotonic() + due_wall - now
            if due > self._end:
                self._wait(self._end)
                return
            self._wait(due)
            if not self._stopping and not self._stepped(due_wall, due):
                self._tick_on_time(due_wall, due)

    def do(self, work: Callable[[], None]) -> None:
        """Do what another thread shall do again from its beginning, if this one hangs in it."""
        before, self._unfinished = self._unfinished, work
        work()
        self._unfinished = before

    def _stepped(self, due_wall: float, due: float) -> bool:
        """Tell whether the wall clock was set while the loop waited: the tick has another time."""
        drift = (self.clock.time() - due_wall) - (self.clock.monotonic() - due)
        return abs(drift) >= self.pace.interval / 2

    def close(self) -> None:
        """Close probes, keep the jobs' state."""
        self.jobs.close()
        self.disks.close()
        for runner in self.runners:
            runner.close()
        self._selector.close()
        os.close(self._wakeup)

    def sample(self) -> list[Sample]:
        """Read all probes now, impossible values left out and counted."""
        with self.relay.timed():
            return self._sample()

    def _sample(self) -> list[Sample]:
        deadline = self.clock.monotonic() + self.pace.deadline
        found = read_all(self.runners, self.relay, deadline)
        return [self._checked(sample) for _, samples in found for sample in samples]

    def tick(self, time_ms: int) -> None:
        """Sample everything, fold it into the jobs' footprints, and append it as one tick."""
        with self.relay.timed():
            samples = self._sample()
            own = {running.job.jobid: self._own_samples(running) for running in self.jobs}
        self._take(samples, own, time_ms)
        self.vitals.ticks += 1

    def _take(self, samples: list[Sample], own: Mapping[str, list[Sample]], time_ms: int) -> None:
        """Label, fold and write what one tick read of the node, and of each job."""
        seen = seen_gpus(self.runners)
        self.gpu_book.attribute(self.jobs, seen, time_ms)
        self.disks.follow(self.jobs)
        samples += [self._held(label) for label in self.labeller.label(samples, time_ms, seen)]
        samples += self.cpu_labeller.label(samples, time_ms)
        written = [*samples, *self.own_samples(self.vitals)]
        node = Tick(samples)
        for running in self.jobs:
            running.fold(node, time_ms, own[running.job.jobid])
            written += own[running.job.jobid]
        if self.clock.monotonic() >= self._next_heartbeat:
            self._heartbeat(written, time_ms)
        self.write(written, time_ms)

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
        self.inbox.admit(job.uid)
        self.job_started(running)
        self._freshen()
        self.tick(self._now_ms())
        self._write_job(running, "RUNNING", final=False)
        self.jobs.save()  # an agent that is killed now still knows the job
        return running

    def glance(self, jobid: str) -> None:
        """Read what one job itself used, between two ticks."""
        if running := self.jobs.get(jobid):
            with self.relay.timed():
                running.glance(self._own_samples(running))

    def end_job(self, jobid: str, exit_code: int | None, end_ms: int | None = None) -> None:
        """Take a last sample of a job and write its final footprint; None: nobody told its end."""
        running = self.jobs.get(jobid)
        if running is None:
            return
        self.inbox.hear_last_words(running.job.uid)
        self._freshen()
        self.tick(self._now_ms())
        state = {0: "COMPLETED", None: "UNKNOWN"}.get(exit_code, "FAILED")
        end = (end_ms or running.saved.last_ms, exit_code)
        self._write_job(running, state, final=True, end=end)
        self.jobs.end(jobid)
        self.quota.forget(jobid)
        if not any(other.job.uid == running.job.uid for other in self.jobs):
            self.inbox.dismiss(running.job.uid)
        self.job_ended()

    def _freshen(self) -> None:
        """Have the next tick read what seldom changes, too: a job gets its own errors."""
        for each in (*self.runners, *self.jobs):
            each.freshen()

    def serve(self, listener: AgentSocket) -> None:
        """Handle what lies in a socket: a bounded number of messages, and none while stopping."""
        self.inbox.serve(listener, lambda: self._stopping)

    def _wait(self, due: float) -> None:
        """Handle messages until `due` on the monotonic clock."""
        while not self._stopping:
            self.inbox.listen_again()
            left = due - self.clock.monotonic()
            if left <= 0:
                return
            pause = min(without_slack(left), self.pace.beat, self.inbox.pause_seconds())
            for key, _ in self._selector.select(pause):
                self.do(key.data)
            self.beat()

    def _tick_on_time(self, due_wall: float, due: float) -> None:
        begun = self.clock.monotonic()
        self.vitals.lateness_seconds = max(0.0, begun - due)
        if self._last_due:
            missed = round((due - self._last_due) / self.pace.interval) - 1
            self.vitals.skipped += max(0, missed)
        self._last_due = due
        time_ms = round(due_wall * 1000)
        self.vitals.begin(time_ms, round(self.pace.interval * 1000))
        self.do(partial(self._aligned_tick, time_ms))
        self.vitals.tick_seconds = self.clock.monotonic() - begun

    def _aligned_tick(self, time_ms: int) -> None:
        self.before_tick()
        self.tick(time_ms)

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
        rows = [job_row(running.job, state, self.host, running.gpus.total(), end)]
        rows += [self._checked(row) for row in running.rows(self.pace.interval, final=final)]
        self.write(rows, running.job.start_ms)

    def _checked(self, sample: Sample) -> Sample:
        good, dropped = plausible(sample)
        self.vitals.implausible += dropped
        return good

    def _own_samples(self, running: RunningJob) -> list[Sample]:
        """Return what a job itself uses now."""
        samples = self.relay.read(running, running.samples, list[Sample]())
        own = self.disks.complete(running.job.jobid, samples)
        return [self._checked(sample) for sample in own]

    def _held(self, label: Sample) -> Sample:
        """Add to a `bound` sample whether a job holds the GPU."""
        index = gpu_index(label)
        held = any(running.owns(index) for running in self.jobs)
        idle = held and label.fields["bound"] == Bound.IDLE.value
        states = {"held_state": float(held), "held_idle_state": float(idle)}
        return Sample(label.measurement, label.tags, {**label.fields, **states})

    def _now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def _handle(self, received: Received) -> Reply:
        message = received.message
        if message is None:
            return Reply(False, f"not understood: {received.words}")
        if isinstance(message, Points):
            return self.intake.take(message.points, received.uid)
        if isinstance(message, JobStart | JobEnd):
            if not is_trusted(received.uid):
                who = user_name(received.uid)
                return Reply(False, f"permission denied: {who} may not start or end jobs")
            if isinstance(message, JobStart):
                self.start_job(message)
            elif self.jobs.get(message.jobid):
                self.end_job(message.jobid, message.exit_code)
            else:
                return Reply(False, f"no job {message.jobid} runs here")
        return Reply(True)

    def _write_reported(self, sample: Sample, time_ms: int) -> Sample:
        good = self._checked(sample)
        self.write([good], time_ms)
        return good

    def _learn(self, phases: Sequence[tuple[int, Sample]], ceilings: Sequence[Sample]) -> None:
        self.labeller.learn(phases)
        self.cpu_labeller.learn(ceilings)


def seen_gpus(runners: Iterable[Runner]) -> tuple[SeenGpu, ...]:
    """Return the GPUs as the last sample saw them."""
    probes = [runner.probe for runner in runners if isinstance(runner.probe, GpuProbe)]
    return probes[0].seen if probes else ()


def without_slack(seconds: float) -> float:
    """Return how long to wait at first of a long wait: the kernel may end it late by a thousandth.

    Ticks every 10 s were 8 ms late in the median; after a second, short wait they are 1 ms late.
    Source: Linux, fs/select.c, select_estimate_accuracy.
    """
    return seconds - SHORT_WAIT if seconds > 2 * SHORT_WAIT else seconds

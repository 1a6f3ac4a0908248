"""Run the probes of a tick, each with a deadline: most of them here, slow ones in a worker."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from agent.relay import Relay
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample

log = logging.getLogger("rooflight.probes")

NOTHING: Sequence[Sample] = ()


@dataclass(slots=True)
class Health:
    """How one probe does.

    Attributes:
        duration_seconds: time of its last sample, or glance between samples.
        errors: samples that failed.
        stalled: ticks at which it missed its deadline or still hung in an earlier sample.
        unavailable: why this node has no such source; empty if it has.

    """

    name: str
    duration_seconds: float = 0.0
    errors: int = 0
    stalled: int = 0
    unavailable: str = ""


class Runner:
    """One probe, read in the calling thread.

    Attributes:
        health: how it does.
        probe: the probe, once its source was found.
        hangs: whether a thread is stuck in it, see `Relay`.

    """

    def __init__(self, kind: type[Probe], context: Context) -> None:
        self.health = Health(kind.name)
        self.probe: Probe | None = None
        self.hangs = False
        self._opened = False
        self._kind = kind
        self._context = context

    def __str__(self) -> str:
        return f"probe {self.health.name}"

    def open(self, relay: Relay, deadline: float) -> None:
        """Find the source, once; `deadline` is on the monotonic clock."""
        if not self._opened:
            self._opened = True
            relay.read(self, partial(self._attempt, self._construct), NOTHING)

    def sample(self, relay: Relay) -> Sequence[Sample]:
        """Return the samples of this tick, none if the probe failed or hangs."""
        self.health.stalled += self.hangs
        return relay.read(self, self._sample, NOTHING)

    def freshen(self) -> None:
        """Have the next sample read everything anew, what seldom changes included."""
        if self.probe and not self.hangs:
            self.probe.freshen()

    def limits(self) -> Sequence[str]:
        """Return what the probe cannot read here."""
        return self.probe.limits() if self.probe and not self.hangs else ()

    def close(self) -> None:
        """Close the probe; one that hangs is left behind."""
        if self.probe and not self.hangs:
            self.probe.close()

    def _sample(self) -> Sequence[Sample]:
        return self._attempt(self.probe.sample) if self.probe else ()

    def _construct(self) -> Sequence[Sample]:
        self.probe = self._kind(self._context)
        return ()

    def _attempt(self, step: Callable[[], Sequence[Sample]]) -> Sequence[Sample]:
        begun = time.perf_counter()
        try:
            return step()
        except ProbeUnavailable as reason:
            self.health.unavailable = str(reason)
        except Exception as error:  # noqa: BLE001 - the one place: no probe may stop the agent
            self._fail(error)
        finally:
            self.health.duration_seconds = time.perf_counter() - begun
        return ()

    def _fail(self, error: Exception) -> None:
        """Count a failure; the first goes to the log, with its place if it is a defect of ours."""
        self.health.errors += 1
        if self.probe is None:
            self.health.unavailable = f"failed to start: {error}"
        if self.health.errors == 1:
            trace = None if isinstance(error, OSError) else error
            log.warning("probe %s failed: %s", self.health.name, error, exc_info=trace)


class Worker(Runner):
    """One probe, opened and read in a thread of its own, beside the others.

    To wake one that slept for a second costs 0.16 ms, as much as any probe.
    """

    def __init__(self, kind: type[Probe], context: Context) -> None:
        super().__init__(kind, context)
        self._requests: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[Sequence[Sample]] = SimpleQueue()
        self._busy = True  # the thread begins by opening the probe
        self._asked = False  # whether this tick's sample is under way
        self._answer: Sequence[Sample] = ()
        # a daemon: a thread stuck in a dead driver must not keep the process alive
        threading.Thread(target=self._work, name=f"probe-{kind.name}", daemon=True).start()

    def open(self, relay: Relay, deadline: float) -> None:
        """Wait for the thread to find the source, at most until `deadline`."""
        if not self._opened:
            self._opened = True
            if not self._answered(deadline):
                log.warning("%s: its source does not answer; it is used as soon as it does", self)

    def begin(self) -> None:
        """Ask the thread for a sample, unless one still hangs in the last one."""
        if self._busy:
            self._forget_late_answer()
        self._asked = not self._busy and self.probe is not None
        if self._asked:
            self._busy = True
            self._requests.put(True)

    def finish(self, deadline: float) -> Sequence[Sample]:
        """Return the thread's answer if it comes in time."""
        if self._asked and self._answered(deadline):
            return self._answer
        self.health.stalled += self._busy
        if self._asked and self.health.stalled == 1:
            log.warning("%s hangs; its samples are left out", self)
        return ()

    def close(self) -> None:
        """End the thread, which closes the probe; a thread that hangs is left behind."""
        self._requests.put(False)

    def _answered(self, deadline: float) -> bool:
        """Take the thread's answer if it comes in time."""
        try:
            self._answer = self._answers.get(timeout=max(0.001, deadline - time.monotonic()))
        except Empty:
            return False
        self._busy = False
        return True

    def _forget_late_answer(self) -> None:
        """Drop an answer that came after its tick: its values are older than they would seem."""
        with suppress(Empty):
            self._answers.get_nowait()
            self._busy = False

    def _work(self) -> None:
        self._answers.put(self._attempt(self._construct))
        while self._is_asked():
            self._answers.put(self._attempt(self.probe.sample) if self.probe else ())
        super().close()

    def _is_asked(self) -> bool:
        """Wait for the next sample, or the end; meanwhile glance as often as the probe wants."""
        while True:
            pause = self.probe.glance_seconds() if self.probe else None
            try:
                return self._requests.get(timeout=pause)
            except Empty:
                self._attempt(self._glance)

    def _glance(self) -> Sequence[Sample]:
        if self.probe:
            self.probe.glance()
        return ()


def open_all(runners: Sequence[Runner], relay: Relay, deadline: float) -> None:
    """Find the sources of all probes; those that hang are waited for only so long."""

    def attempt() -> None:
        with relay.timed():
            for each in runners:
                each.open(relay, deadline)

    relay.call(attempt)


def read_now(
    runners: Sequence[Runner], relay: Relay, deadline: float
) -> list[tuple[Runner, Sequence[Sample]]]:
    """Return every probe with its samples, for a caller that no relay called."""

    def attempt() -> list[tuple[Runner, Sequence[Sample]]]:
        with relay.timed():
            return list(read_all(runners, relay, deadline))

    return relay.call(attempt)


def read_all(
    runners: Iterable[Runner], relay: Relay, deadline: float
) -> Iterator[tuple[Runner, Sequence[Sample]]]:
    """Yield every probe with its samples, with none if it fails or hangs until `deadline`.

    Probes in threads of their own are asked when all others are done: threads that read files at
    the same time pass Python's lock to and fro at every read, 0.1 ms of 0.8 on a node without GPUs.
    """
    workers: list[Worker] = []
    for each in runners:
        if isinstance(each, Worker):
            workers.append(each)
        else:
            yield each, each.sample(relay)
    for worker in workers:
        worker.begin()
    for worker in workers:
        yield worker, worker.finish(deadline)


def runner(kind: type[Probe], context: Context) -> Runner:
    """Return the way to run this kind of probe."""
    return Worker(kind, context) if kind.own_thread else Runner(kind, context)

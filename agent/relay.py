"""Reads that may block for ever, made without a thread for each: a thread that hangs is replaced.

Any file of a driver can block its reader, and no signal ends that. To read it in another thread
would wake that thread at every tick: 0.16 ms, a seventh of a host's tick. Here the thread that
works also reads. Should it hang, another one takes its place and does the same work from its
beginning, without what hangs. While all is well that costs two system calls a tick, for a timer.
"""

import logging
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Protocol, TypeVar

log = logging.getLogger("rooflight.probes")

T = TypeVar("T")


class Subject(Protocol):
    """What is read.

    Attributes:
        hangs: whether a thread is stuck in it: it is not read until that thread comes back.

    """

    hangs: bool


class Superseded(BaseException):
    """The thread came back from a read after another one had taken its place: it ends."""


class _Turn:
    """What the thread that works is doing.

    Attributes:
        reading: the subject that it reads, if any. Taking that out is how two threads agree on
            whether the read was in time: one gets it, the other finds nothing.
        since: when the patience began to run, on the monotonic clock.

    """

    def __init__(self) -> None:
        self.reading: list[Subject] = []
        self.since = math.inf


class Relay:
    """Calls work that reads what can hang, and returns all the same.

    Args:
        patience_seconds: how long a `timed` block may take until the read that is under way
            counts as hanging.

    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._turn = _Turn()
        self._has_alarm = False

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, called in a thread that is replaced when it hangs in a read.

        A thread that takes over calls `work` from its beginning. In the main thread an alarm tells
        of a hang, unless somebody else uses SIGALRM; otherwise it is looked for now and then.

        Raises:
            BaseException: whatever `work` raises.

        """
        heard, bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        watched = select.poll()
        watched.register(heard, select.POLLIN)
        attempts = _Attempts(work, bell)
        with self._alarm(bell):
            attempts.begin()
            while not attempts.over:
                if watched.poll(None if self._has_alarm else self._patience * 1000):
                    os.read(heard, select.PIPE_BUF)
                if not attempts.over and (subject := self._overdue()):
                    log.warning("%s hangs, and is left out until it answers", subject)
                    self._turn = _Turn()
                    attempts.begin()
        result = attempts.result()
        os.close(bell)
        os.close(heard)
        return result

    def read(self, subject: Subject, read: Callable[[], T], otherwise: T) -> T:
        """Return what `read` returns; `otherwise`, at once, while a thread is stuck in `subject`.

        Raises:
            Superseded: it took so long that another thread does the work now.

        """
        if subject.hangs:
            return otherwise
        reading = self._turn.reading  # this thread's own, even if another one takes over
        reading.append(subject)
        try:
            return read()
        finally:
            try:
                reading.pop()
            except IndexError:
                subject.hangs = False
                raise Superseded from None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Let the patience run for the reads of a block."""
        turn = self._turn
        turn.since = time.monotonic()
        if self._has_alarm:
            signal.setitimer(signal.ITIMER_REAL, self._patience, self._patience)
        try:
            yield
        finally:
            turn.since = math.inf
            if self._has_alarm and turn is self._turn:
                signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _overdue(self) -> Subject | None:
        """Return what the thread at work hangs in, if it does, taken away from it."""
        if time.monotonic() - self._turn.since < self._patience:
            return None
        try:
            subject = self._turn.reading.pop()
        except IndexError:  # it waits for something else, or is slow
            return None
        subject.hangs = True
        return subject

    @contextmanager
    def _alarm(self, bell: int) -> Iterator[None]:
        """Ring the bell when the alarm goes off, where this thread may set one.

        Any signal rings it, because the kernel may give it to another thread, and only this one,
        once it is awake, runs what the program does about it.
        """
        here = threading.current_thread() is threading.main_thread()
        if not here or signal.getsignal(signal.SIGALRM) != signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGALRM, lambda *_: None)
        before = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        self._has_alarm = True
        try:
            yield
        finally:
            self._has_alarm = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.set_wakeup_fd(before)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


class _Attempts(Generic[T]):
    """The threads that call one piece of work, one after another."""

    def __init__(self, work: Callable[[], T], bell: int) -> None:
        self.over = False
        self._work = work
        self._bell = bell
        self._results: list[T] = []
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Call the work in a new thread; one that is stuck must not keep the process alive."""
        self._thread = threading.Thread(target=self._attempt, name="sampler", daemon=True)
        self._thread.start()

    def result(self) -> T:
        """Return what the work returned, or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _attempt(self) -> None:
        with self:
            self._results.append(self._work())

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Superseded):
            self._error, self.over = error, True
            os.write(self._bell, b"!")
        return True

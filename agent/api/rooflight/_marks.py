"""Totals of phases, kept by name until they are sent."""

from __future__ import annotations

import time
from _thread import RLock  # `threading` would take longer to import than all of this

from rooflight._wire import jobid_of, points, rank, send, socket_of

TYPE_CHECKING = False  # the module `typing` takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    Function = TypeVar("Function", bound=Callable[..., Any])

EVERY_SECONDS = 1.0
MOST_NAMES = 100
"""A name is a series in the store: a program that makes up ever new ones gets no more than this."""
OTHERS = "(other phases)"
UNNAMED = "(unnamed)"
LONGEST_NAME = 100

COROUTINE = 0x80
"""In the flags of a function's code: it is `async def` (`inspect.CO_COROUTINE`)."""

OF_A_NAME = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the `__str__` of an object may raise, and BytesWarning under `python -bb`."""


class Total:
    """What is known of one name."""

    __slots__ = ("calls", "seconds", "sent", "started_ms")

    def __init__(self, started_ms: int) -> None:
        self.started_ms = started_ms  # the first start, since 1970
        self.calls = 0
        self.seconds = 0.0
        self.sent = True


class Begun:
    """The begin of one block."""

    __slots__ = ("seconds", "started_ms", "totals")

    def __init__(self, totals: dict[str, Total], started_ms: int, seconds: float) -> None:
        self.totals = totals
        self.started_ms = started_ms
        self.seconds = seconds


class Phase:
    """A block, or a function each of whose calls is one. May be entered again, by any thread."""

    __slots__ = ("_begun", "_marks", "_name")

    def __init__(self, marks: Marks, name: object) -> None:
        self._marks = marks
        self._name = name
        self._begun: list[Begun] = []  # which thread takes which does not change the sums

    def __enter__(self) -> None:
        """Begin."""
        if self._marks.in_a_job:
            self._begun.append(self._marks.begin())

    def __exit__(self, *error: object) -> None:
        """Count the block as one call, also when it raised."""
        if self._begun:
            self._marks.end(self._name, self._begun.pop())

    def __call__(self, function: Function) -> Function:
        """Return the function with each of its calls marked; of `async def` until it returns."""
        if not self._marks.in_a_job:
            return function
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        return _awaited(self, function) if flags & COROUTINE else _called(self, function)


class Marks:
    """Totals of all phases of this process.

    Safe to use from several threads: each block counts, so phases that overlap, or lie within one
    of the same name, add up to more than the time that passed.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._environment = environment
        self._clock = clock
        self._wall = wall
        self.in_a_job = bool(socket_of(environment))
        self.forget()

    def forget(self) -> None:
        """Start from nothing: what was counted so far is the parent's, when a process forks."""
        self._lock = RLock()  # a signal's handler may mark a phase while one is being counted
        self._totals: dict[str, Total] = {}
        self._next_sending = self._clock()

    def phase(self, name: str) -> Phase:
        """Mark a block (`with`), or each call of a function (`@`), as phase `name`."""
        return Phase(self, name)

    def begin(self) -> Begun:
        """Return the begin of a block."""
        return Begun(self._totals, int(self._wall() * 1000), self._clock())

    def end(self, name: object, begun: Begun) -> None:
        """Count a block as one call of `name`, and send what is due."""
        if begun.totals is not self._totals:
            return  # a child that was forked within the block began nothing
        seconds = self._clock() - begun.seconds
        with self._lock:
            total = self._total(clean(name), begun.started_ms)
            total.calls += 1
            total.seconds += seconds
            total.sent = False
            if self._clock() >= self._next_sending:
                self.flush()

    def flush(self) -> None:
        """Send what was not sent yet."""
        with self._lock:
            waiting = {name: each for name, each in list(self._totals.items()) if not each.sent}
            self._next_sending = self._clock() + EVERY_SECONDS
            for total in waiting.values():
                total.sent = True  # and False again, if a signal's handler counts meanwhile
            if waiting and not self._send(waiting):
                for total in waiting.values():
                    total.sent = False

    def _send(self, waiting: Mapping[str, Total]) -> bool:
        known = {"jobid": jobid_of(self._environment), "workload": "user"}
        device = rank(self._environment)
        told = [
            ({**known, "phase": name, "device": device}, each.seconds, each.calls, each.started_ms)
            for name, each in waiting.items()
        ]
        return all(send(socket_of(self._environment), datagram) for datagram in points(told))

    def _total(self, name: str, started_ms: int) -> Total:
        if name not in self._totals and len(self._totals) >= MOST_NAMES:
            name = OTHERS
        return self._totals.setdefault(name, Total(started_ms))


def clean(name: object) -> str:
    """Return a name that a terminal may show and every store takes: 1 to 100 characters."""
    try:
        text = str(name)[:LONGEST_NAME]
    except (*OF_A_NAME, BytesWarning):
        text = type(name).__name__[:LONGEST_NAME]
    if not text.isprintable():
        text = "".join(" " if each.isspace() else _shown(each) for each in text)
    return text.strip() or UNNAMED


def _shown(character: str) -> str:
    return character if character.isprintable() else "?"


def _called(phase: Phase, function: Function) -> Function:
    import functools

    @functools.wraps(function)
    def marked(*arguments: Any, **named: Any) -> Any:
        with phase:
            return function(*arguments, **named)

    return marked  # type: ignore[return-value]


def _awaited(phase: Phase, function: Function) -> Function:
    import functools

    @functools.wraps(function)
    async def marked(*arguments: Any, **named: Any) -> Any:
        with phase:
            return await function(*arguments, **named)

    return marked  # type: ignore[return-value]

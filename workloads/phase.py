"""A recorder of named phases: how often, how long, how many FLOPs, bytes and tokens."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from workloads.counting import Count
from workloads.roofline import Work

MOST_CALLS = 4096
"""Calls of a phase whose times are kept one by one."""


@dataclass(frozen=True, slots=True)
class Span:
    """What one timed block will do: its count, its tokens, and how many `unit`s it is.

    `mostly_reads` says that its bytes are weights and cache, read and not written. `link_bytes`
    cross the link between host and device or between devices, `io_bytes` come from storage. `note`
    is what a reader should know of how it was done.
    """

    count: Count
    tokens: int
    unit: str
    units: int = 1
    mostly_reads: bool = False
    link_bytes: float = 0.0
    io_bytes: float = 0.0
    note: str = ""


@dataclass(slots=True)
class Phase:
    """Running totals of one phase, and the pace that rates are made from.

    On a shared machine some calls are disturbed. Among calls that do the same, FLOP by FLOP and
    byte by byte, the median therefore counts: rates are totals over `typical_seconds`.

    Attributes:
        unit: what one of `units` is: step, prompt, token.
        started: of the first call, in seconds since 1970.
        note: on how it was done, empty when as usual.
        seconds: that the calls took, all of them, disturbed or not.
        tokens: processed, all sequences together.

    """

    workload: str
    name: str
    dtype: str
    unit: str
    mostly_reads: bool
    started: float
    note: str = ""
    calls: int = 0
    units: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    link_bytes: float = 0.0
    io_bytes: float = 0.0
    tokens: int = 0
    _alike: dict[Span, list[float]] = field(default_factory=dict)
    _beyond: float = 0.0

    def add(self, span: Span, seconds: float) -> None:
        """Count a call; of those beyond `MOST_CALLS` the time is kept in sum alone."""
        self.calls += 1
        self.units += span.units
        self.seconds += seconds
        self.flops += span.count.flops
        self.bytes += span.count.bytes
        self.link_bytes += span.link_bytes
        self.io_bytes += span.io_bytes
        self.tokens += span.tokens
        if self.calls <= MOST_CALLS:
            self._alike.setdefault(span, []).append(seconds)
        else:
            self._beyond += seconds

    @property
    def typical_seconds(self) -> float:
        """What the calls take if each takes the median of those like it."""
        return self._beyond + sum(
            len(times) * statistics.median(times) for times in self._alike.values()
        )

    @property
    def work(self) -> Work:
        """The totals as the roofline wants them, at the typical pace."""
        return Work(
            flops=self.flops,
            bytes=self.bytes,
            seconds=self.typical_seconds,
            dtype=self.dtype,
            mostly_reads=self.mostly_reads,
            link_bytes=self.link_bytes,
            io_bytes=self.io_bytes,
            units=self.units,
            unit=self.unit,
        )

    @property
    def flops_per_second(self) -> float | None:
        """FLOP/s over all calls; None before any time has passed."""
        return _rate(self.flops, self.typical_seconds)

    @property
    def bytes_per_second(self) -> float | None:
        """Bytes moved per second over all calls; None before any time has passed."""
        return _rate(self.bytes, self.typical_seconds)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second over all calls; None before any time has passed."""
        return _rate(self.tokens, self.typical_seconds)

    @property
    def seconds_per_unit(self) -> float:
        """Mean time of one `unit`."""
        return self.typical_seconds / self.units

    @property
    def bytes_per_unit(self) -> float:
        """Mean bytes moved by one `unit`."""
        return self.bytes / self.units


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None


Mark = Callable[[str], AbstractContextManager[object]]
"""Opens a range of this name in whatever looks on: a profiler, or nothing."""


class Recorder:
    """Times phases of one workload, waiting for the device before and after each.

    `mark` names the same span of time for profilers; `between` is called after each phase, outside
    of its time.
    """

    def __init__(
        self,
        workload: str,
        dtype: str,
        synchronize: Callable[[], None],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        mark: Mark = nullcontext,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.phases: dict[str, Phase] = {}
        self._workload = workload
        self._dtype = dtype
        self._synchronize = synchronize
        self._clock = clock
        self._wall = wall
        self._mark = mark
        self._between = between

    def forget(self) -> None:
        """Drop what was recorded so far: it was warm-up."""
        self.phases.clear()

    @contextmanager
    def phase(self, name: str, span: Span) -> Iterator[None]:
        """Time the block as one call of `name`; a block that raises is not counted."""
        self._synchronize()
        with self._mark(name):
            started, begin = self._wall(), self._clock()
            yield
            self._synchronize()
            seconds = self._clock() - begin
        fresh = Phase(
            self._workload, name, self._dtype, span.unit, span.mostly_reads, started, span.note
        )
        phase = self.phases.setdefault(name, fresh)
        phase.add(span, seconds)
        self._between()

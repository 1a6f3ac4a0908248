"""When phases ran, as far as their first start and the time they took in all tell."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from agent.inspect.model import Phase
from agent.inspect.series import Shares, Timelines
from workloads.roofline import Bound

USER = "user"
"""Workload of the phases that a program of the user's marked."""

MOST_STRETCHES = 60
"""More stretches than this are a flicker, and no background for anything."""


class Part(NamedTuple):
    """A phase: on all hosts together, the longest time it took on one."""

    workload: str
    phase: str
    bound: Bound
    begin_ms: float
    seconds: float


class Span(NamedTuple):
    """A stretch of time in which one phase ran, or several took turns.

    Attributes:
        seen: what the GPUs' counters say of a phase that does not say it itself.

    """

    begin_ms: float
    end_ms: float
    parts: Sequence[Part]
    seen: Bound = Bound.UNKNOWN

    @property
    def name(self) -> str:
        """Their workload where they have one, or else their names."""
        workloads = {part.workload for part in self.parts}
        if len(self.parts) > 1 and len(workloads) == 1 and workloads != {USER}:
            return workloads.pop()
        return ", ".join(part.phase for part in self.parts)

    @property
    def bound(self) -> Bound:
        """What the longest of them was under."""
        return self.bound_of(max(self.parts, key=lambda part: part.seconds, default=None))

    def bound_of(self, part: Part | None) -> Bound:
        """Return what one of them was under; counters tell nothing of one that took turns."""
        own = part.bound if part else Bound.UNKNOWN
        return self.seen if own is Bound.UNKNOWN and len(self.parts) < 2 else own

    def words(self, part: Part | None = None) -> str:
        """Return the name, or that of a part, with its bound and who says so."""
        shown = part or max(self.parts, key=lambda each: each.seconds, default=None)
        bound = self.bound_of(shown)
        own = shown is not None and shown.bound is bound
        name = part.phase if part else self.name or "GPUs"
        return f"{name}: {bound.value}" + ("" if own else " by the GPUs' counters")


def spans(phases: Iterable[Phase], timelines: Timelines) -> list[Span]:
    """Return when phases ran, oldest first.

    A phase that begins before the time of an earlier one is used up took turns with it, so that
    both went on for as long as they took together.
    """
    together = mean_shares(timelines.bounds.values())
    found: list[Span] = []
    for part in sorted(parts(phases), key=lambda each: each.begin_ms):
        before = found.pop() if found and part.begin_ms < found[-1].end_ms else None
        turns = [*(before.parts if before else ()), part]
        begin_ms = turns[0].begin_ms
        end_ms = min(begin_ms + 1000 * sum(each.seconds for each in turns), timelines.until_ms)
        found.append(Span(begin_ms, end_ms, turns))
    return [span._replace(seen=_seen(span, together, timelines.every_ms)) for span in found]


def stretches(timelines: Timelines) -> list[Span]:
    """Return what the GPUs were under for most of the time when, where no phase is known."""
    windows = mean_shares(timelines.bounds.values()).items()
    runs = groupby(((end_ms, _most(shares)) for end_ms, shares in windows), lambda each: each[1])
    found = []
    for bound, run in runs:
        ends = [end_ms for end_ms, _ in run]
        found.append(Span(ends[0] - timelines.every_ms, ends[-1], (), bound))
    return found if len(found) <= MOST_STRETCHES else []


def parts(phases: Iterable[Phase]) -> list[Part]:
    """Return each phase once, whatever number of hosts and ranks it ran on."""
    found: dict[tuple[str, str], Part] = {}
    for phase in phases:
        key = phase.workload, phase.phase
        part = Part(*key, bound_of(phase.bound), phase.start_ms, phase.duration_seconds)
        known = found.get(key, part)
        longest = max(part, known, key=lambda each: each.seconds)
        found[key] = longest._replace(begin_ms=min(part.begin_ms, known.begin_ms))
    return list(found.values())


def bound_of(word: str) -> Bound:
    """Return the bound of a name; unknown for one of another version."""
    return Bound(word) if word in set(Bound) else Bound.UNKNOWN


def mean_shares(all_shares: Iterable[Shares]) -> dict[int, dict[Bound, float]]:
    """Return the mean of several GPUs' shares, window by window."""
    windows: dict[int, list[Mapping[Bound, float]]] = {}
    for shares in all_shares:
        for end_ms, each in shares.items():
            windows.setdefault(end_ms, []).append(each)
    return {
        end_ms: {
            bound: mean
            for bound in Bound
            if (mean := sum(each.get(bound, 0.0) for each in found) / len(found))
        }
        for end_ms, found in sorted(windows.items())
    }


def _seen(span: Span, together: Shares, every_ms: int) -> Bound:
    """Return what the GPUs were under for most of the windows that lie within a span."""
    within = [
        shares
        for end_ms, shares in together.items()
        if span.begin_ms <= end_ms - every_ms / 2 <= span.end_ms
    ]
    return _most({bound: sum(each.get(bound, 0.0) for each in within) for bound in Bound})


def _most(shares: Mapping[Bound, float]) -> Bound:
    """Return the bound with the highest share; idle only if nothing else has any."""
    busy = {bound: share for bound, share in shares.items() if share and bound is not Bound.IDLE}
    if busy:
        return max(busy, key=busy.__getitem__)
    return Bound.IDLE if shares.get(Bound.IDLE) else Bound.UNKNOWN

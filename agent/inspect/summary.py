"""The lines of all hosts and GPUs of a job, folded into one table."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.inspect.model import Node, Summary, Usage, place


class _Member(NamedTuple):
    """One host's, or one GPU's, share in a line."""

    node: Node
    usage: Usage

    @property
    def place(self) -> str:
        return place(self.node.host, self.usage.gpu)


def summarize(nodes: Iterable[Node]) -> list[Summary]:
    """Return each line over all hosts, or all GPUs, that have it; in the order of the first."""
    members: dict[tuple[str, str], list[_Member]] = {}
    for node in nodes:
        for usage in node.usage:
            members.setdefault((usage.scope, what(usage)), []).append(_Member(node, usage))
    return [_folded(name, lines) for (_, name), lines in members.items()]


def what(usage: Usage) -> str:
    """Return the name of a line without the number of its GPU: "gpu 3 power" is "gpu power"."""
    return f"gpu {usage.what[len(usage.gpu) + 5 :]}" if usage.gpu else usage.what


def bound_seconds(nodes: Iterable[Node]) -> dict[str, float]:
    """Return the seconds under each roof over all GPUs."""
    held: dict[str, float] = {}
    for node in nodes:
        for gpu in node.bounds:
            for bound, seconds in gpu.seconds.items():
                held[bound] = held.get(bound, 0.0) + seconds
    return held


def _folded(name: str, members: Sequence[_Member]) -> Summary:
    first = members[0].usage
    samples = [member.usage.samples for member in members if member.usage.samples is not None]
    lowest, highest = _extremes(members)
    return Summary(
        name,
        first.unit,
        first.scope,
        mean=_mean(member.usage.mean for member in members),
        peak=max(_known(member.usage.peak for member in members), default=None),
        total=_sum(member.usage.total for member in members),
        available=_mean(member.usage.available for member in members),
        source=_sources(members),
        samples=sum(samples) if len(samples) == len(members) else None,
        members=len(members),
        samples_expected=sum(member.node.samples_expected for member in members),
        lowest=lowest.figure,
        lowest_on=lowest.place,
        highest=highest.figure,
        highest_on=highest.place,
    )


class _Extreme(NamedTuple):
    """The lowest or highest figure, and whose it is."""

    figure: float | None = None
    place: str = ""


def _extremes(members: Sequence[_Member]) -> tuple[_Extreme, _Extreme]:
    """Return lowest and highest; unknown for a single member."""
    known = [
        (figure, number)
        for number, member in enumerate(members)
        if (figure := member.usage.figure) is not None
    ]
    if len(known) < 2:
        return _Extreme(), _Extreme()
    low, high = min(known), max(known)
    return _Extreme(low[0], members[low[1]].place), _Extreme(high[0], members[high[1]].place)


def _sources(members: Sequence[_Member]) -> str:
    """Return where the figures come from; hosts may have different sources."""
    return ", ".join(dict.fromkeys(filter(None, (member.usage.source for member in members))))


def _known(numbers: Iterable[float | None]) -> list[float]:
    return [number for number in numbers if number is not None]


def _mean(numbers: Iterable[float | None]) -> float | None:
    known = _known(numbers)
    return sum(known) / len(known) if known else None


def _sum(numbers: Iterable[float | None]) -> float | None:
    known = _known(numbers)
    return sum(known) if known else None

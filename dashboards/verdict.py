"""What a check of all panels found, in few lines: what is empty by its cause, worst last."""

from collections import Counter
from collections.abc import Iterator, Sequence

from dashboards.causes import Cause, Kind, briefly
from dashboards.check import Line, counted

SLOW_SECONDS = 1.0
ORDER = list(Kind)
MARGIN = " " * 6


def line(found: Line) -> str:
    """Return what was found of one thing; how long it took only where that is long."""
    slow = f" ({found.seconds:.1f} s)" if found.seconds > SLOW_SECONDS else ""
    return f"{found.mark:5} {found.where}: {found.words}{slow}"


def emptiness(lines: Sequence[Line], *, everything: bool) -> Iterator[str]:
    """Yield the causes, each with the names of what it keeps empty: all of them, or the first."""
    for cause, found in by_cause(lines):
        mark = "look" if cause.kind is Kind.WORRY else "empty"
        yield f"{mark:5} {things(found)}: {cause}"
        names = [each.where for each in found]
        shown = names if everything else [briefly(names, "; ")]
        yield from (f"{MARGIN}{name}" for name in shown)


def by_cause(lines: Sequence[Line]) -> list[tuple[Cause, list[Line]]]:
    """Return causes with what each keeps empty: worries last, and then the most first."""
    groups: dict[Cause, list[Line]] = {}
    for each in lines:
        if each.cause is not None:
            # of causes that differ only in detail, the first one's is told
            groups.setdefault(each.cause, []).append(each)
    return sorted(groups.items(), key=lambda group: (ORDER.index(group[0].kind), -len(group[1])))


def things(lines: Sequence[Line]) -> str:
    """Return how many there are of what: 52 panels, 4 alerts."""
    counts = Counter(each.thing for each in lines)
    return ", ".join(counted(number, thing) for thing, number in counts.most_common())


def summary(lines: Sequence[Line], failed: int) -> str:
    """Return the last line: how much is well, and whether anything is to worry about."""
    well = sum(each.mark == "ok" for each in lines)
    kinds = Counter(each.cause.kind for each in lines if each.cause is not None)
    slowest = max(lines, key=lambda each: each.seconds)
    took = f"{slowest.seconds * 1000:.0f} ms"
    words = f"{well} ok, {kinds.total()} empty{_because(kinds)}, {failed} failed"
    return f"{words}; slowest: {slowest.where}, {took}"


def _because(kinds: Counter[Kind]) -> str:
    """Return whether what is empty is harmless."""
    if not kinds:
        return ""
    if worries := kinds[Kind.WORRY]:
        return f" ({worries} of them {'needs' if worries == 1 else 'need'} a look)"
    *others, last = (str(kind) for kind in ORDER if kind in kinds)
    return f" (all of them: {', '.join([*others, f'or {last}' if others else last])})"

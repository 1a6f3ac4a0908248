"""The labels of one GPU over the last minutes: kept as spans, shown as a strip of cells."""

from collections import defaultdict
from collections.abc import Sequence

from agent.top.model import Span

HISTORY_SECONDS = 300.0
HISTORY_MS = round(HISTORY_SECONDS * 1000)

LONGEST_STEP_MS = 60_000
"""A label speaks for the time since the one before, but for no longer than this."""

NEARLY = 0.9
UNSEEN = ""


class History:
    """Spans of one GPU, oldest first; neighbours with the same bound are one."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def add(self, begin_ms: int, end_ms: int, bound: str) -> None:
        """Take a label; a short gap before it is its own, for it tells of the time before it."""
        last = self._spans[-1] if self._spans else None
        if last and begin_ms - last.end_ms <= LONGEST_STEP_MS:
            if last.bound == bound:
                self._spans[-1] = last._replace(end_ms=end_ms)
                return
            begin_ms = last.end_ms
        self._spans.append(Span(begin_ms, end_ms, bound))

    def until(self, now_ms: int) -> tuple[Span, ...]:
        """Return the spans of the last minutes, and forget older ones."""
        since = now_ms - HISTORY_MS
        self._spans = [span for span in self._spans if span.end_ms > since]
        return tuple(self._spans)


def strip(spans: Sequence[Span], now_ms: int, cells: int) -> list[str]:
    """Return the bound that held longest in each cell of the last minutes; "" where none is known.

    The last cell ends now.
    """
    held: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(cells)]
    width = HISTORY_MS / max(1, cells)
    start = now_ms - HISTORY_MS
    for span in spans:
        begin = max(0.0, (span.begin_ms - start) / width)
        end = min(float(cells), (span.end_ms - start) / width)
        place = int(begin)
        while place < end:
            held[place][span.bound] += min(end, place + 1) - max(begin, place)
            place += 1
    return [max(each, key=each.__getitem__) if each else UNSEEN for each in held]


def always(spans: Sequence[Span], bound: str) -> bool:
    """Tell whether nothing but this bound held, for nearly as long as the strip is."""
    if len(spans) != 1 or spans[0].bound != bound:
        return False
    return spans[0].end_ms - spans[0].begin_ms >= NEARLY * HISTORY_MS

"""What the panels of one picture have in common: the time shown, and the marks on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from dashboards.dashboard import Annotation, Dashboard
from dashboards.expand import View
from dashboards.frames import Ask, Frame, query_frames
from dashboards.panel import Panel


class Mark(NamedTuple):
    """An annotation's mark: a moment, or the time from it to an end; in milliseconds since 1970."""

    since_ms: float
    until_ms: float | None
    text: str
    name: str
    color: str


@dataclass(frozen=True, slots=True)
class Scene:
    """The time shown, and the marks on it."""

    view: View
    marks: Sequence[Mark] = ()

    @property
    def now_ms(self) -> float:
        """The moment from which what is ago is counted."""
        return float(self.view.until_ms)


@dataclass(frozen=True, slots=True)
class Shown:
    """A panel with the answers to its queries."""

    panel: Panel
    frames: Sequence[Frame]

    @property
    def filled(self) -> bool:
        """Whether there is anything to show."""
        return any(frame.values() for frame in self.frames)


def scene_of(dashboard: Dashboard, view: View, ask: Ask) -> Scene:
    """Return the scene of a dashboard whose variables are chosen."""
    marks = [mark for each in dashboard.annotations for mark in _marks(each, view, ask)]
    return Scene(view, sorted(marks, key=lambda mark: mark.since_ms))


def _marks(annotation: Annotation, view: View, ask: Ask) -> Iterator[Mark]:
    for frame in query_frames(annotation.query, view, ask):
        for row in frame.rows():
            until = row.get(annotation.until) if annotation.until else None
            yield Mark(
                float(cast(float, row["Time"])),
                float(until) if isinstance(until, float | int) else None,
                str(row.get(annotation.text, "")),
                annotation.name,
                annotation.color,
            )

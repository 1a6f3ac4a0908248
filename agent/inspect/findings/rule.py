"""What a rule is, and what rules share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agent.inspect.model import Gpu, JobReport, Node, place

SHORTEST_JUDGED_SECONDS = 10.0
"""Shares of a shorter time say little."""

Severity = Literal["warning", "hint", "info"]


class Case(NamedTuple):
    """One host, GPU, phase or job for which a rule fires.

    Attributes:
        words: what was seen, with its numbers.
        place: host, or host and GPU; empty for the job as a whole.

    """

    words: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table of rules.

    Attributes:
        id: stable name.
        severity: "warning" (something is wrong), "hint" (something could be better), "info".
        looks_at: which figures.
        fires: from which threshold on.
        advice: what to do.
        cases: a pure function of the report; it looks at no other rule's outcome.

    """

    id: str
    severity: Severity
    looks_at: str
    fires: str
    advice: str
    cases: Callable[[JobReport], Iterable[Case]]


def long_enough(report: JobReport) -> Iterator[Node]:
    """Yield the hosts on which the job ran for long enough to be judged."""
    return (node for node in report.nodes if node.elapsed_seconds >= SHORTEST_JUDGED_SECONDS)


def gpus_of(report: JobReport) -> Iterator[tuple[Node, Gpu]]:
    """Yield each GPU of the job with its host."""
    return ((node, gpu) for node in report.nodes for gpu in node.gpus)


def at(node: Node, gpu: Gpu) -> str:
    """Return how a GPU is named."""
    return place(node.name, gpu.gpu)


def share_of_time(node: Node, what: str, gpu: str = "") -> float:
    """Return a line's seconds as a share of the job's time on the host; 0 if it is not known."""
    return (node.total(what, gpu) or 0.0) / max(node.elapsed_seconds, 1e-9)


def used_ratio(node: Node, what: str, gpu: str = "") -> float:
    """Return a line's peak as a share of what there was; 0 if either is not known."""
    line = node.line(what, gpu)
    if line is None or line.peak is None or not line.available:
        return 0.0
    return line.peak / line.available

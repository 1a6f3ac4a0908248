"""Phases and their roofs as text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from agent.inspect.layout import Column, Paint, paragraph, table
from agent.inspect.model import JobReport, Phase
from agent.inspect.units import show, show_seconds
from agent.inspect.words import phase_name
from workloads.kinds import MEMORY_KINDS

MOST_ROWS = 24
"""More phases than this, as every rank of a large job marks its own, are folded by their names."""

MEANS = (
    *("duration_seconds", "flops_per_second", "bytes_per_second", "intensity_flops_per_byte"),
    *("compute_ratio", "memory_ratio", "link_ratio", "io_ratio"),
)


def phase_lines(report: JobReport, width: int, paint: Paint) -> Iterator[str]:
    """Yield a row for each phase, or each name where there are very many; then the ceilings."""
    phases = report.phases
    named = [(phase_name(phase), phase) for phase in phases]
    if len(phases) > MOST_ROWS:
        named = folded(phases)
    outside = [
        roof for roof in ("link", "io") if any(getattr(each, f"{roof}_ratio") for each in phases)
    ]
    heads = ("time", "FLOP/s", "B/s", "FLOP/B", "compute", "memory", *outside)
    numbers = [Column(head, right=True) for head in heads]
    rows = [[name, *_cells(phase, outside), phase.bound] for name, phase in named]
    yield paint("Phases and their roofs", "bold")
    yield from table([Column("phase"), *numbers, Column("bound")], rows, width)
    if words := ceiling_words(report):
        yield from (paint(line, "dim") for line in paragraph(words, width))


def folded(phases: Iterable[Phase]) -> list[tuple[str, Phase]]:
    """Return one phase for all of a name: means, and the bound that most of them had."""
    groups: dict[tuple[str, str], list[Phase]] = {}
    for phase in phases:
        groups.setdefault((phase.workload, phase.phase), []).append(phase)
    return [(f"{group[0].phase} ({len(group)})", _mean(group)) for group in groups.values()]


def _mean(group: Sequence[Phase]) -> Phase:
    means = {
        name: sum(known) / len(known)
        for name in MEANS
        if (known := [value for phase in group if (value := getattr(phase, name)) is not None])
    }
    bound = Counter(phase.bound for phase in group).most_common(1)[0][0]
    return msgspec.structs.replace(group[0], bound=bound, **means)


def _cells(phase: Phase, outside: Iterable[str]) -> list[str]:
    intensity = phase.intensity_flops_per_byte
    return [
        show_seconds(phase.duration_seconds),
        _rate(phase.flops_per_second),
        _rate(phase.bytes_per_second),
        "" if intensity is None else f"{intensity:.3g}",
        _percent(phase.compute_ratio),
        _percent(phase.memory_ratio),
        *(_percent(getattr(phase, f"{roof}_ratio")) for roof in outside),
    ]


def ceiling_words(report: JobReport) -> str:
    """Say against which measured ceilings the percentages stand."""
    best: dict[str, str] = {}
    for ceiling in report.ceilings:
        if ceiling.flops_per_second is not None:
            best[f"{ceiling.dtype} compute"] = show(ceiling.flops_per_second, "FLOP/s")
    for ceiling in report.ceilings:
        if ceiling.bytes_per_second is not None:
            of = "memory " if ceiling.kind in MEMORY_KINDS else ""
            best[f"{of}{ceiling.kind}"] = show(ceiling.bytes_per_second, "B/s")
    words = ", ".join(f"{name} {rate}" for name, rate in best.items())
    return f"ceilings measured in this job: {words}" if words else ""


def _rate(value: float | None) -> str:
    return "" if value is None else show(value, "").rstrip()


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else show(ratio, "ratio")

"""The figures of the overhead benchmark, and the tables that they are told in."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

HEAD = (
    *("program", "CPU ms/sample", "ratio", "M instructions/sample", "RSS MiB", "PSS MiB"),
    *("lines", "bytes", "wakeups/sample", "late p50", "p99"),
)
LOADED_HEAD = ("program", "machine", "ticks", "late p50", "p99", "highest", "skipped", "CPU ms")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one program cost in one round.

    Attributes:
        cpu: milliseconds of CPU per sample, user and system.
        wakeups: times per sample that it waited and came back, all threads together.
        resident: MiB in memory at the end.
        proportional: the same, shared pages in proportion.
        lines: lines per sample; of a binary archive, values.
        size: bytes per sample.
        late: milliseconds that each sample was late; empty where the program does not say.
        skipped: samples that it left out, where it says so.

    """

    cpu: float
    wakeups: float
    resident: float
    proportional: float
    lines: float
    size: float
    late: Sequence[float] = ()
    skipped: int | None = None


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a value that so many of a hundred do not exceed."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(
    results: Mapping[str, Sequence[Figures]], base: str, instructions: Mapping[str, float]
) -> str:
    """Return the means over all rounds as a Markdown table; CPU with its range over the rounds.

    Args:
        results: figures of each round by the program's name.
        base: the program to which the ratios are.
        instructions: per sample, of those of which they were counted.

    """
    unit = statistics.fmean(figures.cpu for figures in results[base])
    return markdown(
        HEAD,
        [
            [name, *_costs(rounds, unit), _millions(instructions.get(name)), *_rest(rounds)]
            for name, rounds in results.items()
        ],
    )


def loaded_table(results: Mapping[tuple[str, str], Sequence[Figures]]) -> str:
    """Return how late programs are, by the program's name and by what the machine did."""
    rows = []
    for (name, state), rounds in results.items():
        late = _late(rounds)
        skipped = sum(figures.skipped or 0 for figures in rounds)
        cells = [f"{each:.2f}" for each in (*_percentiles(late), max(late))]
        cpu = statistics.fmean(figures.cpu for figures in rounds)
        rows.append([name, state, f"{len(late)}", *cells, f"{skipped}", f"{cpu:.2f}"])
    return markdown(LOADED_HEAD, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _costs(rounds: Sequence[Figures], unit: float) -> list[str]:
    cpus = [figures.cpu for figures in rounds]
    mean = statistics.fmean(cpus)
    return [f"{mean:.2f} ({min(cpus):.2f}-{max(cpus):.2f})", f"{mean / unit:.2f}"]


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def _rest(rounds: Sequence[Figures]) -> list[str]:
    whole = [[each.resident, each.proportional, each.lines, each.size] for each in rounds]
    cells = [f"{statistics.fmean(column):.0f}" for column in zip(*whole, strict=True)]
    cells.append(f"{statistics.fmean(figures.wakeups for figures in rounds):.1f}")
    late = _late(rounds)
    return [*cells, *(f"{each:.2f}" for each in _percentiles(late))] if late else [*cells, "", ""]


def _late(rounds: Sequence[Figures]) -> list[float]:
    return list(chain.from_iterable(figures.late for figures in rounds))


def _percentiles(late: Sequence[float]) -> tuple[float, float]:
    return percentile(late, 50), percentile(late, 99)

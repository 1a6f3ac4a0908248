"""What was used: lines of the job, its hosts and GPUs side by side, time under each roof."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from agent.inspect.layout import Column, Paint, table
from agent.inspect.model import Gpu, JobReport, Node, Summary, Usage
from agent.inspect.units import show
from agent.inspect.words import SCOPES
from probes.catalogue import BOUNDS

WIDE = 96
"""Columns of a terminal that has room for all; narrower ones get fewer columns."""

WHAT_CELLS, NUMBER_CELLS, RANGE_CELLS, SOURCE_CELLS = 22, 9, 16, 9
LONGEST_SOURCE = 11
BAR_CELLS = {True: 9, False: 7}
"""By whether the terminal is wide."""

RATE = " rate"
SILENT = frozenset({"slowed for power"})  # a line of its own says how long a GPU was slowed at all
SILENT_AT_ZERO = frozenset(
    {"out of memory", "infiniband errors", "infiniband ports", "memory errors", "xid errors"}
    | {"throttled", "slowed for heat", "fp64 active", "processes of others", "shared memory"}
)
"""Lines that stand in the text only where they have something to tell."""


def usage_lines(report: JobReport, width: int, paint: Paint) -> Iterator[str]:
    """Yield the lines of the job over all its hosts and GPUs, by how exact they are."""
    shape = _Shape(width >= WIDE, any(line.members > 1 for line in report.summary))
    rates = {line.what: line for line in report.summary if line.what.endswith(RATE)}
    columns = _usage_columns(shape)
    yield paint(_title(report), "bold")
    yield from table(columns, (), width)
    for scope, words in SCOPES.items():
        lines = [line for line in report.summary if line.scope == scope and _tells(line)]
        shown = [line for line in lines if line.what not in rates]
        if shown:
            yield paint(f"{words}{_of_each(shown[0])}", "dim")
            rows = [[*_cells(line, rates.get(f"{line.what}{RATE}"), shape)] for line in shown]
            yield from table(columns, rows, width, fold=len(columns) - 1, head=False)


class _Shape(NamedTuple):
    """How much room there is, and whether there are several hosts or GPUs to tell the range of."""

    wide: bool
    many: bool

    @property
    def ranges(self) -> bool:
        return self.wide and self.many


def _usage_columns(shape: _Shape) -> list[Column]:
    numbers = [Column(name, True, NUMBER_CELLS) for name in ("mean", "peak", "total", "of")]
    ranges = [Column("range", False, RANGE_CELLS)] if shape.ranges else []
    bars = Column("", False, BAR_CELLS[shape.wide])
    what, source = Column("what", False, WHAT_CELLS), Column("by", False, SOURCE_CELLS)
    return [what, *numbers, bars, *ranges, source]


def _title(report: JobReport) -> str:
    """Return whose figures these are, and how much of it was seen."""
    expected = sum(node.samples_expected for node in report.nodes)
    seen = f"{sum(map(_taken, report.nodes))} of {expected} samples"
    if len(report.nodes) == len(report.job.hosts) == 1:
        return f"Utilisation of {report.nodes[0].host}: {seen}"
    return f"Utilisation: footprints from {len(report.nodes)} of {report.job.nodes} nodes, {seen}"


def _taken(node: Node) -> int:
    """Return how many of the expected samples there are: other jobs' starts and ends add some."""
    return min(node.samples, node.samples_expected)


def _of_each(line: Summary) -> str:
    kind = {"gpu": "GPUs"}.get(line.scope, "nodes")
    return f"; means and peaks of {line.members} {kind}, totals of all" if line.members > 1 else ""


def _tells(line: Usage) -> bool:
    name = line.what.removeprefix("gpu ")
    return name not in SILENT and (name not in SILENT_AT_ZERO or bool(line.figure))


def _cells(line: Summary, rate: Summary | None, shape: _Shape) -> Iterator[str]:
    """Yield a row; a line of bytes has its rate beside its total."""
    used: Summary = rate or line
    numbers = (used.mean, used.peak, line.total, used.available)
    units = (used.unit, used.unit, line.unit, used.unit)
    yield line.what
    for number, unit in zip(numbers, units, strict=True):
        yield "" if number is None else show(number, unit)
    yield bar(used, BAR_CELLS[shape.wide])
    if shape.ranges:
        yield _range(used)
    yield _source(line)


def _range(line: Summary) -> str:
    if line.lowest is None or line.highest is None:
        return ""
    low, high = show(line.lowest, line.unit), show(line.highest, line.unit)
    if low == high:
        return high
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(f' {unit}')}-{high}"


def _source(line: Summary) -> str:
    """Return where a line comes from; how many samples had it, if some had not."""
    if line.samples is None or line.samples >= line.samples_expected - 2 * line.members:
        return line.source
    counts = f"{line.source} {line.samples}/{line.samples_expected}"
    share = f"{line.source} {line.samples / line.samples_expected:.0%}"
    return counts if len(counts) <= LONGEST_SOURCE else share


def bar(usage: Usage, cells: int) -> str:
    """Return a bar of the mean (or else peak or total) against what there was."""
    numbers = (usage.mean, usage.peak, usage.total)
    used = next((number for number in numbers if number is not None), None)
    whole = 1.0 if usage.unit == "ratio" else usage.available
    if used is None or not whole:
        return ""
    return _bar(used / whole, cells)


def _bar(share: float, cells: int) -> str:
    filled = round(min(1.0, share) * cells)
    return "#" * filled + "." * (cells - filled)


class _Figure(NamedTuple):
    """A column of the tables of hosts and GPUs: a line, and which of its numbers.

    Attributes:
        wide: left out where there is little room.

    """

    title: str
    what: str
    number: str
    wide: bool = False

    def value(self, line: Usage | None) -> float | None:
        if line is None:
            return None
        value: float | None = getattr(line, self.number)
        return value


NODE_FIGURES = (
    _Figure("cpu", "cpu", "mean"),
    _Figure("memory", "memory", "peak"),
    _Figure("of", "memory", "available", wide=True),
    _Figure("others", "node cpu others", "mean"),
    _Figure("power", "node power", "mean"),
    _Figure("net in", "network in", "total", wide=True),
    _Figure("net out", "network out", "total"),
    _Figure("ib in", "infiniband in", "total", wide=True),
    _Figure("ib out", "infiniband out", "total"),
    _Figure("temp disk", "temp disk held", "peak"),
)
GPU_FIGURES = (
    _Figure("util", "utilization", "mean"),
    _Figure("memory", "memory", "peak"),
    _Figure("of", "memory", "available", wide=True),
    _Figure("power", "power", "mean"),
    _Figure("energy", "energy", "total", wide=True),
    _Figure("clock", "sm clock", "mean", wide=True),
    _Figure("tensor", "tensor active", "mean"),
    _Figure("dram", "dram active", "mean"),
    _Figure("throttled", "throttled", "total"),
)

Find = Callable[[str], Usage | None]
Marks = Mapping[tuple[str, str], frozenset[str]]
"""Host and GPU -> the lines in which they are unlike the others."""


def node_lines(report: JobReport, width: int, paint: Paint) -> Iterator[str]:
    """Yield a row for each host."""
    finds: list[tuple[Node, Find]] = [(node, node.line) for node in report.nodes]
    figures = _known(NODE_FIGURES, [find for _, find in finds], width)
    marks = _marks(report)
    rows = [
        [
            node.name,
            f"{_taken(node)}/{node.samples_expected}",
            *_numbers(figures, find, marks.get((node.host, ""), frozenset())),
        ]
        for node, find in finds
    ]
    numbers = [Column(figure.title, right=True) for figure in figures]
    yield paint("Nodes", "bold")
    yield from table([Column("node"), Column("samples", right=True), *numbers], rows, width)


def gpu_lines(report: JobReport, width: int, paint: Paint) -> Iterator[str]:
    """Yield a row for each GPU."""
    finds = [(node, gpu, _of(node, gpu)) for node in report.nodes for gpu in node.gpus]
    figures = _known(GPU_FIGURES, [find for _, _, find in finds], width)
    marks = _marks(report)
    rows = [
        [
            node.name,
            gpu.gpu,
            *_numbers(figures, find, marks.get((node.host, gpu.gpu), frozenset())),
            _mostly(node, gpu),
        ]
        for node, gpu, find in finds
    ]
    numbers = [Column(figure.title, right=True) for figure in figures]
    yield paint("GPUs", "bold")
    yield from table([Column("node"), Column("gpu"), *numbers, Column("mostly")], rows, width)


def _of(node: Node, gpu: Gpu) -> Find:
    return lambda what: node.line(what, gpu.gpu)


def _known(figures: Iterable[_Figure], finds: Sequence[Find], width: int) -> list[_Figure]:
    """Return the columns for which there is room, in which not all is zero or unknown."""
    return [
        figure
        for figure in figures
        if (width >= WIDE or not figure.wide)
        and any(figure.value(find(figure.what)) for find in finds)
    ]


def _numbers(figures: Iterable[_Figure], find: Find, marked: frozenset[str]) -> Iterator[str]:
    """Yield the numbers of a host or GPU, those of outliers with a star."""
    for figure in figures:
        line = find(figure.what)
        value = figure.value(line)
        if line is None or value is None:
            yield ""
        else:
            star = "*" if figure.what in marked and figure.number != "available" else ""
            yield f"{show(value, line.unit)}{star}"


def _marks(report: JobReport) -> Marks:
    marks: dict[tuple[str, str], frozenset[str]] = {}
    for outlier in report.outliers:
        key = (outlier.host, outlier.gpu)
        marks[key] = marks.get(key, frozenset()) | {outlier.what}
    return marks


def _mostly(node: Node, gpu: Gpu) -> str:
    """Return the bound under which a GPU was for most of the time, and its share."""
    held = next((bounds.seconds for bounds in node.bounds if bounds.gpu == gpu.gpu), {})
    if not held:
        return ""
    bound = max(held, key=lambda name: held[name])
    return f"{bound} {held[bound] / sum(held.values()):.0%}"


def bounds_lines(report: JobReport, width: int, paint: Paint, *, each: bool) -> Iterator[str]:
    """Yield the time under each roof: of each GPU by host, or of all together."""
    gpus = [gpu for node in report.nodes for gpu in node.bounds]
    if not gpus:
        return
    if not each:
        evidence = ", ".join(dict.fromkeys(gpu.evidence for gpu in gpus))
        yield paint(f"Time under each roof, {len(gpus)} GPUs, judged by {evidence}", "bold")
        yield from _bounds_of_all(report, width)
        return
    shown = [bound for bound in BOUNDS if any(bound in gpu.seconds for gpu in gpus)]
    one = len(report.nodes) == 1
    rows = [
        [*(() if one else (node.name,)), gpu.gpu, *_shares(gpu.seconds, shown), gpu.evidence]
        for node in report.nodes
        for gpu in node.bounds
    ]
    heads = [*(() if one else (Column("node"),)), Column("gpu")]
    shares = [Column(bound, right=True) for bound in shown]
    yield paint(f"Time under each roof{f', {report.nodes[0].name}' if one else ''}", "bold")
    yield from table([*heads, *shares, Column("judged by")], rows, width)


def _shares(held: Mapping[str, float], shown: Iterable[str]) -> Iterator[str]:
    whole = sum(held.values())
    for bound in shown:
        yield f"{held[bound] / whole:.0%}" if bound in held else ""


def _bounds_of_all(report: JobReport, width: int) -> Iterator[str]:
    whole = sum(report.bounds.values()) or 1.0
    shares = {bound: report.bounds.get(bound, 0.0) / whole for bound in BOUNDS}
    rows = [
        [bound, show(share, "ratio"), _bar(share, BAR_CELLS[True])]
        for bound, share in shares.items()
        if share > 0
    ]
    return table([Column("bound"), Column("of the time", right=True), Column("")], rows, width)

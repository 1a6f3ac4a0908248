"""The tables of the page: what is in the figures as numbers, and what is in none of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agent.inspect.model import JobReport, Node, Outlier, Phase, Summary, TaskSummary, Usage, place
from agent.inspect.report.drawing import bar, bounds_key, legend_mark
from agent.inspect.report.gpus import Cell, GpuRow, columns
from agent.inspect.report.markup import Child, Markup, element, join, percent
from agent.inspect.report.spans import Span, bound_of
from agent.inspect.units import show, show_seconds
from agent.inspect.words import SCOPES, phase_name
from workloads.roofline import Bound

UNITS = {"degC": "°C"}
MOST_ROWS = 16
"""More GPUs than this are folded away, but for those that stand out."""

MOST_BARS = 4
"""The same for bars, which are higher."""


def table(
    heads: Sequence[str], rows: Iterable[Markup], words: str, class_: str | None = None
) -> Markup:
    """Return a table that moves within its own frame where the page is narrow."""
    cells = [element("th", head, scope="col") for head in heads]
    head = element("thead", element("tr", *cells))
    body = element("tbody", *rows)
    whole = element("table", element("caption", words), head, body, class_=class_)
    return element("div", whole, class_="frame", tabindex="0", role="region", aria_label=words)


def row(name: Child, *cells: Child) -> Markup:
    """Return a row; its first cell names it."""
    first = element("th", name, scope="row")
    return element("tr", first, *(element("td", cell) for cell in cells))


def folded(summary: str, *content: Markup) -> Markup:
    """Return content that is shown when it is asked for, and in print."""
    return element("details", element("summary", summary), *content)


def usage_table(node: Node) -> Markup:
    """Return what one host was used for; its GPUs have a table of their own."""
    rows: list[Markup] = []
    scope = ""
    lines = [usage for usage in node.usage if usage.scope != "gpu"]
    for usage in sorted(lines, key=lambda each: tuple(SCOPES).index(each.scope)):
        if usage.scope != scope:
            scope = usage.scope
            source = f" ({node.source})" if scope == "job" and node.source else ""
            cell = element("th", SCOPES[scope] + source, colspan=7, scope="rowgroup")
            rows.append(element("tr", cell, class_="group"))
        rows.append(row(usage.what, *_numbers(usage), _used(usage), _source(usage, node.samples)))
    heads = ("what", "mean", "peak", "total", "of", "used", "source")
    words = f"{node.name}: {node.samples} of {node.samples_expected} samples"
    return table(heads, rows, words, "usage")


def summary_table(summary: Sequence[Summary]) -> Markup:
    """Return each line over all hosts, or all GPUs, with who had least and most."""
    rows = [
        row(
            each.what,
            str(each.members),
            *_numbers(each),
            _extreme(each.lowest, each),
            each.lowest_on,
            _extreme(each.highest, each),
            each.highest_on,
        )
        for each in summary
    ]
    heads = ("what", "members", "mean", "peak", "total", "of", "lowest", "on", "highest", "on")
    return table(heads, rows, "All hosts and GPUs together")


def _extreme(value: float | None, line: Usage) -> str:
    return "" if value is None else _shown(value, line.unit)


def _numbers(usage: Usage) -> list[str]:
    numbers = (usage.mean, usage.peak, usage.total, usage.available)
    return ["" if number is None else _shown(number, usage.unit) for number in numbers]


def _source(usage: Usage, samples: int) -> str:
    """Return where a line comes from, and in how many samples it was, if not in all."""
    partly = usage.samples is not None and usage.samples < samples
    return f"{usage.source} {usage.samples} of {samples}" if partly else usage.source


def _used(usage: Usage) -> Markup | None:
    """Return a bar of the mean (or else the peak) against what there was."""
    used = usage.mean if usage.mean is not None else usage.peak
    whole = 1.0 if usage.unit == "ratio" else usage.available
    if used is None or not whole:
        return None
    filled = element("rect", width=percent(min(1.0, used / whole)), height="100%")
    return element("svg", filled, class_="used", height=8, aria_hidden="true")


def phase_table(phases: Sequence[Phase], known_spans: Iterable[Span]) -> Markup:
    """Return what each phase reached; what none of them tells has no column."""
    alone = {span.parts[0][:2]: span for span in known_spans if len(span.parts) == 1}
    known: dict[str, list[str]] = {
        "host": [phase.host for phase in phases],
        "time": [show_seconds(phase.duration_seconds) for phase in phases],
        "calls": [str(phase.calls or "") for phase in phases],
        "FLOP/s": [_rate(phase.flops_per_second) for phase in phases],
        "B/s": [_rate(phase.bytes_per_second) for phase in phases],
        "FLOP/B": [_intensity(phase.intensity_flops_per_byte) for phase in phases],
        "compute": [_share(phase.compute_ratio) for phase in phases],
        "memory": [_share(phase.memory_ratio) for phase in phases],
        "link": [_share(phase.link_ratio) for phase in phases],
        "io": [_share(phase.io_ratio) for phase in phases],
    }
    if len(set(known["host"])) == 1:
        del known["host"]
    shown = {head: cells for head, cells in known.items() if any(cells)}
    rows = [
        row(
            phase_name(phase),
            _phase_bound(phase, alone.get((phase.workload, phase.phase))),
            *(cells[number] for cells in shown.values()),
        )
        for number, phase in enumerate(phases)
    ]
    return table(("phase", "bound", *shown), rows, "Phases, and what they reached of each roof")


def _phase_bound(phase: Phase, span: Span | None) -> Markup:
    """Return a phase's own bound, or else what the GPUs' counters said while it ran."""
    own = bound_of(phase.bound)
    if own is not Bound.UNKNOWN or span is None or span.seen is Bound.UNKNOWN:
        return named(own)
    return join(named(span.seen), " (GPU counters)")


def named(bound: Bound) -> Markup:
    """Return a bound's mark and name."""
    return element("span", legend_mark(bound), bound.value, class_="named")


class Held(NamedTuple):
    """How long something was under each bound, and what that rests on."""

    name: str
    seconds: Mapping[Bound, float]
    evidence: str = ""


def bounds_figure(report: JobReport) -> Markup | None:
    """Return how long GPUs and phases were under each bound; None if nothing is known of it."""
    gpus = [
        Held(place(node.name, each.gpu), _known(each.seconds), f"judged by {each.evidence}")
        for node in report.nodes
        for each in node.bounds
    ]
    together = [Held(f"all {len(gpus)} GPUs", _known(report.bounds))] if len(gpus) > 1 else []
    phases = [held for held in [_phases_held(report.phases)] if set(held.seconds) - {Bound.UNKNOWN}]
    many = len(gpus) > MOST_BARS
    shown = [*phases, *together, *(() if many else gpus)]
    if not shown:
        return None
    bounds = {bound for held in shown for bound in held.seconds}
    each = folded("Each GPU", *map(_bound_row, gpus)) if many else None
    return join(*map(_bound_row, shown), bounds_key(bounds), each)


def _phases_held(phases: Iterable[Phase]) -> Held:
    seconds: dict[Bound, float] = {}
    for phase in phases:
        bound = bound_of(phase.bound)
        seconds[bound] = seconds.get(bound, 0.0) + phase.duration_seconds
    return Held("phases", seconds)


def _known(seconds: Mapping[str, float]) -> dict[Bound, float]:
    return {bound_of(name): held for name, held in seconds.items()}


def _bound_row(held: Held) -> Markup:
    """Return a bar, and below it the same in words."""
    whole = sum(held.seconds.values()) or 1.0
    shares = [(bound, held.seconds[bound] / whole) for bound in Bound if held.seconds.get(bound)]
    told = [
        f"{bound.value} {share:.0%}, {show_seconds(held.seconds[bound])}" for bound, share in shares
    ]
    words = "; ".join([*told, *filter(None, [held.evidence])])
    return element(
        "div", element("b", held.name), bar(shares), element("p", words), class_="bound-row"
    )


def gpu_table(rows: Sequence[GpuRow]) -> Markup:
    """Return the GPUs side by side; of many, those that stand out come first."""
    heads = ("GPU", "mostly", *columns(rows))
    words = "Each GPU over the whole job"
    if len(rows) <= MOST_ROWS:
        return table(heads, _gpu_lines(rows, heads), words)
    far = [each for each in rows if each.stands_out()]
    shown = table(heads, _gpu_lines(far, heads), "GPUs that are unlike the others") if far else None
    return join(
        shown, folded(f"All {len(rows)} GPUs", table(heads, _gpu_lines(rows, heads), words))
    )


def _gpu_lines(rows: Iterable[GpuRow], heads: Sequence[str]) -> list[Markup]:
    return [
        row(
            join(each.name, element("b", " *", class_="outlier"))
            if each.stands_out()
            else each.name,
            named(bound_of(each.bound)) if each.bound else "",
            *(_gpu_cell(each.cells.get(head)) for head in heads[2:]),
        )
        for each in rows
    ]


def _gpu_name(each: GpuRow) -> Child:
    """Return the name, marked: what stands out may be beyond the edge of a telephone."""
    if not each.stands_out():
        return each.name
    return join(each.name, element("b", " *", class_="outlier"))


def _gpu_cell(cell: Cell | None) -> Child:
    if cell is None:
        return ""
    words = _shown(cell.value, cell.unit)
    return words if cell.outlier is None else join(words, " ", _outlier(cell.outlier))


def _outlier(outlier: Outlier) -> Markup:
    far = "▲ high" if outlier.value > outlier.median else "▼ low"
    usual = f"the median is {_shown(outlier.median, outlier.unit)}"
    return element("b", far, class_="outlier", title=usual)


def task_table(tasks: Sequence[TaskSummary]) -> Markup:
    """Return a line for each task of an array or component of a heterogeneous job."""
    heads = ("job", "state", "time", "CPU", "memory", "GPU", "hosts", "findings")
    rows = [
        row(
            task.jobid,
            task.state,
            show_seconds(task.elapsed_seconds),
            _share(task.cpu_mean_ratio),
            "" if task.memory_peak_bytes is None else show(task.memory_peak_bytes, "B"),
            _share(task.gpu_mean_ratio),
            ", ".join(task.hosts),
            ", ".join(task.findings),
        )
        for task in tasks
    ]
    return table(heads, rows, "The parts of this job")


def _shown(value: float, unit: str) -> str:
    return show(value, UNITS.get(unit, unit))


def _rate(value: float | None) -> str:
    return "" if value is None else show(value, "").rstrip()


def _intensity(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _share(ratio: float | None) -> str:
    return "" if ratio is None else show(ratio, "ratio")

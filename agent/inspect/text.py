"""The report as text for a terminal of 80 columns."""

import time
from collections.abc import Iterable, Sequence
from operator import attrgetter

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.inspect.model import (
    Finding,
    JobHeader,
    JobReport,
    Node,
    Phase,
    TaskSummary,
    Usage,
)
from agent.inspect.units import printable, show, show_seconds
from workloads.kinds import MEMORY_KINDS
from workloads.roofline import Bound

BAR_CELLS = 10
STYLES = {"warning": "bold red", "hint": "yellow", "info": "cyan"}
SCOPES = {
    "job": "exact for the job",
    "gpu": "exact for the GPU",
    "node": "whole node, others' work included",
}


def render(report: JobReport, console: Console, *, per_node: bool) -> None:
    """Print the report."""
    parts: list[RenderableType] = [_header(report.job), Text()]
    parts += [Text(f"note: {note}", style="yellow") for note in report.notes]
    if report.tasks:
        parts.append(_task_table(report.tasks))
        console.print(Group(*parts))
        return
    shown = report.nodes if per_node else report.nodes[:1]
    for node in shown:
        parts += [_usage_table(node), Text()]
        if node.bounds:
            parts += [_bounds_table(node), Text()]
    if len(report.nodes) > len(shown):
        parts += [Text(f"{len(report.nodes) - 1} more hosts: --per-node shows them"), Text()]
    if report.phases:
        parts += [_phase_table(report.phases), _ceiling_line(report), Text()]
    parts.append(_findings(report.findings))
    if report.grafana:
        parts += [Text(), Text(f"Grafana: {report.grafana}", overflow="fold")]
    console.print(Group(*parts))


def _header(job: JobHeader) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    exit_words = "" if job.exit_code is None else f", exit code {job.exit_code}"
    rows = {
        "Job": f"{job.jobid} on cluster {job.cluster}",
        "State": f"{job.state}{exit_words}",
        "User": " / ".join(filter(None, (job.user, job.account, job.partition))),
        "Command": job.command or job.name,
        "Where": f"{', '.join(job.hosts)} ({job.cpus} CPUs, {job.gpus} GPUs)",
        "When": _when(job),
    }
    for name, words in rows.items():
        if words:
            table.add_row(name, Text(printable(words)))  # Text: a hostile name stays text
    return table


def _when(job: JobHeader) -> str:
    if not job.start_ms:
        return f"not begun: {job.reason or 'waiting'}"
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.start_ms / 1000))
    if job.end_ms is None:
        return f"since {begun}, {show_seconds(job.elapsed_seconds)} so far"
    limit = job.time_limit_seconds
    asked = f" of {show_seconds(limit)} asked for" if limit else ""
    return f"{begun}, took {show_seconds(job.elapsed_seconds)}{asked}"


def _task_table(tasks: Iterable[TaskSummary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("job", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("time", "cpu", "memory", "gpu"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("hosts", overflow="fold")
    for task in tasks:
        memory = task.memory_peak_bytes
        table.add_row(
            task.jobid,
            task.state,
            show_seconds(task.elapsed_seconds),
            _percent(task.cpu_mean_ratio),
            "" if memory is None else show(memory, "B"),
            _percent(task.gpu_mean_ratio),
            ", ".join(task.hosts),
        )
    return table


def _usage_table(node: Node) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Utilisation of {node.host}: {_coverage(node)}",
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    table.add_column("what")
    for name in ("mean", "peak", "total", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    scope = ""
    for usage in sorted(node.usage, key=lambda each: tuple(SCOPES).index(each.scope)):
        if usage.scope != scope:
            scope = usage.scope
            source = f" ({node.source})" if scope == "job" and node.source else ""
            table.add_row(Text(SCOPES[scope] + source, style="italic dim"))
        table.add_row(*_usage_cells(usage))
    return table


def _coverage(node: Node) -> str:
    return f"{node.samples} of {node.samples_expected} samples"


def _usage_cells(usage: Usage) -> list[str]:
    numbers = (usage.mean, usage.peak, usage.total, usage.available)
    cells = ["" if number is None else show(number, usage.unit) for number in numbers]
    return [f"  {usage.what}", *cells, _bar(usage)]


def _bar(usage: Usage) -> str:
    """Return a bar of the mean (or else the peak) against what there was."""
    used = usage.mean if usage.mean is not None else usage.peak
    whole = 1.0 if usage.unit == "ratio" else usage.available
    if used is None or not whole:
        return ""
    filled = round(min(1.0, used / whole) * BAR_CELLS)
    return "#" * filled + "." * (BAR_CELLS - filled)


def _bounds_table(node: Node) -> Table:
    """Return the share of time under each roof, and what it was judged by."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Time under each roof, {node.host}",
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    table.add_column("gpu")
    shown = [bound for bound in Bound if any(bound in gpu.seconds for gpu in node.bounds)]
    for bound in shown:
        table.add_column(bound.value, justify="right", no_wrap=True)
    table.add_column("judged by")
    for gpu in node.bounds:
        whole = sum(gpu.seconds.values())
        shares = (gpu.seconds.get(bound) for bound in shown)
        cells = ("" if held is None else f"{held / whole:.0%}" for held in shares)
        table.add_row(Text(gpu.gpu), *cells, Text(gpu.evidence))
    return table


def _phase_table(phases: Sequence[Phase]) -> Table:
    outside = [roof for roof in ("link", "io") if any(map(attrgetter(f"{roof}_ratio"), phases))]
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Phases and their roofs",
        title_justify="left",
        title_style="bold",
        padding=(0, 0 if outside else 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("phase")
    for name in ("time", "FLOP/s", "B/s", "FLOP/B", "compute", "memory", *outside):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    for phase in phases:
        table.add_row(
            Text(_phase_name(phase)),
            show_seconds(phase.duration_seconds),
            _rate(phase.flops_per_second),
            _rate(phase.bytes_per_second),
            ""
            if phase.intensity_flops_per_byte is None
            else f"{phase.intensity_flops_per_byte:.3g}",
            _percent(phase.compute_ratio),
            _percent(phase.memory_ratio),
            *(_percent(getattr(phase, f"{roof}_ratio")) for roof in outside),
            Text(phase.bound, style="bold"),
        )
    return table


def _phase_name(phase: Phase) -> str:
    """Name a phase, with its variant where several were compared, and its rank where it has one."""
    variant = phase.workload.partition(" ")[2]
    rank = phase.device if phase.device.startswith("rank ") else ""
    return " ".join(filter(None, (phase.phase, variant, rank)))


def _ceiling_line(report: JobReport) -> Text:
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
    return Text(f"ceilings measured in this job: {words}" if words else "", style="dim")


def _findings(findings: Iterable[Finding]) -> Group:
    lines: list[Text] = []
    for finding in findings:
        style = STYLES[finding.severity]
        lines.append(Text.assemble((f"{finding.severity}: ", style), finding.words))
        lines.append(Text(f"  -> {finding.advice}", style="dim"))
    return Group(Text("Findings", style="bold"), *(lines or [Text("nothing stands out")]))


def _rate(value: float | None) -> str:
    return "" if value is None else show(value, "").rstrip()


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else show(ratio, "ratio")

"""The report as text: for terminals of 80 columns, and a little more where there is room."""

from collections.abc import Iterable, Iterator

from agent.inspect.layout import Paint, Style, paragraph
from agent.inspect.model import Finding, JobReport
from agent.inspect.outliers import RULE_WORDS
from agent.inspect.phasetable import phase_lines
from agent.inspect.tables import bounds_lines, gpu_lines, node_lines, usage_lines
from agent.inspect.tasktable import task_lines
from agent.inspect.words import header_words
from agent.printable import all_printable

STYLES: dict[str, Style] = {"warning": "red", "hint": "yellow", "info": "cyan"}
MOST_MEMBERS = 8
"""So many hosts, and GPUs, have a row of their own without being asked for."""


def render(report: JobReport, width: int, *, per_node: bool, color: bool = False) -> str:
    """Return the report as it is printed, for a terminal of so many columns.

    What comes from others (names of jobs, hosts, phases, models) is written out first: it cannot
    command the terminal, wherever it stands.
    """
    report = all_printable(report)
    paint = Paint(color=color)
    blocks = [_header(report, width, paint), _notes(report, width, paint)]
    if report.tasks or not report.job.jobid:
        blocks.append(task_lines(report, width))
    else:
        blocks += _of_one(report, width, paint, per_node=per_node)
    if report.nodes or report.tasks or report.findings:
        blocks.append(_findings(report.findings, width, paint))
    if report.grafana:
        blocks.append(iter([f"Grafana: {report.grafana}"]))
    texts = ("\n".join(block) for block in blocks)
    return "\n\n".join(filter(None, texts))


def _of_one(
    report: JobReport, width: int, paint: Paint, *, per_node: bool
) -> Iterator[Iterator[str]]:
    """Yield what is shown of a single job, block by block."""
    if report.summary:
        yield usage_lines(report, width, paint)
    yield from _members(report, width, paint, per_node=per_node)
    each = per_node or sum(len(node.bounds) for node in report.nodes) <= MOST_MEMBERS
    yield bounds_lines(report, width, paint, each=each)
    if report.phases:
        yield phase_lines(report, width, paint)


def _members(
    report: JobReport, width: int, paint: Paint, *, per_node: bool
) -> Iterator[Iterator[str]]:
    """Yield hosts and GPUs side by side; of many, how to see them."""
    nodes, gpus = len(report.nodes), sum(len(node.gpus) for node in report.nodes)
    if max(nodes, gpus) > MOST_MEMBERS and not per_node:
        names = f"{nodes} nodes, {gpus} GPUs" if gpus else f"{nodes} nodes"
        yield iter([f"{names}: --per-node shows each"])
        return
    of_nodes = nodes > 1 or (nodes and per_node)
    of_gpus = gpus > 1 or (gpus and per_node)
    if of_nodes:
        yield node_lines(report, width, paint)
    if of_gpus:
        yield gpu_lines(report, width, paint)
    if report.outliers and (of_nodes or of_gpus):
        yield (paint(line, "dim") for line in paragraph(RULE_WORDS, width))


def _header(report: JobReport, width: int, paint: Paint) -> Iterator[str]:
    words = header_words(report)
    names = max(map(len, words)) + 2
    for name, value in words.items():
        lines = list(paragraph(value, width - names))
        yield f"{paint(name, 'bold')}{' ' * (names - len(name))}{lines[0]}"
        yield from (f"{' ' * names}{line}" for line in lines[1:])


def _notes(report: JobReport, width: int, paint: Paint) -> Iterator[str]:
    for note in report.notes:
        yield from (paint(line, "yellow") for line in paragraph(f"note: {note}", width))


def _findings(findings: Iterable[Finding], width: int, paint: Paint) -> Iterator[str]:
    yield paint("Findings", "bold")
    nothing = True
    for finding in findings:
        nothing = False
        severity = f"{finding.severity}:"
        lines = list(paragraph(f"{severity} {finding.words}", width))
        rest = lines[0].removeprefix(severity)
        yield f"{paint(severity, STYLES[finding.severity])}{rest}"
        yield from lines[1:]
        advice = paragraph(f"  -> {finding.advice}", width, indent="     ")
        yield from (paint(line, "dim") for line in advice)
    if nothing:
        yield "nothing stands out"

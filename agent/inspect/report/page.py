"""The page: all that is known of one job, for a browser without network."""

import time
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files

from agent.inspect.model import Finding, JobReport
from agent.inspect.outliers import RULE_WORDS
from agent.inspect.report import overtime, roofline, tables
from agent.inspect.report.gpus import gpu_rows
from agent.inspect.report.markup import Markup, element, join
from agent.inspect.report.spans import spans, stretches
from agent.inspect.series import Timelines
from agent.inspect.units import show_seconds
from agent.inspect.words import header_words, moment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser that reads this asks nobody for anything, and runs nothing."""

SEVERITIES = {"warning": "▲ warning", "hint": "● hint", "info": "○ info"}

MARK_PHASES = (
    'No phase was marked. In Python: `import rooflight`, then `with rooflight.phase("load"):`;'
    " for a command: `rooflight phase load -- CMD`. Reference phases (`rooflight workload run`)"
    " also measure what this node reaches."
)


def page(report: JobReport, timelines: Timelines, made_ms: int, store_words: str = "") -> str:
    """Return the page as text, to be written as UTF-8.

    Args:
        report: what is known of the job.
        timelines: what happened when.
        made_ms: now, in milliseconds since 1970.
        store_words: why the store does not answer, if it does not.

    """
    name = f"Job {report.job.jobid}" if report.job.jobid else "Several jobs"
    title = f"{name} on {report.job.cluster}"
    body = element(
        "body",
        element("header", element("h1", title), _header(report)),
        element("main", *_notes(report, store_words), *_sections(report, timelines)),
        _footer(report, made_ms),
    )
    return f"<!doctype html>\n{element('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    style = files("agent.inspect.report").joinpath("style.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(style)),
    )


def _header(report: JobReport) -> Markup:
    rows = {"Name": report.job.name if report.job.command else "", **header_words(report)}
    del rows["Job" if report.job.jobid else "Jobs"]  # that is the heading
    pairs = [
        element("div", element("dt", name), element("dd", words))
        for name, words in rows.items()
        if words
    ]
    return element("dl", *pairs)


def _notes(report: JobReport, store_words: str) -> Iterable[Markup]:
    down = f"The store does not answer, so there are no samples here: {store_words}"
    for note in (*([down] if store_words else ()), *report.notes):
        yield element("p", note, class_="note")


def _sections(report: JobReport, timelines: Timelines) -> Iterable[Markup]:
    if report.tasks:
        yield _section("Parts", tables.task_table(report.tasks))
    yield _section("Findings", _findings(report.findings))
    if report.tasks:
        return
    yield _section("Time in each bound", *_bounds(report))
    yield _section("Roofline", *_rooflines(report, timelines))
    yield _section("Over time", *_over_time(report, timelines))
    yield _section("GPUs", *_gpus(report))
    yield _section("Utilisation", *_utilisation(report))


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def _words(words: str) -> Markup:
    return element("p", words, class_="words")


def _advice(words: str) -> Markup:
    """Return a sentence of our own with code where it stands between backticks."""
    parts = words.split("`")
    return join(
        *(element("code", part) if number % 2 else part for number, part in enumerate(parts))
    )


def _findings(findings: Iterable[Finding]) -> Markup:
    items = [
        element(
            "li",
            element("b", SEVERITIES[each.severity], class_=f"severity {each.severity}"),
            element("p", each.words),
            element("p", each.advice, class_="advice"),
        )
        for each in findings
    ]
    return element("ul", *items, class_="findings") if items else _words("Nothing stands out.")


def _bounds(report: JobReport) -> Iterable[Markup]:
    figure = tables.bounds_figure(report)
    if figure:
        yield figure
        return
    without = "No GPU was labelled" if report.job.gpus else "This job held no GPU"
    phases = "no phase tells what it reached" if report.phases else "no phase was marked"
    yield _words(f"{without}, and {phases}: nothing says what held it back.")


def _rooflines(report: JobReport, timelines: Timelines) -> Iterable[Markup]:
    phases, gpus = roofline.of_phases(report), roofline.of_gpus(timelines)
    if phases:
        across = (
            "FLOP/s over FLOP per byte of memory traffic. Lines are the best that was measured in"
            " this job; percentages stand against what was measured just before and after a phase"
        )
        yield roofline.figure("Phases", phases, across, "FLOP/s")
    if gpus:
        across = (
            "Share of the compute roof over FLOP per byte, as a multiple of the GPU's ridge: by"
            " its own counters, while it was busy. Small marks are moments, numbers their mean"
        )
        yield roofline.figure("GPUs", gpus, across, "ratio")
    if not phases and not gpus:
        yield _words(_advice(_no_roofline(report)))
    if report.phases:
        yield tables.phase_table(report.phases, spans(report.phases, timelines))


def _no_roofline(report: JobReport) -> str:
    if not report.phases:
        return MARK_PHASES
    if not any(phase.flops_per_second for phase in report.phases):
        return (
            "The marked phases tell how long they took, and not how much they computed, so they"
            " have no place in a roofline."
        )
    return "No ceilings were measured in this job: `rooflight workload ceilings` measures them."


def _over_time(report: JobReport, timelines: Timelines) -> Iterable[Markup]:
    if timelines.words:
        yield _words(f"{timelines.words[0].upper()}{timelines.words[1:]}.")
    if not timelines.panels:
        return
    clock = overtime.Clock(timelines)
    known = spans(report.phases, timelines)
    if known:
        yield overtime.ribbon(known, clock)
    if timelines.bounds:
        yield overtime.strips(timelines.bounds, clock)
    still = [panel.title for panel in timelines.panels if overtime.is_still(panel)]
    behind = known or stretches(timelines)
    for panel in timelines.panels:
        if panel.title not in still:
            yield overtime.panel_figure(panel, behind, clock)
    each = show_seconds(timelines.every_ms / 1000)
    sentences = [
        f"Time runs from the start of the job; a point is the mean of {each}.",
        *([f"All the time at zero: {', '.join(still)}."] if still else ()),
        *([f"No samples of: {', '.join(timelines.absent)}."] if timelines.absent else ()),
    ]
    yield _words(" ".join(sentences))
    if not known and timelines.roofs:  # else the roofline says it
        yield _words(_advice(MARK_PHASES))


def _gpus(report: JobReport) -> Iterable[Markup]:
    rows = gpu_rows(report)
    if rows:
        models = Counter(gpu.model for node in report.nodes for gpu in node.gpus if gpu.model)
        yield _words(", ".join(f"{number} x {model}" for model, number in models.items()))
        yield tables.gpu_table(rows)
        if any(each.stands_out() for each in rows):
            yield _words(f"{RULE_WORDS}.")
    elif report.job.gpus:
        told = f"The job held {report.job.gpus} GPUs, and no agent told of them: `rooflight check`"
        yield _words(_advice(f"{told} on the node says why."))
    else:
        yield _words("This job held no GPU.")


def _utilisation(report: JobReport) -> Iterable[Markup]:
    if not report.nodes:
        yield _words("No agent sampled this job, as far as the store knows.")
        return
    if len(report.nodes) == 1:
        yield tables.usage_table(report.nodes[0])
        return
    yield tables.summary_table(report.summary)
    each = [tables.usage_table(node) for node in report.nodes]
    yield tables.folded(f"Each of {len(each)} hosts", *each)


def _footer(report: JobReport, made_ms: int) -> Markup:
    link = None
    if report.grafana.startswith(("http://", "https://")):
        link = element("a", "This job in Grafana", href=report.grafana, rel="noreferrer")
    zone = time.strftime("%Z", time.localtime(made_ms / 1000))
    made = f"Made by rooflight on {moment(made_ms)}; all times are {zone}. "
    return element("footer", element("p", made, link))

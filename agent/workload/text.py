"""The report of a run as text for a terminal of 80 columns."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from agent.inspect.units import show
from agent.printable import printable
from workloads.ceilings import Ceiling, roofs
from workloads.hardware import Peaks, find_peaks
from workloads.kinds import unit
from workloads.plot import Point, draw, roofs_of
from workloads.roofline import scaled
from workloads.runner import LabelledPhase, RunReport
from workloads.setting import Setting

ROOFS = ("compute", "memory", "link", "io")


def print_report(report: RunReport, *, plot: bool, sent: bool) -> None:
    """Print ceilings, phases, a sentence for each phase, and all of it drawn if asked for."""
    console = Console(highlight=False)
    setting = in_words(report.setting) if report.phases else report.setting.device
    console.print(printable(f"{report.model}, {setting}"), markup=False)
    console.print(ceilings_table(report.ceilings, find_peaks(report.model)))
    console.print(method_line(report.ceilings), style="dim")
    if report.phases:
        console.print(phases_table(report.phases))
        console.print(sentences(report.phases))
    if plot:
        console.print(roofline_plot(report), markup=False, soft_wrap=True)
    print_notes(console, partial=report.partial, sent=sent)


def print_notes(console: Console, *, partial: bool, sent: bool) -> None:
    """Say what is missing: the rest of an interrupted run, an agent to store it."""
    if partial:
        console.print("partial: interrupted before the end")
    if not sent:
        console.print("no agent listens here: nothing was stored", style="dim")


def in_words(setting: Setting) -> str:
    """Say what was run: size, device and number format, then all that is not by default."""
    usual = asdict(Setting(size=setting.size, device=setting.device, dtype=setting.dtype))
    special = [f"{name} {value}" for name, value in asdict(setting).items() if value != usual[name]]
    return ", ".join([setting.size, setting.device, setting.dtype, *special])


def ceilings_table(ceilings: Iterable[Ceiling], peaks: Peaks | None) -> Table:
    """Lay out one row per ceiling, with its share of the datasheet's peak where that is known."""
    table = Table("ceiling", "dtype", box=None, pad_edge=False)
    for heading in ("reached", "spread", *(("datasheet",) if peaks else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("size")
    for item in ceilings:
        cells = [scaled(item.per_second, unit(item.kind)), f"{item.spread:.0%}"]
        if peaks:
            peak = peaks.peak(item.kind, item.dtype)
            cells.append(percent(item.per_second / peak if peak else None))
        table.add_row(item.kind, item.dtype, *cells, item.size)
    return table


def roofline_plot(report: RunReport) -> str:
    """Draw the roofs, and the phases of which an intensity is known under them."""
    points = [
        Point(item.phase.name, item.label.intensity, item.phase.flops_per_second)
        for item in report.phases
        if item.label.intensity and item.phase.flops_per_second
    ]
    return draw(roofs_of(roofs(report.ceilings)), points)


def method_line(ceilings: Sequence[Ceiling]) -> str:
    """Say how the ceilings were measured."""
    if not ceilings:
        return "no ceiling was measured"
    one = ceilings[0]
    rounds = f", best of {one.rounds} rounds" if one.rounds > 1 else ""
    bound = f", {one.binding}" if one.binding else ""
    return f"median of {one.repeats}{rounds}, {one.threads} threads{bound}"


def phases_table(phases: Iterable[LabelledPhase]) -> Table:
    """Lay out one row per phase, time per call; fractions are of the measured ceilings."""
    found = list(phases)
    shown = [roof for roof in ROOFS if roof in ROOFS[:2] or _any_fraction(found, roof)]
    table = Table("phase", box=None, pad_edge=False, collapse_padding=True)
    for heading in ("time", "FLOP/s", "B/s", "FLOP/B", *shown):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    for item in found:
        phase, label = item.phase, item.label
        table.add_row(
            phase.name,
            scaled_seconds(phase.seconds / phase.calls),
            rate(phase.flops_per_second),
            rate(phase.bytes_per_second),
            short(label.intensity),
            *(percent(getattr(label.fractions, roof)) for roof in shown),
            label.bound.value,
        )
    return table


def _any_fraction(phases: Iterable[LabelledPhase], roof: str) -> bool:
    return any(getattr(item.label.fractions, roof) is not None for item in phases)


def sentences(phases: Iterable[LabelledPhase]) -> Table:
    """Lay out the explanation of each phase's label."""
    table = Table.grid(padding=(0, 2))
    for item in phases:
        table.add_row(item.phase.name, item.label.explanation)
    return table


def scaled_seconds(seconds: float) -> str:
    """Write a time with three digits: "38.2 ms"."""
    if seconds >= 0.9995:
        return show(seconds, "s")
    return show(seconds * 1e3, "ms") if seconds >= 0.9995e-3 else show(seconds * 1e6, "us")


def rate(value: float | None) -> str:
    """Write a rate without its unit, "-" when unknown."""
    return "-" if value is None else scaled(value, "")


def short(value: float | None) -> str:
    """Write three digits, "-" when unknown."""
    return "-" if value is None else f"{value:.3g}"


def percent(fraction: float | None) -> str:
    """Write a fraction as a percentage, "-" when unknown."""
    return "-" if fraction is None else f"{fraction:.0%}"

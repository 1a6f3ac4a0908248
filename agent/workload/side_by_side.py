"""Runs side by side, as text for a terminal of 80 columns."""

import textwrap
from collections.abc import Collection, Sequence

from rich.console import Console

from agent.printable import printable
from agent.workload.text import in_words, percent, print_notes, scaled_seconds, short
from workloads.ceilings import roofs
from workloads.compare import Variant
from workloads.roofline import Ceilings, scaled
from workloads.runner import LabelledPhase, RunReport
from workloads.sweep import DecodeRow, crossing

WIDTH = 80
COMPARED = ("phase", "bytes", "FLOP/B", "time", "speed", "bound")
SWEPT = ("batch", "bytes", "FLOP/B", "linear", "attn", "expected", "time", "of roof", "bound")


def print_comparison(name: str, field: str, variants: Sequence[Variant], *, sent: bool) -> None:
    """Print the variants side by side, each phase against that of the first."""
    console = Console(highlight=False, soft_wrap=True)
    reports = [variant.report for variant in variants if variant.report]
    if reports:
        words = f"{name} on {reports[0].model}, {in_words(reports[0].setting)}"
        console.print(printable(words), markup=False)
    for line in comparison_lines(field, variants):
        console.print(line, markup=False)
    partial = any(variant.report and variant.report.partial for variant in variants)
    print_notes(console, partial=partial, sent=sent)


def comparison_lines(field: str, variants: Sequence[Variant]) -> list[str]:
    """Lay out a row for each variant and phase, and a variant's reason where it was refused."""
    width = max(len(field), *(len(variant.value) for variant in variants))
    first: dict[str, LabelledPhase] = {}
    rows: list[Sequence[str]] = [(f"{field:<{width}}", *COMPARED)]
    for variant in variants:
        for item in variant.report.phases if variant.report else ():
            against = first.setdefault(item.phase.name, item)
            rows.append((variant.value, *_comparison_cells(item, against)))
    refused = [_refusal(variant, width) for variant in variants if variant.refused]
    units = dict.fromkeys(item.phase.unit.partition(" of ")[0] for item in first.values())
    about = f"bytes and time per {' or '.join(units)}; speed in tokens/s against the first"
    return [*layout(rows, words=(0, 1, 6)), *refused, *([about] if first else [])]


def print_sweep(machine: RunReport, rows: Sequence[DecodeRow], *, partial: bool) -> None:
    """Print decode over batch sizes, and where it crosses the ridge."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(printable(f"{machine.model}, {in_words(machine.setting)}"), markup=False)
    for line in sweep_lines(rows):
        console.print(line, markup=False)
    console.print(crossing_line(machine, roofs(machine.ceilings)), markup=False)
    print_notes(console, partial=partial, sent=True)


def sweep_lines(rows: Sequence[DecodeRow]) -> list[str]:
    """Lay out a row per batch size, and the reason where one was refused."""
    laid = layout([SWEPT, *map(_sweep_cells, rows)], words=(5, 8))
    refused = [
        textwrap.fill(f"batch {row.batch} refused: {row.refused}", WIDTH)
        for row in rows
        if row.refused
    ]
    about = "bytes and FLOP/byte of one step, of its linear maps and of its attention"
    return [*laid, *refused, about]


def crossing_line(machine: RunReport, ceilings: Ceilings) -> str:
    """Say at which batch a step has as many FLOPs per byte as the machine."""
    flops = ceilings.flops_per_second.get(machine.setting.dtype)
    memory = ceilings.read_bytes_per_second or ceilings.bytes_per_second
    if not flops or not memory:
        return "no ridge is known: a ceiling was not measured"
    batch = crossing(machine.setting, flops / memory)
    where = "no batch crosses it" if batch is None else f"crossed from batch {batch}"
    return f"ridge {short(flops / memory)} FLOP/byte: {where}"


def layout(rows: Sequence[Sequence[str]], words: Collection[int]) -> list[str]:
    """Lay out columns; those in `words` to the left, all others, numbers, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<" if place in words else ">" for place in range(len(widths))]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _comparison_cells(item: LabelledPhase, first: LabelledPhase) -> tuple[str, ...]:
    speed, before = item.phase.tokens_per_second, first.phase.tokens_per_second
    return (
        item.phase.name,
        scaled(item.phase.bytes_per_unit, "B"),
        short(item.label.intensity),
        scaled_seconds(item.phase.seconds_per_unit),
        f"{speed / before:.2f}x" if speed and before else "-",
        item.label.bound.value,
    )


def _refusal(variant: Variant, width: int) -> str:
    indent = " " * (width + 2)
    reason = printable(" ".join(variant.refused.split()))
    words = f"{variant.value:<{width}}  refused: {reason}"
    return textwrap.fill(words, WIDTH, subsequent_indent=indent)


def _sweep_cells(row: DecodeRow) -> tuple[str, ...]:
    counted = (
        str(row.batch),
        scaled(row.step.bytes, "B"),
        short(row.intensity),
        short(row.linear_intensity),
        short(row.attention_intensity),
        row.predicted.value if row.predicted else "",
    )
    if row.measured is None:
        return (*counted, "", "", "")
    phase, label = row.measured.phase, row.measured.label
    leading = max(label.fractions.compute or 0.0, label.fractions.memory or 0.0)
    return (*counted, scaled_seconds(phase.seconds_per_unit), percent(leading), label.bound.value)

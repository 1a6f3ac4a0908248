"""Hand reports to the agent of this machine, and print them in the form that was asked for."""

import json
import os
from collections.abc import Sequence

import click

from agent.client import ENVIRONMENT, jobid_of, send_points
from agent.workload.options import Output
from agent.workload.rows import (
    as_csv,
    as_data,
    phase_rows,
    sweep_rows,
    variant_rows,
    variants_as_data,
)
from agent.workload.side_by_side import print_comparison, print_sweep
from agent.workload.text import print_report
from workloads.compare import Variant
from workloads.runner import RunReport
from workloads.samples import Timed, report_samples, sample_rows
from workloads.sweep import DecodeRow


def send(report: RunReport, variant: str = "", socket: str = "") -> tuple[list[Timed], bool]:
    """Hand a report's samples to the agent of this job; False if none listens.

    `socket` is that of the agent to tell outside of any job.
    """
    points = report_samples(report, jobid_of(os.environ), variant)
    return points, send_points(points, {ENVIRONMENT: socket, **os.environ})


def deliver(report: RunReport, output: Output, *, plot: bool, socket: str = "") -> None:
    """Print a report, and store it."""
    points, sent = send(report, socket=socket)
    rows = phase_rows(report, points) if report.phases else sample_rows(points, "ceiling")
    output.write_csv(as_csv(rows))
    if output.as_json:
        click.echo(json.dumps(as_data(report, points), indent=2))
    elif output.tables:
        print_report(report, plot=plot, sent=sent)


def deliver_comparison(name: str, field: str, variants: Sequence[Variant], output: Output) -> None:
    """Print what was compared, and store it."""
    points: dict[str, list[Timed]] = {}
    sent = True
    for variant in variants:
        if variant.report:
            points[variant.value], sent = send(variant.report, f"{field}={variant.value}")
    output.write_csv(as_csv(variant_rows(field, variants, points)))
    if output.as_json:
        click.echo(json.dumps(variants_as_data(name, field, variants, points), indent=2))
    elif output.tables:
        print_comparison(name, field, variants, sent=sent)


def deliver_sweep(
    machine: RunReport, rows: Sequence[DecodeRow], output: Output, *, partial: bool
) -> None:
    """Print decode over batch sizes."""
    flat = sweep_rows(rows)
    output.write_csv(as_csv(flat))
    if output.as_json:
        click.echo(
            json.dumps({"model": machine.model, "partial": partial, "batches": flat}, indent=2)
        )
    elif output.tables:
        print_sweep(machine, rows, partial=partial)

"""`rooflight workload`: run reference phases on this machine and say which roof each is under."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click

from agent.command import Config, with_config
from agent.workload.options import (
    Output,
    UsageProblem,
    device_option,
    file_to_write,
    numbers,
    output_options,
    resolve,
    setting_options,
)
from workloads.setting import OUTLINES, Setting, SettingError, check_names
from workloads.shapes import SIZES

OLDEST_TORCH = (2, 9)
"""The first whose attention for grouped queries is one kernel on a CPU, as FLOPs are counted."""

BELOW_ITS_KIND = 1
INTERRUPTED = 130


@click.group("workload")
def workload() -> None:
    """Run reference LLM phases and measure this device's ceilings."""


@workload.command("list")
def list_workloads() -> None:
    """List workloads, their phases, and the sizes of the model."""
    for outline in OUTLINES.values():
        click.echo(f"{outline.name:<8} {outline.meaning} ({', '.join(outline.phases)})")
    click.echo("")
    for name, shape in SIZES.items():
        millions = shape.parameters / 1e6
        click.echo(f"{name:<8} {shape.layers} layers of {shape.hidden}, {millions:,.0f} M weights")


@workload.command("run")
@click.argument("names", metavar="WORKLOAD...", nargs=-1, required=True)
@setting_options
@click.option("--parallel", metavar="MODE", help="Share the work out: ddp, fsdp or tp.")
@click.option("--ranks", type=int, help="Processes; torchrun's or srun's where one began this.")
@click.option(
    "--trace",
    metavar="FILE",
    callback=file_to_write,
    help="Write one more step as a trace for ui.perfetto.dev.",
)
@click.option("--plot", is_flag=True, help="Draw the phases under the roofs.")
@output_options
def run_workloads(
    names: tuple[str, ...],
    options: Mapping[str, Any],
    parallel: str | None,
    ranks: int | None,
    trace: str | None,
    plot: bool,
    output: Output,
) -> None:
    """Run WORKLOAD... (see `list`; `all` for all) between measurements of the ceilings."""
    wanted = tuple(OUTLINES) if names == ("all",) else names
    if trace and parallel:
        raise UsageProblem("--trace shows one process: leave out --parallel")
    with plain_errors():
        from agent.workload.delivery import deliver
        from agent.workload.runs import run_here, run_in_parallel

        setting = resolve(options)
        if parallel:
            report = run_in_parallel(setting, wanted, parallel, ranks)
        else:
            report = run_here(setting, wanted, trace)
        if report is None:
            return  # of several processes that torchrun or srun began, the first reports
        deliver(report, output, plot=plot)
    if report.partial:
        sys.exit(INTERRUPTED)


@workload.command("compare")
@click.argument("name", metavar="WORKLOAD")
@click.option("--vary", "field", required=True, metavar="OPTION", help="Which option of `run`.")
@click.option("--values", metavar="A,B,...", help="Its values; all of them if not given.")
@setting_options
@output_options
def compare_variants(
    name: str, field: str, values: str | None, options: Mapping[str, Any], output: Output
) -> None:
    """Run WORKLOAD with each value of one option, side by side."""
    with plain_errors():
        from agent.workload.delivery import deliver_comparison
        from agent.workload.runs import runs
        from workloads.compare import compare, settings_of

        check_names(Setting(), (name,))
        settings = settings_of(resolve(options), field, values)
        with runs(name, len(settings)) as run:
            variants = compare(settings, run)
        deliver_comparison(name, field, variants, output)
    if run.interrupted:
        sys.exit(INTERRUPTED)


@workload.command("sweep")
@click.argument("name", metavar="decode", type=click.Choice(["decode"]))
@click.option("--batches", metavar="A,B,...", help="Batch sizes to count [1 to 512].")
@click.option("--measure", metavar="A,B,...", default="1,2,4,8", show_default=True, help="To run.")
@setting_options
@output_options
def sweep_batches(
    name: str, batches: str | None, measure: str, options: Mapping[str, Any], output: Output
) -> None:
    """Show decode over batch sizes: what grows with them, and where the label changes."""
    with plain_errors():
        from agent.workload.delivery import deliver_sweep
        from agent.workload.runs import make_runner, runs
        from workloads.ceilings import roofs
        from workloads.sweep import BATCHES, decode_rows

        setting = resolve(options)
        sizes, measured = numbers(batches) or BATCHES, numbers(measure)
        machine = make_runner(setting).run(())
        with runs(name, len({*sizes} & {*measured})) as run:
            rows = decode_rows(
                setting, sizes, ceilings=roofs(machine.ceilings), measure=run, measured=measured
            )
        deliver_sweep(machine, rows, output, partial=run.interrupted)
    if run.interrupted:
        sys.exit(INTERRUPTED)


@workload.command("ceilings")
@device_option
@click.option("--check", is_flag=True, help="Exit 1 if the device is below its kind.")
@click.option("--tolerance", type=click.FloatRange(0, 1), default=0.1, show_default=True)
@click.option("--plot/--no-plot", default=True, help="Draw the roofs.")
@output_options
@with_config
def measure_ceilings(
    config: Config,
    device: str,
    check: bool,
    tolerance: float,
    plot: bool,
    output: Output,
) -> None:
    """Measure the roofs of this device: matrix product, memory, link and temporary disk.

    With --check, they are held against this host's own past, against other hosts' devices of the
    same model, and else against the datasheet: a health check for a node.
    """
    with plain_errors():
        from agent.workload.check import remember, say_standing, standing
        from agent.workload.delivery import deliver
        from agent.workload.runs import measure_here

        report = measure_here(resolve({"device": device}))
        deliver(report, output, plot=plot, socket=str(config.socket_path()))
        if report.partial:
            sys.exit(INTERRUPTED)
        current = remember(report, config)
        if check and not say_standing(standing(current, config), tolerance):
            sys.exit(BELOW_ITS_KIND)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn a bad option or a missing or old torch into one line and exit code 2."""
    check_torch()
    try:
        yield
    except SettingError as problem:
        raise UsageProblem(str(problem)) from problem
    except ModuleNotFoundError as problem:
        if problem.name != "torch":
            raise
        message = "torch is not installed here: pip install rooflight[workloads]"
        raise UsageProblem(message) from problem


def check_torch() -> None:
    """Refuse a torch that computes other than our counts say; one that is missing is not seen."""
    with suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.version("torch")
        numbers = re.match(r"(\d+)\.(\d+)", found)
        if numbers and tuple(map(int, numbers.groups())) < OLDEST_TORCH:
            needed = ".".join(map(str, OLDEST_TORCH))
            raise UsageProblem(
                f"torch {found} is installed here and {needed} or later is needed:"
                f" pip install 'torch>={needed}'"
            )

"""The command `jobinspect`, and what `rooflight run` prints at its end."""

import contextlib
import functools
import gc
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.command import NOT_FOUND, UNREACHABLE, USAGE, Config, Fault, with_config
from agent.printable import all_printable, printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.inspect.ask import Asked
    from agent.inspect.model import JobReport
    from agent.stores.store import Store

WATCH_SECONDS = 10.0
USUAL_WIDTH, NARROWEST = 100, 40
UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a time span as people write it: 90s, 30m, 12h, 7d, 2w."""
    if value is None:
        return None
    number, unit = value[:-1], value[-1:]
    if not (number.isascii() and number.isdigit() and unit in UNIT_SECONDS):
        raise click.BadParameter(f"{value!r} is no time span such as 30m, 12h or 7d")
    return int(number) * UNIT_SECONDS[unit]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("jobid", default="")
@click.option("--per-node", is_flag=True, help="Show every host and GPU, however many there are.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the report as JSON, by the schema in agent/inspect/schema.json.",
)
@click.option(
    "--since",
    "since_seconds",
    callback=_seconds,
    metavar="TIME",
    help="Instead of a JOBID: a line for each of your jobs that waited or ran in the last 12h, 7d.",
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report as a page, with what happened when; it needs no network.",
)
@click.option("--cluster", default="", help="Cluster of the job; the configured one otherwise.")
@click.option(
    "--restart", type=int, help="A requeued job's run: 0 the first; the last if not given."
)
@click.option("--watch", is_flag=True, help="Print again every 10 s until the job has ended.")
@with_config
def main(
    config: Config,
    jobid: str,
    per_node: bool,
    as_json: bool,
    since_seconds: float | None,
    html_file: Path | None,
    cluster: str,
    restart: int | None,
    watch: bool,
) -> None:
    """Tell what job JOBID did and what held it back.

    JOBID is 123, 123_4 of an array, 123+1 of a heterogeneous job, an id of `rooflight run`, or
    `last`; the id of a whole array gives a line for each of its tasks.
    """
    import msgspec

    if bool(jobid) == (since_seconds is not None):
        raise click.UsageError("Name one JOBID, or with --since how far back to look for yours.")
    if not watch:
        gc.disable()  # a third of a second is no time for garbage, and looking for it takes a tenth
    chosen = msgspec.structs.replace(config, cluster=cluster) if cluster else config
    print_once = functools.partial(
        show,
        chosen,
        jobid,
        per_node=per_node,
        as_json=as_json,
        html_file=html_file,
        restart=restart,
        since_seconds=since_seconds,
    )
    goes_on = print_once()
    if watch and goes_on:
        _watch(print_once)


def _watch(print_once: "Callable[[], bool]") -> None:
    """Print until the job has ended or somebody presses Ctrl-C; a store may be away for a while."""
    from agent.stores.store import StoreUnreachable

    goes_on = True
    with contextlib.suppress(KeyboardInterrupt):
        while goes_on:
            time.sleep(WATCH_SECONDS)
            click.clear()
            try:
                goes_on = print_once()
            except StoreUnreachable as error:
                click.echo(printable(f"rooflight: {error}: trying again"), err=True)
            except Fault as fault:
                if fault.code != UNREACHABLE:
                    raise
                click.echo(printable(f"rooflight: {fault}: trying again"), err=True)


def show(
    config: Config,
    jobid: str,
    *,
    per_node: bool = False,
    as_json: bool = False,
    html_file: Path | None = None,
    restart: int | None = None,
    since_seconds: float | None = None,
) -> bool:
    """Print the report on a job, or write it as a page; return whether the job goes on.

    With `since_seconds` it is on all jobs of this user in so long a time, and `jobid` is empty.

    Raises:
        Fault: the store knows no such job, or the page cannot be written.
        StoreUnreachable, StoreRefused: the store could not be asked.

    """
    from agent.inspect.collect import JobNotFound
    from agent.stores.opening import open_for_asker

    store = open_for_asker(config)
    now_ms = int(time.time() * 1000)
    try:
        asked = _asked(store, config, jobid, restart, since_seconds, now_ms)
        if html_file:
            _write_page(html_file, store, asked, now_ms)
    except JobNotFound as words:
        raise Fault(f"{words}{_hidden()}", NOT_FOUND) from words
    finally:
        store.close()
    if as_json:
        click.echo(report_json(asked.report))
    elif not html_file:
        _print_text(asked.report, per_node=per_node)
    if asked.store_words:
        raise Fault(f"the store does not answer: {asked.store_words}", UNREACHABLE)
    return asked.report.job.end_ms is None


def report_json(report: "JobReport") -> str:
    """Return the report as JSON that a terminal can be shown."""
    import msgspec

    try:
        encoded = msgspec.json.encode(report)
    except UnicodeEncodeError:  # half of a character, which JSON has no place for
        encoded = msgspec.json.encode(all_printable(report))
    return printable_json(msgspec.json.format(encoded, indent=2).decode())


def _asked(
    store: "Store",
    config: Config,
    jobid: str,
    restart: int | None,
    since_seconds: float | None,
    now_ms: int,
) -> "Asked":
    """Return the report on one job, or on many, as the person who asks may see it."""
    from agent.inspect.ask import inspect, recent
    from agent.privacy import visible_runs

    if since_seconds is not None:
        return recent(store, config, _user(), now_ms - int(since_seconds * 1000), now_ms)
    seen = visible_runs(config)
    asked = inspect(store, config, jobid, now_ms, restart=restart, may_see=seen)
    if asked.report.nodes:
        return asked
    from agent.inspect.recall import recalled

    return recalled(asked)


def _write_page(file: Path, store: "Store", asked: "Asked", now_ms: int) -> None:
    from agent.inspect.report.writing import write_page

    try:
        size = write_page(file, store, asked, now_ms)
    except OSError as error:
        words = f"{file}: {error.strerror}: name another file with --html"
        raise Fault(words, USAGE) from error
    click.echo(f"rooflight: wrote {file} ({size / 1000:.0f} kB)", err=True)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _hidden() -> str:
    """Return what is to be added where a job is not found, whether there is such a job or not."""
    return "" if os.geteuid() == 0 else " (jobs of others are not shown)"


def _print_text(report: "JobReport", *, per_node: bool) -> None:
    from agent.inspect.text import render

    seen = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if seen else USUAL_WIDTH
    color = seen and not os.environ.get("NO_COLOR")
    click.echo(render(report, max(NARROWEST, width), per_node=per_node, color=color))

"""The command `jobinspect`, and what `rooflight run` prints at its end."""

import sys
import time
from typing import TYPE_CHECKING

import click

from agent.command import NOT_FOUND, UNREACHABLE, Config, Fault, with_config

if TYPE_CHECKING:
    from agent.inspect.model import JobReport

WATCH_SECONDS = 10.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("jobid")
@click.option("--per-node", is_flag=True, help="Show the utilisation of every host.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (see README).")
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
    cluster: str,
    restart: int | None,
    watch: bool,
) -> None:
    """Tell what job JOBID did and what held it back.

    JOBID is 123, 123_4 of an array, 123+1 of a heterogeneous job, an id of `rooflight run`, or
    `last`; the id of a whole array gives a line for each of its tasks.
    """
    import msgspec

    chosen = msgspec.structs.replace(config, cluster=cluster) if cluster else config
    while show(chosen, jobid, per_node=per_node, as_json=as_json, restart=restart) and watch:
        time.sleep(WATCH_SECONDS)
        click.clear()


def show(
    config: Config,
    jobid: str,
    *,
    per_node: bool = False,
    as_json: bool = False,
    restart: int | None = None,
) -> bool:
    """Print the report on a job; return whether the job goes on.

    Raises:
        Fault: the store knows no such job.
        StoreUnreachable, StoreRefused: the store could not be asked.

    """
    import msgspec

    from agent.inspect.ask import inspect
    from agent.inspect.collect import JobNotFound
    from agent.stores.opening import open_for_reading

    store = open_for_reading(config)
    try:
        asked = inspect(store, config, jobid, int(time.time() * 1000), restart=restart)
    except JobNotFound as words:
        raise Fault(str(words), NOT_FOUND) from words
    finally:
        store.close()
    if as_json:
        encoded = msgspec.json.format(msgspec.json.encode(asked.report), indent=2)
        click.echo(encoded.decode())
    else:
        _print_text(asked.report, per_node=per_node)
    if asked.store_words:
        raise Fault(f"the store does not answer: {asked.store_words}", UNREACHABLE)
    return asked.report.job.end_ms is None


def _print_text(report: "JobReport", *, per_node: bool) -> None:
    from rich.console import Console

    from agent.inspect.text import render

    width = None if sys.stdout.isatty() else 100
    render(report, Console(width=width, highlight=False), per_node=per_node)

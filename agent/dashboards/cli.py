"""`rooflight dashboards`: build, check and publish the dashboards and alert rules of Grafana."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.command import NOT_FOUND, UNREACHABLE, USAGE, Config, Fault, with_config
from agent.printable import printable
from agent.stores.settings import InfluxSettings

if TYPE_CHECKING:
    from agent.stores.connection import InfluxConnection
    from dashboards.check import Line
    from dashboards.expand import View
    from dashboards.frames import Ask
    from dashboards.publish import Publisher, Source
    from probes.catalogue import Database

HOUR_MS = 3_600_000


@click.group("dashboards")
def dashboards() -> None:
    """Build, check and publish the dashboards and alert rules of Grafana."""


@dashboards.command()
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where to write; where they are kept in this installation if not given.",
)
def build(folder: Path | None) -> None:
    """Write dashboards and alert rules as files for Grafana's provisioning."""
    from dashboards.build import COMMITTED, write

    for path in write(folder or COMMITTED):
        click.echo(path)


@dashboards.command()
@click.option("--hours", type=click.FloatRange(min=0.01), default=6.0, show_default=True)
@click.option("--job", "jobid", default="", help="Job for the job's page; the newest otherwise.")
@click.option("--host", default="", help="Node for the node's page; the first otherwise.")
@click.option("--all", "everything", is_flag=True, help="Name all that is well or empty.")
@with_config
def check(config: Config, hours: float, jobid: str, host: str, everything: bool) -> None:
    """Run every query of every panel, variable, annotation and alert against the store.

    Says what would be empty, and why: "look" stands where that is a reason to worry. Ends with 1
    if anything is wrong with the dashboards themselves, or the store refuses a query.
    """
    from dashboards import verdict
    from dashboards.expand import View
    from dashboards.lint import complaints
    from dashboards.pages import all_dashboards
    from dashboards.rules import all_rules

    faults = complaints(all_dashboards(), all_rules())
    for fault in faults:
        click.echo(printable(f"bad   {fault}"))
    now_ms = int(time.time() * 1000)
    view = View(now_ms - int(hours * HOUR_MS), now_ms, {"cluster": config.cluster})
    with asking(config) as ask:
        _expect_cluster(config, ask, view)
        lines = []
        for line in _checked(config, ask, view, jobid, host):
            lines.append(line)
            slow = line.seconds > verdict.SLOW_SECONDS
            if line.mark == "bad" or (line.mark == "ok" and (everything or slow)):
                click.echo(printable(verdict.line(line)))
    for words in verdict.emptiness(lines, everything=everything):
        click.echo(printable(words))
    failed = len(faults) + sum(line.mark == "bad" for line in lines)
    click.echo(verdict.summary(lines, failed))
    if failed:
        sys.exit(NOT_FOUND)


@dashboards.command()
@click.option(
    "--with-datasources",
    is_flag=True,
    help="Make or update Grafana's data sources too, from [influx] of the configuration.",
)
@with_config
def publish(config: Config, with_datasources: bool) -> None:
    """Put dashboards and alert rules into the Grafana at [grafana] url, through its API."""
    from dashboards.pages import all_dashboards
    from dashboards.publish import PublishFailed
    from dashboards.rules import all_rules

    publisher = _publisher(config)
    source = _source(config) if with_datasources else None
    try:
        for line in publisher.publish(all_dashboards(), all_rules(), source):
            click.echo(printable(line))
    except PublishFailed as failed:
        raise Fault(str(failed), UNREACHABLE) from failed


def _publisher(config: Config) -> "Publisher":
    """Return what speaks to the configured Grafana.

    Raises:
        Fault: it is not configured, or grafana-client is not installed.
        SettingsError: the token's file cannot be read, or others may read it.

    """
    from dashboards.publish import Publisher

    if not config.grafana.url:
        raise Fault("grafana.url is not set: the address of Grafana", USAGE)
    token = config.grafana.token()
    if not token:
        raise Fault(
            "no token for Grafana: set grafana.token_file or $ROOFLIGHT_GRAFANA_TOKEN to that of "
            "a service account with the role Admin, which alert rules and data sources take",
            USAGE,
        )
    try:
        return Publisher(config.grafana.url, token)
    except ModuleNotFoundError as missing:
        if missing.name != "grafana_client":
            raise
        words = "grafana-client is not installed here: pip install rooflight[grafana]"
        raise Fault(words, USAGE) from missing


@contextmanager
def asking(config: Config) -> Iterator["Ask"]:
    """Give what asks the configured InfluxDB.

    Raises:
        Fault: the configured store is another.
        SettingsError: a secret is missing or open to others.

    """
    from agent.stores.connection import InfluxConnection

    if config.store != "influx":
        raise Fault('dashboards read InfluxDB: set store = "influx", or give --store influx', USAGE)
    connection = InfluxConnection(config.influx)
    try:
        yield _asker(config.influx, connection)
    finally:
        connection.close()


def _asker(settings: InfluxSettings, connection: "InfluxConnection") -> "Ask":
    from agent.stores.connection import read_answer
    from agent.stores.store import StoreRefused
    from dashboards.check import Refused
    from dashboards.frames import Series

    names = settings.names()

    def ask(database: "Database", query: str) -> list[Series]:
        parameters = {"db": names[database], "epoch": "ms", "q": query}
        try:
            answer = read_answer(connection.request("GET", "/query", parameters))
        except StoreRefused as refusal:
            raise Refused(f"{refusal}: {query}") from refusal
        return [
            Series(series.tags, series.columns, series.values)
            for result in answer.results
            for series in result.series
        ]

    return ask


def _expect_cluster(config: Config, ask: "Ask", view: "View") -> None:
    """Say so if the store knows nothing of the cluster, instead of a line for each panel.

    Raises:
        Fault: it knows nothing.

    """
    from dashboards.frames import values_of
    from dashboards.query import tag_values

    known = values_of(tag_values("agent", "cluster"), view, ask)
    if config.cluster not in known:
        there = f"it has {', '.join(known)}" if known else "no agent has shipped anything yet"
        raise Fault(f"nothing of cluster {config.cluster} is in the store: {there}", NOT_FOUND)


def _checked(config: Config, ask: "Ask", view: "View", jobid: str, host: str) -> Iterator["Line"]:
    """Yield what is found of every dashboard and alert rule."""
    from dashboards.check import Checker
    from dashboards.pages import all_dashboards
    from dashboards.rules import all_rules

    checker = Checker(ask, config.cluster)
    for dashboard in all_dashboards():
        seen: View | None = view
        if dashboard.page == "job":
            seen = view_of_job(ask, view, jobid)
        elif dashboard.page == "node" and host:
            seen = replace(view, variables={**view.variables, "host": host})
        if seen is None:
            yield _no_job(dashboard.title, config.cluster, jobid)
            continue
        yield from checker.dashboard(dashboard, seen)
    for rule in all_rules():
        yield checker.rule(rule, view.until_ms)


def _no_job(title: str, cluster: str, jobid: str) -> "Line":
    """Return the line of the job's page without a job."""
    from dashboards.causes import Cause, Kind, absent
    from dashboards.check import empty

    unknown = Cause(f"No job {jobid} of {cluster} is in the store.", Kind.WORRY)
    return empty(title, unknown if jobid else absent("job"), "dashboard")


def view_of_job(ask: "Ask", view: "View", jobid: str) -> "View | None":
    """Return the view that a link to a job leads to; of the newest job, if none is named."""
    from dashboards.expand import View
    from probes.catalogue import Database

    where = f"\"cluster\" = '{view.variables['cluster']}'"
    where += f" AND \"jobid\" = '{jobid}'" if jobid else ""
    wanted = '"jobid", "start_epoch_milliseconds", "end_epoch_milliseconds"'
    query = f'SELECT {wanted} FROM "job" WHERE {where} ORDER BY time DESC LIMIT 1'  # noqa: S608
    series = ask(Database.JOBS, query)
    if not series:
        return None
    _, found, start, end = series[0].values[0]
    since_ms = int(start) if isinstance(start, float) else view.since_ms
    until_ms = int(end) if isinstance(end, float) else view.until_ms
    return View(since_ms, until_ms, {**view.variables, "jobid": str(found)})


def _source(config: Config) -> "Source":
    """Return InfluxDB as Grafana is to read it: as the configuration has it for the agents."""
    from dashboards.publish import Source

    settings = config.influx
    _, _, secret = settings.credentials().partition(":")
    return Source(
        settings.url,
        settings.names(),
        settings.username,
        secret,
        config.agent.interval_seconds,
    )

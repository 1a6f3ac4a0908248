"""`rooflight deploy render`: write the files that a site's nodes need."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from agent.command import NOT_FOUND, USAGE, Fault, one_line_errors
from agent.config import Config, Loaded, lines, load
from agent.permissions import OPEN, make_folder
from deploy import render
from deploy.render import SiteFile

STATE, SOCKET = "/var/lib/rooflight", "/run/rooflight/agent.sock"
"""Where the agent of a service has its state and its socket, unless the configuration says so."""

NEXT = {
    "systemd": "on each node: systemd-sysusers && systemctl daemon-reload"
    " && systemctl enable --now rooflight-agent",
    "slurm": "once every node has these files (Slurm drains one where it finds no prolog), add the"
    " lines of etc/slurm/rooflight.slurm.conf to slurm.conf, and: scontrol reconfigure; where"
    " ProctrackType or JobAcctGatherType change, restart slurmctld and slurmd while no job runs",
    "grafana": "give grafana-server INFLUX_USER and INFLUX_PASSWORD (1.x) or INFLUX_TOKEN of a"
    " user who may only read, and: systemctl restart grafana-server",
    "modules": "where MODULEPATH lacks that folder, copy the file to one that it has; users then:"
    " module load rooflight",
    "reader": "on each login node: systemctl daemon-reload"
    " && systemctl enable --now rooflight-reader.socket",
}
"""What is to be done once the files are in place."""


@click.group()
def deploy() -> None:
    """Write what a site's nodes need."""


@deploy.command("render")
@click.option("--for", "kind", type=click.Choice(list(render.KINDS)), required=True)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("site"),
    show_default=True,
    metavar="FOLDER",
    help="The root that the files go below; / writes them where they belong.",
)
@click.option(
    "--home", default="", help="The virtual environment on the nodes; this one if not given."
)
@click.option("--force", is_flag=True, help="Replace files that differ.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE")
def render_files(kind: str, into: Path, home: str, force: bool, config_file: Path | None) -> None:
    """Write the site's files for KIND, with the paths and settings of this configuration."""
    with one_line_errors(debug=False):
        site = site_of(load(config_file), home or str(home_of(Path(sys.prefix))))
        try:
            files = list(render.KINDS[kind](site))
        except ValueError as problem:
            raise Fault(str(problem), USAGE) from problem
        clashes = [file for file in files if not file.edited and differs(into, file)]
        if clashes and not force:
            for file in clashes:
                click.echo(f"rooflight: {into / file.path} is there and differs", err=True)
            click.echo("rooflight: nothing was written; --force replaces them", err=True)
            sys.exit(NOT_FOUND)
        try:
            write(into, files)
        except OSError as error:
            raise Fault(f"cannot write {error.filename}: {error.strerror}", USAGE) from error
    click.echo(f"then, {NEXT[kind]}")


def site_of(loaded: Loaded, home: str) -> render.Site:
    """Return what the files are made with; where the agent's state is, is said in any case."""
    agent = loaded.config.agent
    named = {"state_directory": STATE, "socket": SOCKET}
    missing = [f'agent.{key} = "{path}"' for key, path in named.items() if not getattr(agent, key)]
    settings = [*lines(loaded, only_set=True), *missing]
    return render.Site(home, settings, agent.socket or SOCKET, influx_of(loaded.config))


def influx_of(config: Config) -> render.Influx | None:
    """Return what Grafana must know of the store, if it is one that it can read."""
    if config.store != "influx":
        return None
    found = config.influx
    return render.Influx(found.api, found.url, found.database, found.jobs_database)


def home_of(prefix: Path, link: Path = Path(render.HOME)) -> Path:
    """Return the link that leads to this release, so that files outlive it; else `prefix`."""
    return link if link.exists() and link.resolve() == prefix.resolve() else prefix


def differs(into: Path, file: SiteFile) -> bool:
    """Tell whether another text is in the file's place."""
    place = into / file.path
    return place.exists() and place.read_text(encoding="utf-8", errors="replace") != file.text


def write(into: Path, files: Iterable[SiteFile]) -> None:
    """Write the files below `into`, and say so."""
    for file in files:
        place = into / file.path
        if file.edited and place.exists():
            click.echo(f"{place}: kept as it is")
            continue
        make_folder(place.parent, OPEN)
        replace(place, file)
        click.echo(f"{place}")


def replace(place: Path, file: SiteFile) -> None:
    """Put a file in its place in one step: Slurm may be about to run the one that is there.

    Its mode is its own, whatever the umask. A link stays one.
    """
    new = place.resolve().with_name(f".{place.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(
        os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as opened:
        opened.write(file.text)
        os.fchmod(opened.fileno(), file.mode)
    new.rename(place.resolve())

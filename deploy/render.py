"""A site's own files, made from those in this folder: its paths and its stores put in."""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
DASHBOARDS = FOLDER.parent / "dashboards" / "grafana"
PROVISIONING = "etc/grafana/provisioning"
HOME = "/opt/rooflight"
"""Where the files of this folder say that rooflight is installed."""


@dataclass(frozen=True, slots=True)
class Influx:
    """What Grafana must know of the store.

    Attributes:
        api: "v1" or "v2".
        url: its address.
        metrics: database of the nodes' measurements.
        jobs: database of jobs and footprints.

    """

    api: str
    url: str
    metrics: str
    jobs: str


@dataclass(frozen=True, slots=True)
class Site:
    """What differs from site to site.

    Attributes:
        home: the virtual environment on the nodes.
        settings: lines of its configuration, in TOML.
        socket: the agent's.
        influx: the store; None where it is no InfluxDB.

    """

    home: str
    settings: Sequence[str]
    socket: str
    influx: Influx | None = None


@dataclass(frozen=True, slots=True)
class SiteFile:
    """One file for a node.

    Attributes:
        path: where it goes, from the root of the node's file system, without the leading slash.
        text: what is in it.
        mode: its permissions.
        edited: the site makes it its own: one that is there is left as it is.

    """

    path: str
    text: str
    mode: int = 0o644
    edited: bool = False


def systemd(site: Site) -> Iterator[SiteFile]:
    """Give the agent's unit, its user, and the configuration that it reads."""
    yield _copy(site, "systemd/rooflight-agent.service", "etc/systemd/system")
    yield _copy(site, "systemd/rooflight.sysusers", "etc/sysusers.d", name="rooflight.conf")
    settings = ("# Written by rooflight deploy render.", *site.settings)
    yield SiteFile("etc/rooflight/rooflight.toml", _lines(settings), edited=True)


def reader(site: Site) -> Iterator[SiteFile]:
    """Give the units that let users of a login node read without a credential."""
    for name in ("rooflight-reader.socket", "rooflight-reader.service"):
        yield _copy(site, f"systemd/{name}", "etc/systemd/system")


def slurm(site: Site) -> Iterator[SiteFile]:
    """Give prolog, epilog, health check, and the hooks' settings."""
    for name in ("prolog", "epilog"):
        yield _script(site, f"slurm/{name}.sh", f"etc/slurm/{name}.d/50-rooflight.sh")
    yield _script(site, "slurm/healthcheck.sh", "etc/slurm/rooflight-healthcheck.sh")
    yield _script(site, "slurm/epilogslurmctld.sh", "etc/slurm/rooflight-epilogslurmctld.sh")
    yield _copy(site, "slurm/slurm.conf", "etc/slurm", name="rooflight.slurm.conf")
    found = {"ROOFLIGHT_HOME": site.home, "ROOFLIGHT_SOCKET": site.socket}
    hook = [f"export {name}={shlex.quote(value)}" for name, value in found.items()]
    yield SiteFile("etc/rooflight/hook.conf", _lines(hook), edited=True)


def modules(site: Site) -> Iterator[SiteFile]:
    """Give the modulefile that lets users' programs import rooflight."""
    yield _copy(site, "modules/rooflight", "etc/modulefiles")


def grafana(site: Site) -> Iterator[SiteFile]:
    """Give datasources, dashboards and alert rules; secrets stay in Grafana's environment.

    Raises:
        ValueError: the site's store is none that Grafana can read.

    """
    if site.influx is None:
        raise ValueError('Grafana reads InfluxDB: set store = "influx" and influx.url')
    source = "influxdb1" if site.influx.api == "v1" else "influxdb2"
    text = _text(site, f"grafana/datasources/{source}.yaml")
    text = text.replace("$INFLUX_URL", json.dumps(site.influx.url))
    names = {"rooflight": site.influx.metrics, "rooflight_jobs": site.influx.jobs}
    for name, known in names.items():  # a JSON string is a YAML string
        text = text.replace(f"dbName: {name}\n", f"dbName: {json.dumps(known)}\n", 1)
    yield SiteFile(f"{PROVISIONING}/datasources/rooflight.yaml", text)
    yield _copy(site, "grafana/dashboards/rooflight.yaml", f"{PROVISIONING}/dashboards")
    for file in sorted((DASHBOARDS / "dashboards").glob("*.json")):
        yield SiteFile(
            f"etc/grafana/dashboards/rooflight/{file.name}", file.read_text(encoding="utf-8")
        )
    for file in sorted((DASHBOARDS / "alerting").glob("*.json")):
        yield SiteFile(f"{PROVISIONING}/alerting/{file.name}", file.read_text(encoding="utf-8"))


KINDS: Mapping[str, Callable[[Site], Iterable[SiteFile]]] = {
    "systemd": systemd,
    "slurm": slurm,
    "reader": reader,
    "modules": modules,
    "grafana": grafana,
}
"""What can be rendered."""


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _script(site: Site, source: str, path: str) -> SiteFile:
    return SiteFile(path, _text(site, source), 0o755)


def _copy(site: Site, source: str, folder: str, *, name: str = "") -> SiteFile:
    return SiteFile(f"{folder}/{name or Path(source).name}", _text(site, source))


def _text(site: Site, source: str) -> str:
    return (FOLDER / source).read_text(encoding="utf-8").replace(HOME, site.home)

"""The servers that nodes write to: what they have, and what they take."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from agent.stores.settings import InfluxSettings
from agent.stores.setup import setup_influx
from tests.benchmarks.accounting import KIBIBYTE
from tests.integration.services import Service, influxd, victoria

INFLUXD, VICTORIA = "influxd", "victoria-metrics"
SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[Service]]] = {
    INFLUXD: influxd,
    VICTORIA: victoria,
}
VERSION_OPTIONS = {INFLUXD: "version", VICTORIA: "-version"}


def prepare(name: str, service: Service) -> None:
    """Make the databases with the retention of the configuration; VictoriaMetrics needs none."""
    if name == INFLUXD:
        setup_influx(InfluxSettings(url=service.url))


def series(name: str, service: Service) -> int:
    """Return how many series a server has; to VictoriaMetrics every field is one."""
    if name == INFLUXD:
        return sum(series_in(service, each) for each in InfluxSettings().names().values())
    with urllib.request.urlopen(f"{service.url}/api/v1/series/count", timeout=600) as answer:
        return int(json.load(answer)["data"][0])


def version(name: str) -> str:
    """Return a server's name and version."""
    said = subprocess.run([name, VERSION_OPTIONS[name]], capture_output=True, text=True)
    number = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return f"{name} {number[0] if number else '?'}"


def most_memory(pid: int) -> float:
    """Return the most bytes that a process had in memory (proc_pid_status(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return float(line.split()[1]) * KIBIBYTE


def series_in(service: Service, database: str) -> int:
    """Return how many series a database has, counted and not estimated."""
    counted = _ask(service, "SHOW SERIES EXACT CARDINALITY", database)
    return sum(int(row["count"]) for row in counted)


def _ask(service: Service, query: str, database: str) -> list[dict[str, float]]:
    """Return the rows that InfluxDB answers, of whatever series."""
    words = urllib.parse.urlencode({"q": query, "db": database})
    with urllib.request.urlopen(f"{service.url}/query?{words}", timeout=600) as answer:
        (result,) = json.load(answer)["results"]
    return [
        dict(zip(series["columns"], values, strict=True))
        for series in result.get("series", [])
        for values in series["values"]
    ]

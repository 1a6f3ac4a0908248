"""Jobs through a real InfluxDB: the same numbers as from the local store, and no tick lost."""

import signal
import time
from pathlib import Path

import pytest

from agent.lineprotocol import Point, encode
from agent.stores.influx import InfluxStore
from agent.stores.local import LocalStore
from agent.stores.settings import InfluxSettings
from agent.stores.store import Row, Select
from probes.catalogue import CATALOGUE, COMMON_TAGS
from probes.sample import Value
from tests.integration.commands import Site
from tests.integration.services import Service
from tests.weather import PATIENCE

pytestmark = pytest.mark.influxd

INTERVAL_MS = 100


def influx_site(folder: Path, service: Service, name: str, agent: str = "") -> Site:
    folder.mkdir(exist_ok=True)
    databases = f'database = "{name}"\njobs_database = "{name}_jobs"\nretention_days = 0\n'
    text = f'store = "influx"\n[influx]\nurl = "{service.url}"\ntimeout_seconds = 2\n{databases}'
    site = Site(folder, text, agent)
    site.call("rooflight", "store", "setup")
    return site


def settings(service: Service, name: str) -> InfluxSettings:
    return InfluxSettings(url=service.url, database=name, jobs_database=f"{name}_jobs")


def point(measurement: str, row: Row) -> Point:
    """Return the point that a row came from."""
    names = sorted((*COMMON_TAGS, *CATALOGUE[measurement].tags))
    tags = tuple((name, str(row[name])) for name in names if row.get(name))
    fields: dict[str, Value] = {
        name: value for name, value in row.items() if name not in names and name != "time_ms"
    }
    return Point(measurement, tags, fields, int(row["time_ms"]))


def copy(source: LocalStore, target: InfluxStore) -> int:
    """Write every point of the local store into InfluxDB; return how many there were."""
    count = 0
    for name, measurement in CATALOGUE.items():
        rows = source.rows(Select(name, {}))
        lines = "".join(f"{encode(point(name, row))}\n" for row in rows)
        if lines:
            target.write(measurement.database, lines.encode())
            assert len(target.rows(Select(name, {}))) == len(rows), name
            count += len(rows)
    return count


def test_the_same_job_reads_the_same_from_both_stores(tmp_path: Path, influxd: Service) -> None:
    (tmp_path / "local").mkdir()
    local = Site(tmp_path / "local")
    burn = ["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]
    local.call("rooflight", "run", "--interval", "0.1", "--", *burn)
    report = local.report()

    remote = influx_site(tmp_path / "influx", influxd, "same")
    source = LocalStore.read_only(tmp_path / "local" / "state" / "rooflight.db")
    target = InfluxStore(settings(influxd, "same"))
    assert copy(source, target) > 20
    source.close()
    target.close()
    assert remote.report(report["job"]["jobid"]) == report
    jobid = report["job"]["jobid"]
    assert remote.call("jobinspect", jobid) == local.call("jobinspect", jobid)


def test_a_job_run_into_influxdb_is_inspected_from_there(tmp_path: Path, influxd: Service) -> None:
    site = influx_site(tmp_path, influxd, "direct")
    site.call("rooflight", "run", "--interval", "0.1", "--name", "nap", "--", "sleep", "1")
    report = site.report("last")
    assert report["job"]["name"] == "nap"
    assert report["nodes"][0]["samples"] == pytest.approx(12, abs=3)
    assert not (tmp_path / "state" / "rooflight.db").exists()


def agent_rows(service: Service) -> list[Row]:
    store = InfluxStore(settings(service, "outage"))
    rows = list(store.rows(Select("agent", {})))
    store.close()
    return rows


def test_a_minute_without_influxdb_loses_no_tick(tmp_path: Path, own_influxd: Service) -> None:
    """A minute of ticks at the usual interval, 600 of them, at a tenth of it."""
    site = influx_site(tmp_path, own_influxd, "outage")
    agent = site.start("rooflight", "agent", "--interval", "0.1")
    time.sleep(2)
    own_influxd.kill()
    time.sleep(6)
    own_influxd.start()
    wait_for_ticks_after(own_influxd, time.time() * 1000)
    agent.send_signal(signal.SIGTERM)
    _, words = agent.communicate(timeout=PATIENCE)
    assert agent.returncode == 0, words
    assert words.count("the store is unreachable, the data is kept") == 1
    rows = agent_rows(own_influxd)
    found = [int(float(row["time_ms"])) for row in rows]
    expected = range(found[0], found[-1] + INTERVAL_MS, INTERVAL_MS)
    assert len(expected) - len(found) == rows[-1]["ticks_skipped_total"]
    assert set(found) <= set(expected)
    assert len(found) > 70


def wait_for_ticks_after(service: Service, moment_ms: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while not any(float(row["time_ms"]) > moment_ms for row in agent_rows(service)[-50:]):
        assert time.monotonic() < deadline, "nothing was shipped after the outage"
        time.sleep(0.2)


def test_without_influxdb_jobinspect_says_so_and_a_run_is_not_lost(
    tmp_path: Path, own_influxd: Service
) -> None:
    site = influx_site(tmp_path, own_influxd, "down")
    own_influxd.kill()
    done = site.complete("rooflight", "run", "--interval", "0.1", "--", "true")
    assert done.returncode == 0
    assert "wait in" in done.stderr
    asked = site.complete("jobinspect", "last")
    assert asked.returncode == 3
    assert own_influxd.url.removeprefix("http://") in asked.stderr
    assert asked.stderr.count("\n") == 1
    own_influxd.start()
    site.call("rooflight", "run", "--interval", "0.1", "--quiet", "--", "true")
    jobs = InfluxStore(settings(own_influxd, "down"))
    assert len(jobs.rows(Select("job", {}))) == 2
    jobs.close()


HOSTILE = (
    "a,b=c d\"e'f\\ [bold]x[/]; DROP DATABASE hostile; <script>alert(1)</script> \t" + "x" * 10_000
)


def test_hostile_names_come_out_literally_and_harm_nothing(
    tmp_path: Path, influxd: Service
) -> None:
    site = influx_site(tmp_path, influxd, "hostile")
    site.call("rooflight", "run", "--quiet", "--name", HOSTILE, "--", "true")
    for jobid in (
        "'; DROP DATABASE hostile; --",
        'x" OR 1=1',
        "../../etc/passwd",
        "7\n8",
        "x" * 10_000,
    ):
        done = site.complete("jobinspect", jobid)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
    report = site.report("last")
    assert report["job"]["name"] == HOSTILE
    text = site.call("jobinspect", report["job"]["jobid"])
    assert "\x1b" not in text
    assert "true" in text  # the command; the name is in the JSON

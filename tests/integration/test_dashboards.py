"""Every query of the dashboards and alert rules, as Grafana expands it, on a filled InfluxDB."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.command import Fault
from agent.config import Config, load
from agent.dashboards.cli import asking, view_of_job
from agent.lineprotocol import Point, encode
from agent.stores.influx import InfluxStore
from dashboards.check import Checker, Line
from dashboards.dashboard import Dashboard
from dashboards.expand import View, expand
from dashboards.frames import Ask, Frame, frames_of, opened, query_frames
from dashboards.pages import all_dashboards
from dashboards.panel import Panel
from dashboards.query import over_time
from dashboards.rules import all_rules
from probes.catalogue import Database
from probes.sample import Value, tags
from tests.integration.commands import Site
from tests.integration.dashboard_site import CLUSTER, TICKS, FilledSite, fill
from tests.integration.services import Service
from tests.integration.simulated import TICK_SECONDS

pytestmark = [pytest.mark.influxd, pytest.mark.cc]

PAGES = {dashboard.page: dashboard for dashboard in all_dashboards()}

# on some machines /tmp lies in memory, and the test's own is used
NEEDS_A_DEVICE = "Temp disk input and output"

MEBI, GIBI = 2.0**20, 2.0**30


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, influxd: Service) -> FilledSite:
    return fill(tmp_path_factory.mktemp("dashboards"), influxd)


@pytest.fixture(scope="module")
def config(filled: FilledSite) -> Config:
    return load(filled.site.file, environment={}).config


@pytest.fixture(scope="module")
def ask(config: Config) -> Iterator[Ask]:
    with asking(config) as asked:
        yield asked


@pytest.fixture(scope="module")
def view(filled: FilledSite) -> View:
    """All of the simulated time, and some minutes on."""
    return View(filled.begin_ms, int(time.time() * 1000), {"cluster": CLUSTER})


def seen(page: str, view: View, ask: Ask, jobid: str = "1001") -> View:
    """Return the view that a page opens with."""
    if page == "job":
        found = view_of_job(ask, view, jobid)
        assert found is not None
        return opened(PAGES[page], found, ask)
    if page == "node":
        view = View(view.since_ms, view.until_ms, {**view.variables, "host": "gpu1"})
    return opened(PAGES[page], view, ask)


def panel(page: str, title: str) -> Panel:
    return next(each for _, each in PAGES[page].panels() if each.title == title)


def shown(page: str, title: str, view: View, ask: Ask) -> list[Frame]:
    return frames_of(panel(page, title), seen(page, view, ask), ask)


def series(page: str, title: str, view: View, ask: Ask) -> dict[str, list[float]]:
    """Return what is known of each series, by its name."""
    frames = shown(page, title, view, ask)
    assert len({frame.name for frame in frames}) == len(frames)
    return {frame.name: [float(value or 0.0) for value in frame.values()] for frame in frames}


def row(page: str, title: str, view: View, ask: Ask, **wanted: str) -> Mapping[str, object]:
    """Return the one row of a table that has these values."""
    rows = [each for frame in shown(page, title, view, ask) for each in frame.rows()]
    (found,) = [each for each in rows if wanted.items() <= each.items()]
    return found


@pytest.mark.parametrize("dashboard", PAGES.values(), ids=list(PAGES))
def test_no_query_fails_and_no_panel_is_empty(dashboard: Dashboard, view: View, ask: Ask) -> None:
    lines = list(Checker(ask, CLUSTER).dashboard(dashboard, seen(dashboard.page, view, ask)))
    assert len(lines) > 5
    empty = [line for line in lines if line.mark != "ok" and NEEDS_A_DEVICE not in line.where]
    assert empty == []


@pytest.mark.parametrize("dashboard", PAGES.values(), ids=list(PAGES))
def test_shares_are_shares_and_all_numbers_finite(
    dashboard: Dashboard, view: View, ask: Ask
) -> None:
    for _, each in dashboard.panels():
        if each.kind in ("xychart", "bargauge"):
            continue  # relative to a roof or to the median, which may be passed
        for frame in frames_of(each, seen(dashboard.page, view, ask), ask):
            numbers = [value for value in frame.values() if isinstance(value, float)]
            assert all(map(math.isfinite, numbers)), each.title
            if frame.is_series and each.defaults.get("unit") == "percentunit":
                assert all(-0.001 <= number <= 1.001 for number in numbers), each.title


def test_a_job_s_gpus_are_shown_by_host_as_they_were_replayed(view: View, ask: Ask) -> None:
    power = series("job", "GPU power", view, ask)
    assert set(power) == {"gpu1 GPU 0", "gpu2 GPU 0"}
    assert set(power["gpu1 GPU 0"]) == {690.0, 410.0}  # prefill and decode in turn
    assert {min(power["gpu2 GPU 0"]), max(power["gpu2 GPU 0"])} == {410.0, 690.0}
    memory = series("job", "GPU memory", view, ask)
    assert set(memory["gpu2 GPU 0"]) == {61440 * MEBI}
    tensor = series("job", "Tensor pipes", view, ask)
    assert max(tensor["gpu1 GPU 0"]) == pytest.approx(0.835, abs=0.01)


def test_a_job_s_bounds_add_up_to_its_time(view: View, ask: Ask) -> None:
    bounds = series("job", "Time under each bound", view, ask)
    held = (TICKS - 1 - 10) * TICK_SECONDS  # on each of two GPUs
    assert set(bounds) >= {"compute", "memory"}
    assert sum(seconds for (seconds,) in bounds.values()) == pytest.approx(2 * held, rel=0.1)
    frames = shown("job", "Bound of each GPU", view, ask)
    assert {word for frame in frames for word in frame.values()} >= {"compute", "memory"}


def test_a_job_s_own_use_is_what_its_control_groups_say(view: View, ask: Ask) -> None:
    cores = series("job", "CPUs that the job uses", view, ask)
    assert set(cores) == {"gpu1", "gpu2"}
    assert all(used == pytest.approx(3.0) for used in cores["gpu1"])
    memory = series("job", "Memory that the job uses", view, ask)
    assert set(memory["gpu1"]) == {8 * GIBI}
    assert set(memory["gpu1 limit"]) == {16 * GIBI}


def test_the_network_of_a_job_is_summed_over_ports(view: View, ask: Ask) -> None:
    job, node = (series(page, "InfiniBand", view, ask) for page in ("job", "node"))
    assert set(job) == {f"gpu{number} {way}" for number in (1, 2) for way in ("received", "sent")}
    ports = [name for name in node if name.endswith("received")]
    assert len(ports) == 3  # rxe0 counts no bytes
    assert max(job["gpu1 received"]) == pytest.approx(
        sum(max(node[name]) for name in ports), rel=0.01
    )


def test_the_roofline_of_phases_has_points_under_both_roofs(view: View, ask: Ask) -> None:
    reached, memory, compute = shown("job", "Roofline of the phases", view, ask)
    assert [each["phase"] for each in reached.rows()] == ["train.forward", "train.backward"]
    assert {each["reached"] for each in reached.rows()} == {350e12}
    assert [each["compute roof"] for each in compute.rows()] == [700e12, 700e12]
    slope = [
        float(each["memory roof"]) / float(each["intensity"])  # type: ignore[arg-type]
        for each in memory.rows()
    ]
    assert slope == pytest.approx([3e12] * 2, rel=0.001)
    assert memory.rows()[-1]["intensity"] == compute.rows()[0]["intensity"]


def test_counted_points_lie_under_the_roofs(view: View, ask: Ask) -> None:
    points, *_ = shown("job", "Roofline of the GPUs", view, ask)
    for each in points.rows():
        across, reached = float(each["intensity over ridge"]), float(each["reached"])  # type: ignore[arg-type]
        assert reached <= min(1.0, across) * 1.001


def test_the_jobs_of_the_cluster(filled: FilledSite, view: View, ask: Ask) -> None:
    running = row("cluster", "Jobs running", view, ask, jobid="1001")
    assert running.items() >= {
        ("user", "ann"),
        ("account", "physics"),
        ("nodes", 2.0),
        ("CPUs", 8.0),
        ("GPUs", 2.0),
    }
    title = "Jobs that began in this time and ended"
    failed = row("cluster", title, view, ask, jobid="1002")
    assert (failed["state"], failed["exit code"]) == ("FAILED", 1.0)
    assert row("cluster", title, view, ask, jobid=filled.local_job)["state"] == "COMPLETED"
    assert series("cluster", "Running jobs", view, ask) == {"jobs": [1.0]}


def test_gpus_that_jobs_hold_and_do_not_use(view: View, ask: Ask) -> None:
    assert series("cluster", "GPUs held by jobs", view, ask) == {"held": [2.0], "all": [4.0]}
    assert series("cluster", "GPUs held idle", view, ask) == {"idle": [0.0]}
    title = "GPUs held idle longest"
    idle = row("cluster", title, view, ask, host="gpu1", gpu="1")
    assert idle["held idle"] == pytest.approx(45 / TICKS, abs=0.05)
    assert row("cluster", title, view, ask, host="gpu1", gpu="0")["held idle"] == 0.0


def test_a_slow_gpu_stands_out_against_its_kind(view: View, ask: Ask) -> None:
    frames = shown("gpu-fleet", "Compute against its kind", view, ask)
    found = {(frame.labels["host"], frame.labels["device"]): frame.values()[0] for frame in frames}
    assert found == {
        ("gpu1", "cuda:0"): 1.0,
        ("gpu1", "cuda:1"): 1.0,
        ("gpu2", "cuda:0"): 1.0,
        ("gpu2", "cuda:1"): 0.8,
    }


def test_jobs_on_a_node_are_marked_from_begin_to_end(view: View, ask: Ask) -> None:
    (annotation,) = PAGES["node"].annotations
    (frame,) = query_frames(annotation.query, seen("node", view, ask), ask)
    ends = {each["jobid"]: each[annotation.until] for each in frame.rows()}
    begins = {each["jobid"]: each["Time"] for each in frame.rows()}
    assert set(ends) == {"1001", "1002"}
    assert begins["1002"] == view.since_ms + 5 * TICK_SECONDS * 1000
    assert ends["1002"] == view.since_ms + 50 * TICK_SECONDS * 1000


def test_names_with_special_characters_are_told_apart(config: Config, view: View, ask: Ask) -> None:
    hosts = ["n.1", "nx1", "a+b", "aab", "rack/2", "n 1"]
    at = view.since_ms + 60_000
    named = [{"cluster": "odd", "host": host} for host in hosts]
    write(config, [point("cpu", at, each, utilization_ratio=0.5) for each in named])
    query = over_time("cpu", "mean(utilization_ratio)", "host", where='"host" =~ /^$host$/')
    for host in hosts:
        chosen = View(view.since_ms, view.until_ms, {"host": (host,)})
        assert [frame.name for frame in query_frames(query, chosen, ask)] == [host]
    several = View(view.since_ms, view.until_ms, {"host": ("n.1", "rack/2")})
    assert {frame.name for frame in query_frames(query, several, ask)} == {"n.1", "rack/2"}


@pytest.fixture(scope="module")
def last_ms(filled: FilledSite) -> int:
    """Return when the simulated nodes were seen last: rules are asked what they say then."""
    return filled.begin_ms + (TICKS - 1) * TICK_SECONDS * 1000


def firing(ask: Ask, cluster: str, now_ms: int) -> dict[str, bool]:
    """Return for each rule whether it would fire for anything of a cluster."""
    checker = Checker(ask, cluster)
    lines = {rule.name: checker.rule(rule, now_ms) for rule in all_rules()}
    assert {line.mark for line in lines.values()} == {"ok"}, lines
    return {name: cluster in line.words.partition("fire")[2] for name, line in lines.items()}


def test_alerts_are_quiet_but_for_the_slow_gpu(last_ms: int, ask: Ask) -> None:
    found = firing(ask, CLUSTER, last_ms)
    assert [name for name, fires in found.items() if fires] == ["ceiling-compute"]


def test_each_alert_fires_for_what_it_watches(config: Config, last_ms: int, ask: Ask) -> None:
    write(config, list(broken_cluster(last_ms)))
    assert [name for name, fires in firing(ask, "broken", last_ms).items() if not fires] == []


CAUSES = ("software_thermal", "hardware_thermal", "power_brake")
LINK_ERRORS = ("link_error_recovery", "link_downed", "receive_errors")


def broken_cluster(now_ms: int) -> Iterator[Point]:
    """Yield points of a cluster in which everything that is watched is wrong."""
    disk, card = {"path": "/tmp", "type": "xfs"}, {"gpu": "0", "uuid": "GPU-1", "model": "H"}
    port = {"device": "mlx5_0", "port": "1"}
    for number, minutes in enumerate((4, 2, 0)):
        at, count = now_ms - minutes * 60_000, float(number)
        yield point("tempdisk", at, disk, used_bytes=95.0, total_bytes=100.0)
        yield point("bound", at, {"gpu": "0"}, held_state=1.0, held_idle_state=1.0, bound="idle")
        heat = {f"throttle_{cause}_seconds": 100.0 * count for cause in CAUSES}
        yield point("gpu", at, card, **heat, ecc_uncorrected_total=count, xid_errors_total=count)
        errors = {f"{name}_total": 50.0 * count for name in LINK_ERRORS}
        speed = 400e9 if number == 0 else 100e9
        yield point("infiniband", at, port, **errors, symbol_errors_total=100.0 * count)
        yield point("infiniband", at, port, rate_bits_per_second=speed)
        lost = {"spool_bytes": 1e6 * count, "dropped_points_total": 5.0 * count}
        yield point("agent", at, {}, **lost, ticks_total=1.0)
    yield point("agent", now_ms - 3_600_000, {"host": "gone"}, ticks_total=1.0)
    for host, share in (("b1", 1.0), ("b2", 1.0), ("b3", 0.7)):
        device = {"host": host, "device": "cuda:0", "model": "H"}
        compute = {**device, "kind": "matmul", "dtype": "bf16"}
        yield point("ceiling", now_ms, compute, flops_per_second=share)
        memory = {**device, "kind": "copy", "dtype": "byte"}
        yield point("ceiling", now_ms, memory, bytes_per_second=share)


def point(measurement: str, at: int, named: Mapping[str, str], **fields: Value) -> Point:
    """Return a point of the broken cluster, or of the one that its tags name."""
    own = tags(**{"cluster": "broken", "host": "b1", **named})
    return Point(measurement, own, fields, at)


def write(config: Config, points: list[Point]) -> None:
    store = InfluxStore(config.influx)
    store.write(Database.METRICS, "".join(f"{encode(each)}\n" for each in points).encode())
    store.close()


def test_the_command_says_what_is_there_and_what_is_not(filled: FilledSite) -> None:
    hours = f"{(TICKS + 30) * TICK_SECONDS / 3600}"
    chosen = ["--hours", hours, "--job", "1001", "--host", "gpu1"]
    words = filled.site.call("rooflight", "dashboards", "check", *chosen, "--all")
    assert "ok    Job / GPU power: 2 series\n" in words
    assert ", 0 failed; slowest: " in words.splitlines()[-1]
    job = ["--job", filled.local_job]
    words = filled.site.call("rooflight", "dashboards", "check", "--hours", hours, *job, "--all")
    held, port = named(words)["Job / GPU utilization"], named(words)["Job / InfiniBand"]
    assert f" panels, 1 variable: Job {filled.local_job}: No GPU was held; " in held
    assert " panels: On cpu1: No InfiniBand, Omni-Path or RoCE port was seen " in port


def named(words: str) -> dict[str, str]:
    """Return for each name that `check --all` says to be empty the line of its cause."""
    found, cause = {}, ""
    for line in words.splitlines():
        if line.startswith("      "):
            found[line.strip()] = cause
        cause = line if line.startswith(("empty", "look")) else cause
    return found


def test_a_cluster_that_the_store_does_not_know_is_said(filled: FilledSite) -> None:
    other = Site(filled.site.folder / "other")
    other.folder.mkdir()
    text = filled.site.file.read_text().replace(f'"{CLUSTER}"', '"nowhere"')
    (other.folder / "rooflight.toml").write_text(text)
    done = other.complete("rooflight", "dashboards", "check")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "nothing of cluster nowhere is in the store: it has " in done.stderr
    assert CLUSTER in done.stderr


def test_without_a_job_the_command_says_so(filled: FilledSite) -> None:
    words = filled.site.call("rooflight", "dashboards", "check", "--job", "nobody")
    assert f"look  1 dashboard: No job nobody of {CLUSTER} is in the store.\n      Job\n" in words
    assert " a look), 0 failed; " in words.splitlines()[-1]


def test_a_store_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    site = Site(tmp_path, 'store = "influx"\n[influx]\nurl = "http://127.0.0.1:9"\n')
    done = site.complete("rooflight", "dashboards", "check")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "127.0.0.1:9" in done.stderr


def test_another_store_than_influxdb_is_refused() -> None:
    with pytest.raises(Fault, match='set store = "influx"'), asking(Config()):
        pass


def test_a_query_that_the_store_refuses_is_bad(view: View, ask: Ask) -> None:
    def spoiled(database: Database, query: str) -> object:
        return ask(database, query.replace("mean(", "mean(("))

    lines: list[Line] = list(Checker(spoiled, CLUSTER).dashboard(PAGES["cluster"], view))  # type: ignore[arg-type]
    bad = [line for line in lines if line.mark == "bad"]
    assert {line.where for line in bad} >= {"Cluster / GPU utilization by node"}
    assert "error parsing query" in bad[0].words


def test_expanded_queries_hold_no_variable(view: View, ask: Ask) -> None:
    for page, dashboard in PAGES.items():
        here = seen(page, view, ask)
        for _, each in dashboard.panels():
            texts = [expand(query.text, here) for query in each.queries if hasattr(query, "text")]
            assert not any(re.search(r"\$[\w{]", text) for text in texts), each.title

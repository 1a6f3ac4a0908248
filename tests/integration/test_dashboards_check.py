"""Why panels are empty, found on a real InfluxDB: a small cluster for each reason."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from agent.config import Config, load
from agent.dashboards.cli import asking, view_of_job
from agent.lineprotocol import Point, encode
from agent.stores.influx import InfluxStore
from dashboards.causes import LACKS, Cause, Kind
from dashboards.check import Checker, Line
from dashboards.expand import View
from dashboards.frames import Ask
from dashboards.pages import all_dashboards
from dashboards.pages.scope import (
    NO_AGENT,
    NO_CEILING,
    NO_COUNTERS,
    NO_GPU,
    NO_PHASE,
    NO_POWER,
)
from dashboards.rules import all_rules
from probes.catalogue import CATALOGUE, Database
from probes.sample import Value, tags
from tests.integration.commands import Site
from tests.integration.services import Service

pytestmark = pytest.mark.influxd

PAGES = {dashboard.page: dashboard for dashboard in all_dashboards()}
HOUR = 3600.0
CARD = {"gpu": "0", "uuid": "GPU-1", "model": "H"}
NOT_RUN = LACKS["job"].words

Told = Callable[..., Mapping[str, Cause]]
"""Writes the points of a cluster, and returns the cause of each thing that is empty, by name."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, influxd: Service) -> Config:
    folder = tmp_path_factory.mktemp("reasons")
    names = 'database = "reasons"\njobs_database = "reasons_jobs"\nretention_days = 0'
    site = Site(folder, f'store = "influx"\n[influx]\nurl = "{influxd.url}"\n{names}')
    site.call("rooflight", "store", "setup")
    return load(site.file, environment={}).config


@pytest.fixture(scope="module")
def ask(config: Config) -> Iterator[Ask]:
    with asking(config) as asked:
        yield asked


@pytest.fixture
def told(config: Config, ask: Ask, request: pytest.FixtureRequest) -> Told:
    cluster = request.node.name

    def tell(
        points: Sequence[Point], page: str, hours: float = 1.0, **chosen: str
    ) -> Mapping[str, Cause]:
        write(config, cluster, points)
        now_ms = int(time.time() * 1000)
        view = View(now_ms - int(hours * 3_600_000), now_ms, {"cluster": cluster, **chosen})
        of_job = view_of_job(ask, view, chosen.get("jobid", "")) if page == "job" else None
        lines = Checker(ask, cluster).dashboard(PAGES[page], of_job or view)
        return causes(lines)

    return tell


def causes(lines: Iterator[Line]) -> Mapping[str, Cause]:
    return {line.where.partition(" / ")[2]: line.cause for line in lines if line.cause}


def write(config: Config, cluster: str, points: Sequence[Point]) -> None:
    store = InfluxStore(config.influx)
    for database in Database:
        text = "".join(
            f"{encode(each._replace(tags=tags(cluster=cluster, host='n1', **dict(each.tags))))}\n"
            for each in points
            if CATALOGUE[each.measurement].database is database
        )
        if text:
            store.write(database, text.encode())
    store.close()


def point(
    measurement: str, ago: float, named: Mapping[str, str] | None = None, **fields: Value
) -> Point:
    """Return a point of so many seconds ago."""
    return Point(measurement, tags(**(named or {})), fields, int((time.time() - ago) * 1000))


def alive(ago: float = 1.0) -> Point:
    return point("agent", ago, ticks_total=1.0, cpu_seconds=1.0)


def test_all_of_a_gpu_is_one_cause_where_no_agent_sends_any(told: Told) -> None:
    found = told([alive()], "gpu-fleet")
    assert {cause.words for cause in found.values()} == {NO_GPU, NO_CEILING}
    assert found["variable model"] == found["Hottest GPU of each node"]
    node = told([alive()], "node", host="n1")
    assert {node[title].words for title in ("Bound of each GPU", "Tensor pipes")} == {NO_GPU}
    # the panel asks for the power of GPUs, too
    assert told([alive()], "cluster")["Power"].words == NO_POWER


def test_nothing_of_the_cpu_from_an_agent_that_is_heard_of_is_a_worry(told: Told) -> None:
    found = told([alive()], "node", host="n1")
    assert found["CPU of the node"].kind is Kind.WORRY
    assert "no agent ever sent cpu" in found["CPU of the node"].detail


def test_a_gpu_that_vanished_is_a_worry(told: Told) -> None:
    gone = point("gpu", 2 * HOUR, CARD, power_watts=100.0, utilization_ratio=0.5)
    cause = told([alive(), gone], "node", host="n1")["GPU power"]
    assert (cause.words, cause.kind) == (NO_GPU, Kind.WORRY)
    assert cause.detail == "the newest of gpu is 2 h before the end of this time"


def test_a_silent_agent_is_the_cause_of_all_that_it_would_send(told: Told) -> None:
    gone = [point("gpu", 2 * HOUR, CARD, power_watts=1.0), point("cpu", 2 * HOUR, load_1m_load=1.0)]
    found = told([alive(2 * HOUR), *gone], "node", host="n1")
    silent = {found[title] for title in ("GPU power", "Load")}
    assert [(cause.words, cause.kind) for cause in silent] == [(NO_AGENT, Kind.WORRY)]


def test_a_gpu_without_counters_says_which_it_takes(told: Told) -> None:
    card = point("gpu", 5, CARD, power_watts=100.0)
    bound = point("bound", 5, {"gpu": "0"}, bound="unknown", held_state=0.0)
    node = told([alive(), card, bound], "node", host="n1")
    assert {node[title] for title in ("Tensor pipes", "GPU memory bandwidth")} == {
        Cause(NO_COUNTERS, Kind.HARDWARE)
    }
    assert node["Tensor pipes"].detail == "no agent ever sent gpu.tensor_active_ratio"
    assert told([alive(), card, bound], "cluster")["Memory bound by node"].words == NO_COUNTERS


def test_a_job_without_a_gpu_beside_one_with_is_one_cause(told: Told) -> None:
    rows = [
        point("job_gpu_footprint", 60, {"jobid": "1", "gpu": "0"}, utilization_mean_ratio=0.5),
        *(point("job", 60, {"jobid": each}, state="RUNNING") for each in ("1", "2")),
        *(
            point("job_footprint", 60, {"jobid": each}, elapsed_seconds=60.0, final_state=0.0)
            for each in ("1", "2")
        ),
        point("gpu", 5, CARD, power_watts=100.0),
        point("bound", 5, {"gpu": "0"}, compute_ratio=0.5, memory_ratio=0.5),
    ]
    found = told([alive(), *rows], "job", jobid="2")
    titles = ("variable gpu", "GPU power", "Roofline of the GPUs", "GPU utilization, mean")
    assert {found[title].words for title in titles} == {"Job 2: No GPU was held."}
    assert found["GPU power"].kind is Kind.WORK


def ended_job(ago: float) -> list[Point]:
    named = {"jobid": "1"}
    return [
        point("job", ago, named, state="COMPLETED"),
        point("job_footprint", ago, named, elapsed_seconds=30.0, final_state=1.0),
    ]


def test_no_job_runs_now_while_one_was_seen_a_minute_ago(told: Told) -> None:
    seen = [point("job_cgroup", ago, {"jobid": "1"}, cpu_seconds=9.0) for ago in (100, 60)]
    found = told([alive(), *ended_job(120), *seen], "cluster")
    assert "variable running" not in found
    assert [found[title].words for title in ("Running jobs", "Jobs running")] == [NOT_RUN] * 2
    assert found["Running jobs"].kind is Kind.WORK


def test_no_job_runs_now_while_one_did_an_hour_ago(told: Told) -> None:
    seen = point("job_cgroup", HOUR, {"jobid": "1"}, cpu_seconds=9.0)
    found = told([alive(), *ended_job(HOUR + 20), seen], "cluster", hours=2.0)
    titles = ("variable running", "Running jobs", "Jobs running")
    assert {(found[title].words, found[title].kind) for title in titles} == {(NOT_RUN, Kind.WORK)}


def test_a_job_of_which_the_agent_saw_nothing_is_a_worry(told: Told) -> None:
    job = point("job", 60, {"jobid": "1"}, state="RUNNING")
    found = told([alive(), job], "job", jobid="1")
    assert found["CPUs that the job uses"].kind is Kind.WORRY
    assert found["Running time"].words == LACKS["job_footprint"].words


def test_a_user_s_own_phase_is_no_reference_workload(told: Told) -> None:
    own = {"workload": "user", "phase": "load", "device": "cpu", "jobid": "1"}
    found = told([alive(), point("phase", 60, own, duration_seconds=9.0)], "phases")
    assert found["Phases"].words.startswith("No reference workload was run: ")
    assert found["Compute ceilings"].words == NO_CEILING
    assert {cause.kind for cause in found.values()} == {Kind.WORK}


def test_work_of_long_ago_is_no_worry(told: Told) -> None:
    named = {"workload": "decode", "phase": "decode", "device": "cpu", "jobid": "1"}
    old = point("phase", 3 * HOUR, named, compute_ratio=0.5, memory_ratio=0.5, tokens_total=1.0)
    cause = told([alive(), old], "phases")["Of the compute roof"]
    assert (cause.words, cause.kind) == (NO_PHASE, Kind.WORK)
    assert cause.detail == "the newest of phase is 3 h before the end of this time"


def test_too_long_a_time_for_a_rate_says_what_to_try(told: Told) -> None:
    minute = (time.time() - 60) // 60 * 60  # the window of a rate may not end between two of them
    ticks = [alive(time.time() - minute - after) for after in (10, 20, 30)]
    assert told(ticks, "agents", hours=6.0)["CPU"].words == (
        "Too long a time for a rate: try --hours 0.1."
    )
    assert "CPU" not in told([], "agents", hours=0.1)


def test_too_few_samples_for_a_rate(told: Told) -> None:
    found = told([alive(3)], "agents", hours=6.0)
    assert found["CPU"].words.startswith("Too few samples for a rate: ")
    assert found["CPU"].kind is Kind.TIME


def test_too_short_a_time_for_a_rate(told: Told) -> None:
    found = told([alive(2)], "agents", hours=0.003)
    assert found["CPU"].words == "Too short a time for a rate: it takes two points of 10 s."


def test_a_job_from_before_all_that_the_store_kept(told: Told) -> None:
    named = {"jobid": "1"}
    job = point("job", 5 * HOUR, named, end_epoch_milliseconds=(time.time() - 4 * HOUR) * 1000)
    footprint = point("job_footprint", 5 * HOUR, named, elapsed_seconds=3600.0)
    kept = point("cpu", 5, utilization_ratio=0.5)
    cause = told([alive(), job, footprint, kept], "job", jobid="1")["CPU of the node"]
    assert cause.words == "All that is left of this is newer: the store drops what is old."


def test_what_cannot_be_explained_is_a_worry_and_says_what_was_asked(told: Told) -> None:
    named = {"device": "cuda:0", "kind": "matmul", "dtype": "bf16", "model": "H"}
    nought = point("ceiling", 60, named, flops_per_second=0.0)  # no share of it can be told
    cause = told([alive(), nought], "gpu-fleet")["Compute against its kind"]
    assert (cause.words.partition(":")[0], cause.kind) == ("No reason was found", Kind.WORRY)
    assert cause.detail.startswith('nothing fits "cluster" = \'test_what_cannot')


def test_alerts_that_watch_nothing_say_why(
    told: Told, ask: Ask, request: pytest.FixtureRequest
) -> None:
    told([alive()], "agents")
    last_year = int((time.time() - 300 * 24 * HOUR) * 1000)
    checker = Checker(ask, request.node.name)
    found = {rule.name: checker.rule(rule, last_year) for rule in all_rules()}
    assert {line.mark for line in found.values()} == {"empty"}
    assert found["gpu-ecc"].words.startswith(NO_GPU.rstrip("."))
    assert found["agent-silent"].words.startswith("All that is left of this is newer: ")


def test_the_command_tells_of_a_node_s_causes_and_that_they_are_harmless(
    config: Config, tmp_path: Path
) -> None:
    names = 'database = "reasons"\njobs_database = "reasons_jobs"'
    site = Site(tmp_path, f'store = "influx"\n[influx]\nurl = "{config.influx.url}"\n{names}')
    site.call("rooflight", "agent", "--for", "3", "--interval", "0.5")
    lines = site.call("rooflight", "dashboards", "check").splitlines()
    told = [line for line in lines if line.startswith("empty")]
    assert len(told) < 15
    assert [line[:5] for line in lines if not line.startswith("      ")] == [
        *("empty" for _ in told),
        lines[-1][:5],
    ]
    assert re.fullmatch(
        r"\d+ ok, \d+ empty \(all of them: [^)]+\), 0 failed; slowest: .+, \d+ ms", lines[-1]
    )

"""The report that rows give: which run, which hosts, which figures, and how honest they are."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.config import Config
from agent.inspect.collect import JobNotFound, collect
from agent.inspect.model import JobReport, Node, Usage
from agent.inspect.outliers import FEWEST, outliers
from agent.inspect.rows import Run
from agent.inspect.summary import summarize
from agent.jobs import Tick
from agent.stores.local import LocalStore
from probes.catalogue import Database
from probes.sample import Sample
from tests.made_up_jobs import CLUSTER, MODEL, START_MS, SimulatedHost, job_start, write_job

CONFIG = Config(cluster=CLUSTER)
MINUTE_MS = 60_000
LATER_MS = START_MS + 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    made = LocalStore(tmp_path / "rooflight.db", 14.0)
    yield made
    made.close()


def report(store: LocalStore, jobid: str = "7", run: Run | None = None) -> JobReport:
    return collect(store, CONFIG, jobid, LATER_MS, run)


def usage(given: JobReport, what: str) -> Usage:
    return next(each for each in given.summary if each.what == what)


def two_hosts(**values: object) -> list[SimulatedHost]:
    job = msgspec.structs.replace(job_start(nodes="n[1-2]"), **values)
    hosts = [msgspec.structs.replace(job, node=name) for name in ("n1", "n2")]
    return [
        SimulatedHost(hosts[0], "n1", cpus=4.0, loads=(0.9, 0.8)),
        SimulatedHost(hosts[1], "n2", cpus=6.0, loads=(0.7, 0.0)),
    ]


def test_lines_over_all_hosts_and_gpus(store: LocalStore) -> None:
    write_job(store, two_hosts())
    given = report(store)
    assert (given.job.nodes, given.job.hosts, given.job.cpus) == (2, ["n1", "n2"], 16)
    cpu, power, energy = (usage(given, what) for what in ("cpu", "gpu power", "gpu energy"))
    assert cpu.mean == pytest.approx((4 / 8 + 6 / 8) / 2)
    assert usage(given, "cpu time").total == 10.0 * 600
    assert power.mean == pytest.approx(100 + 500 * (0.9 + 0.8 + 0.7 + 0.0) / 4)
    assert energy.total == pytest.approx(4 * 100 * 600 + 500 * 600 * 2.4)
    summary = {each.what: each for each in given.summary}
    assert (summary["gpu power"].members, summary["cpu"].members) == (4, 2)
    assert (summary["gpu power"].lowest_on, summary["gpu power"].highest_on) == (
        "n2 gpu 1",
        "n1 gpu 0",
    )
    assert given.bounds == {"memory": 3 * 600.0, "idle": 600.0}
    assert [gpu.model for node in given.nodes for gpu in node.gpus] == [MODEL] * 4


def test_each_figure_says_whose_it_is_where_from_and_how_often_it_was_there(
    store: LocalStore,
) -> None:
    host = SimulatedHost(job_start(), loads=(0.5,))
    host.run(100)
    blind = [each for each in host.samples(110.0) if each.measurement not in ("power", "gpu")]
    blind += [_without_activity(each) for each in host.samples(110.0) if each.measurement == "gpu"]
    host.running.fold(Tick(blind), START_MS + 110_000)
    store.write(Database.JOBS, host.lines("RUNNING", None))
    node = report(store).nodes[0]
    told = {each.what: (each.scope, each.source, each.samples) for each in node.usage}
    assert (node.samples, node.samples_expected) == (12, 12)
    assert told["cpu"] == ("job", "cgroup1", 12)
    assert told["node cpu"] == ("node", "stat", 12)
    assert told["node power"] == ("node", "hwmon", 11)
    assert told["gpu 0 power"] == ("gpu", "NVML", 12)
    assert told["gpu 0 dram active"] == ("gpu", "gpm", 11)


def _without_activity(sample: Sample) -> Sample:
    kept = {name: value for name, value in sample.fields.items() if "active" not in name}
    return sample._replace(fields=kept)


def test_speeds_stand_beside_totals(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start())])
    given = report(store)
    assert usage(given, "infiniband out").total == 2e9 * 600
    rate = usage(given, "infiniband out rate")
    assert rate.mean == pytest.approx(2e9)
    assert rate.peak == pytest.approx(2e9)


def test_a_host_that_did_not_tell_is_missing_from_the_nodes_and_not_from_the_job(
    store: LocalStore,
) -> None:
    write_job(store, two_hosts()[:1])
    given = report(store)
    assert [node.name for node in given.nodes] == ["n1"]
    assert (given.job.hosts, given.job.nodes) == (["n1", "n2"], 2)
    assert given.job.end_ms is None  # nobody knows whether n2 has ended


def test_the_agent_s_name_of_a_host_may_differ_from_slurm_s(store: LocalStore) -> None:
    host = SimulatedHost(job_start(node="n1", nodes="n1"), "n1.site.org")
    write_job(store, [host])
    given = report(store)
    assert (given.nodes[0].host, given.nodes[0].name) == ("n1.site.org", "n1")
    assert given.job.hosts == ["n1"]


def requeued(store: LocalStore) -> None:
    """Write two runs of job 7: ten minutes with 2 CPUs busy, then five with 6."""
    write_job(store, [SimulatedHost(job_start(), cpus=2.0)], exit_code=137)
    again = job_start(start_ms=START_MS + 12 * MINUTE_MS, restart=1)
    write_job(store, [SimulatedHost(again, "n2", cpus=6.0)], seconds=300)


def test_the_last_run_counts_and_an_earlier_one_can_be_asked_for(store: LocalStore) -> None:
    requeued(store)
    assert usage(report(store), "cpu time").total == 6 * 300
    first = report(store, run=Run(restart=0))
    assert usage(first, "cpu time").total == 2 * 600
    assert (first.job.state, first.job.exit_code, first.job.hosts) == ("FAILED", 137, ["n1"])
    with pytest.raises(JobNotFound, match="not requeued 2 times"):
        report(store, run=Run(restart=2))


def test_a_run_is_found_by_its_time_where_its_number_is_not_known(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start(), cpus=2.0)], exit_code=137)
    found_by_its_group = job_start(start_ms=START_MS + 12 * MINUTE_MS)  # restart: not known
    write_job(store, [SimulatedHost(found_by_its_group, "n2", cpus=6.0)], seconds=300)
    start_ms = START_MS + 12 * MINUTE_MS - 500
    second = report(store, run=Run(1, start_ms, start_ms + 5 * MINUTE_MS))
    assert usage(second, "cpu time").total == 6 * 300


def test_an_id_that_came_back_is_another_job(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start(), cpus=2.0)])
    year_ms = 365 * 24 * 60 * MINUTE_MS
    write_job(store, [SimulatedHost(job_start(start_ms=START_MS + year_ms), "n9", cpus=6.0)])
    old = report(store, run=Run(0, START_MS, START_MS + 10 * MINUTE_MS))
    assert [node.host for node in old.nodes] == ["n1"]
    assert [node.host for node in report(store).nodes] == ["n9"]
    with pytest.raises(JobNotFound, match="no agent told of this run"):
        report(store, run=Run(0, START_MS + year_ms // 2, START_MS + year_ms // 2 + MINUTE_MS))


def hosts_like(figures: list[float], what: str = "memory", unit: str = "B") -> list[Node]:
    return [
        Node(f"n{n}", 1.0, 1, 1, 0, True, "", [Usage(what, unit, "job", mean=figure)])
        for n, figure in enumerate(figures)
    ]


@pytest.mark.parametrize(
    ("figures", "standing_out"),
    [
        ([100.0, 101.0, 99.0, 100.0, 150.0], ["n4"]),
        ([100.0, 101.0, 99.0, 100.0, 109.0], []),  # less than a tenth from the median
        ([100.0, 100.0, 100.0, 111.0], ["n3"]),  # all others equal: the tenth decides
        ([10.0, 60.0, 110.0, 160.0, 290.0], []),  # wide scatter: no outlier
        ([100.0, 500.0], []),  # two: nobody knows which is odd
        ([0.0, 0.0, 0.0, 5.0], ["n3"]),
        ([1e3, 1e3, 1e3, 1e3, 1.0, 1e6], ["n4", "n5"]),  # two odd ones do not hide each other
    ],
)
def test_outliers(figures: list[float], standing_out: list[str]) -> None:
    assert [each.host for each in outliers(hosts_like(figures))] == standing_out


def test_shares_stand_out_by_a_tenth_of_the_whole() -> None:
    assert outliers(hosts_like([0.02, 0.02, 0.02, 0.11], "cpu", "ratio")) == []
    (odd,) = outliers(hosts_like([0.02, 0.02, 0.02, 0.13], "cpu", "ratio"))
    assert (odd.place, odd.value, odd.median) == ("n3", 0.13, 0.02)


def test_the_outlier_among_gpus_is_named(store: LocalStore) -> None:
    loads = (0.9,) * FEWEST
    hosts = [
        SimulatedHost(job_start(nodes="n[1-2]", node=name), name, loads=each)
        for name, each in (("n1", loads), ("n2", (*loads, 0.3)))
    ]
    write_job(store, hosts)
    found = {each.what: (each.host, each.gpu) for each in report(store).outliers}
    assert found["utilization"] == found["power"] == ("n2", "3")


def test_a_single_host_has_no_range() -> None:
    (line,) = summarize(hosts_like([5.0]))
    assert (line.members, line.lowest, line.highest_on) == (1, None, "")

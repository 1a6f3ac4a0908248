"""A job as `rooflight top` sees it, from a real embedded store that the test fills."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest

from agent.command import USAGE, Fault
from agent.config import AgentSection, Config
from agent.inspect.ask import Asked, inspect
from agent.inspect.collect import JobNotFound
from agent.inspect.model import JobHeader, JobReport, TaskSummary
from agent.lineprotocol import Point, encode
from agent.slurm.accounting import SlurmUnreachable
from agent.stores.local import LocalStore
from agent.stores.store import Store
from agent.top.history import strip
from agent.top.job import Job
from agent.top.model import Frame, Host
from probes.catalogue import CATALOGUE, Database
from probes.sample import Value

TICK = 10
START = 1_760_000_000
NOW = START + 300
CONFIG = Config(cluster="c", agent=AgentSection(interval_seconds=TICK))


@dataclass
class Clock:
    now: float = NOW

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Site:
    """A store in a file, and what agents write into it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rooflight.db"
        self._store = LocalStore(self.path, 1e6)

    def close(self) -> None:
        self._store.close()

    def write(self, host: str, seconds: float, measurement: str, **fields: Value) -> None:
        """Write a point; names in capitals are tags."""
        own = {name.lower(): str(value) for name, value in fields.items() if name.isupper()}
        tags = tuple(sorted({"cluster": "c", "host": host, **own}.items()))
        values = {name: value for name, value in fields.items() if not name.isupper()}
        line = encode(Point(measurement, tags, values, round(seconds * 1000)))
        self._store.write(CATALOGUE[measurement].database, f"{line}\n".encode())

    def job(self, host: str, gpus: Sequence[str], heard: float = NOW, **fields: Value) -> None:
        """Write what an agent says of job 42."""
        common: dict[str, Value] = {"state": "RUNNING", "user": "alice", "name": "train"}
        self.write(host, START, "job", JOBID="42", cpus_total=4.0, **{**common, **fields})
        footprint: dict[str, Value] = {
            "updated_epoch_milliseconds": heard * 1000.0,
            "cpus_total": 4.0,
        }
        self.write(host, START, "job_footprint", JOBID="42", **footprint)
        for gpu in gpus:
            self.write(host, START, "job_gpu_footprint", JOBID="42", GPU=gpu, model="H100")

    def ticks(self, host: str, begin: int, end: int) -> None:
        """Write what an agent samples, at every tick after `begin` up to `end`."""
        for second in range(begin + TICK, end + TICK, TICK):
            passed = float(second - START)
            self.write(host, second, "cpu", utilization_ratio=0.9, cpus_total=64.0)
            self.write(host, second, "memory", used_bytes=200.0, total_bytes=500.0)
            self.write(
                host,
                second,
                "network",
                INTERFACE="eth0",
                receive_bytes=1000 * passed,
                transmit_bytes=10 * passed,
            )
            self.write(
                host, second, "job_cgroup", JOBID="42", cpu_seconds=2 * passed, memory_bytes=50.0
            )
            for gpu in ("0", "1"):
                self.gpu(host, second, gpu)

    def gpu(self, host: str, second: int, gpu: str) -> None:
        bound = "compute" if second <= START + 150 else "memory"
        self.write(host, second, "gpu", GPU=gpu, UUID="u", MODEL="H100", utilization_ratio=0.97)
        self.write(host, second, "bound", GPU=gpu, bound=bound, compute_ratio=0.5)

    def store(self) -> Store:
        return LocalStore.read_only(self.path)

    def look(self, clock: Clock | None = None, jobid: str = "42", config: Config = CONFIG) -> Frame:
        job = Job(config, jobid, self.store(), without_slurm, clock or Clock())
        try:
            return job.read()
        finally:
            job.close()


def no_slurm(command: Sequence[str]) -> str:
    raise SlurmUnreachable(f"{command[0]} is not on PATH")


without_slurm = partial(inspect, ask=no_slurm)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def running(site: Site) -> Site:
    site.job("n1", ["0"])
    site.job("n2", ["0", "1"])
    for host in ("n1", "n2", "another"):
        site.ticks(host, START, NOW)
    return site


def by_name(frame: Frame) -> dict[str, Host]:
    return {host.name: host for host in frame.hosts}


def test_every_host_of_the_job_is_there_with_the_gpus_that_it_holds(running: Site) -> None:
    frame = running.look()
    assert frame.job is not None
    assert (frame.job.user, frame.job.state, frame.at_ms) == ("alice", "RUNNING", NOW * 1000)
    held = {name: [gpu.index for gpu in host.gpus] for name, host in by_name(frame).items()}
    assert held == {"n1": ["0"], "n2": ["0", "1"]}
    gpu = by_name(frame)["n1"].gpus[0]
    assert (gpu.model, gpu.utilization, gpu.compute, gpu.bound) == ("H100", 0.97, 0.5, "memory")
    assert gpu.held


def test_a_host_shows_the_job_s_own_part_where_that_is_known(running: Site) -> None:
    host = by_name(running.look())["n1"]
    # two CPUs of the job's four are busy, and no limit but the node's memory
    assert host.of_job
    assert host.cpu == pytest.approx(0.5)
    assert (host.memory_used, host.memory_total) == (50.0, 500.0)
    assert host.network is not None
    assert host.network.into == pytest.approx(1000.0)
    assert host.network.out == pytest.approx(10.0)


def test_the_strip_is_there_at_the_first_look(running: Site) -> None:
    gpu = by_name(running.look())["n1"].gpus[0]
    assert strip(gpu.history, NOW * 1000, 10) == ["compute"] * 5 + ["memory"] * 5


def test_the_strip_goes_on_from_look_to_look(running: Site) -> None:
    clock = Clock(NOW - 150)
    job = Job(CONFIG, "42", running.store(), without_slurm, clock)
    for moment in range(NOW - 150, NOW + 1, 50):
        clock.now = moment
        frame = job.read()
    job.close()
    gpu = by_name(frame)["n1"].gpus[0]
    assert strip(gpu.history, NOW * 1000, 10) == ["compute"] * 5 + ["memory"] * 5


def test_a_host_that_fell_silent_is_told_from_one_that_never_spoke(site: Site) -> None:
    site.job("n1", [])
    site.job("n2", [], heard=NOW - 130, nodes="n[1-3]", node="n2")
    site.ticks("n1", START, NOW)
    site.ticks("n2", START, NOW - 130)
    hosts = by_name(site.look())
    assert hosts["n1"].silent_seconds == 0
    assert hosts["n2"].silent_seconds == pytest.approx(130)
    assert hosts["n3"] == Host("n3")


def test_of_a_job_that_has_ended_the_last_minutes_are_shown(site: Site) -> None:
    site.job("n1", ["0"], state="COMPLETED", end_epoch_milliseconds=NOW * 1000.0)
    site.ticks("n1", START, NOW)
    site.ticks("n1", NOW, NOW + 100)  # somebody else's time
    frame = site.look(Clock(NOW + 7200))
    assert frame.at_ms == NOW * 1000
    assert frame.limits[-1] == "the job ended 2:00:00 ago: these are its last minutes"
    host = by_name(frame)["n1"]
    assert (host.silent_seconds, host.gpus[0].bound) == (0, "memory")


def test_a_job_that_ends_while_one_looks_comes_to_rest(running: Site) -> None:
    clock = Clock()
    job = Job(CONFIG, "42", running.store(), without_slurm, clock)
    assert job.read().job
    for host in ("n1", "n2"):
        running.job(host, ["0"], state="FAILED", end_epoch_milliseconds=NOW * 1000.0)
    clock.now = NOW + 30
    frame = job.read()
    assert frame.job is not None
    assert (frame.job.state, frame.at_ms) == ("FAILED", NOW * 1000)
    job.close()


def test_an_unknown_job_is_not_found(running: Site) -> None:
    with pytest.raises(JobNotFound, match="43"):
        running.look(jobid="43")


def test_the_last_job_can_be_asked_for(running: Site) -> None:
    frame = running.look(jobid="last")
    assert frame.job is not None
    assert (frame.job.jobid, len(frame.hosts)) == ("42", 2)


def test_a_store_that_comes_and_goes(running: Site, tmp_path: Path) -> None:
    away = tmp_path / "away.db"
    running.path.rename(away)
    store, clock = running.store(), Clock()
    job = Job(CONFIG, "42", store, without_slurm, clock)
    frame = job.read()
    assert frame.trouble.startswith("the store does not answer: ")
    assert (frame.hosts, frame.job) == ((), None)
    away.rename(running.path)
    assert (job.read().trouble, len(job.read().hosts)) == ("", 2)
    store.close()
    running.path.rename(away)
    frame = job.read()
    assert "does not answer" in frame.trouble
    assert len(frame.hosts) == 2  # the last look stays
    away.rename(running.path)
    assert job.read().trouble == ""
    job.close()


def answer(report: JobReport, words: str = "") -> Callable[[Store, Config, str, int], Asked]:
    return lambda store, config, jobid, now_ms: Asked(report, words)


def report(**fields: object) -> JobReport:
    header = msgspec.structs.replace(JobHeader("42", "c", "PENDING"), **fields)
    return JobReport(header, (), (), (), ())


def test_a_pending_job_is_waited_for_without_asking_slurm_at_every_look(site: Site) -> None:
    asked = []

    def find(store: Store, config: Config, jobid: str, now_ms: int) -> Asked:
        asked.append(now_ms)
        if now_ms < (NOW + 60) * 1000:
            return Asked(report(reason="Priority", raw="42"))
        return inspect(store, config, jobid, now_ms, ask=no_slurm)

    clock = Clock()
    job = Job(CONFIG, "42", site.store(), find, clock)
    site.write("other", NOW, "cpu", utilization_ratio=0.5)  # the store is there
    for second in range(0, 60, 5):
        clock.now = NOW + second
        frame = job.read()
        assert frame.job is not None
        assert (frame.job.reason, frame.at_ms) == ("Priority", clock.now * 1000)
    assert len(asked) == 6
    site.job("n1", ["0"])
    site.ticks("n1", NOW, NOW + 100)
    clock.now = NOW + 100
    assert [host.name for host in job.read().hosts] == ["n1"]
    job.close()


def test_what_slurm_knows_is_shown_while_the_store_is_away(site: Site) -> None:
    known = report(state="RUNNING", start_ms=START * 1000)
    job = Job(CONFIG, "42", site.store(), answer(known, "127.0.0.1: refused"), Clock())
    frame = job.read()
    assert frame.trouble == "the store does not answer: 127.0.0.1: refused"
    assert frame.job == known.job
    job.close()


def test_of_an_array_one_task_is_to_be_chosen(site: Site) -> None:
    tasks = [TaskSummary(f"42_{number}", "RUNNING", ["n1"], 1.0) for number in range(9)]
    several = msgspec.structs.replace(report(), tasks=tasks)
    job = Job(CONFIG, "42", site.store(), answer(several), Clock())
    with pytest.raises(Fault, match=r"42_0, 42_1, .* \.\.\.") as fault:
        job.read()
    assert fault.value.code == USAGE
    job.close()


def test_what_is_asked_for_is_in_the_catalogue() -> None:
    from agent.top.fromstore import NOW as AT_ONCE
    from agent.top.fromstore import OWN_TAGS, SELDOM
    from agent.top.readings import WANTED

    for wanted in (AT_ONCE, SELDOM):
        for measurement, names in wanted.items():
            assert set(names) <= set(WANTED[measurement]), measurement
            assert set(OWN_TAGS.get(measurement, ())) <= set(CATALOGUE[measurement].tags)
            assert CATALOGUE[measurement].database is Database.METRICS

"""Store and Slurm together: each answers, is silent, or knows more or less than the other."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from agent.config import Config
from agent.inspect.ask import Asked, inspect, recent
from agent.inspect.collect import JobNotFound
from agent.inspect.model import JobReport
from agent.slurm.accounting import SlurmUnreachable
from agent.stores.local import LocalStore
from agent.stores.store import StoreUnreachable
from tests.made_up_jobs import CLUSTER, START_MS, SimulatedHost, job_start, write_job
from tests.unit.test_accounting import answering, sacct, squeue

CONFIG = Config(cluster=CLUSTER)
START = START_MS // 1000
NOW_MS = START_MS + 3_600_000

Ask = Callable[[Sequence[str]], str]


def silent(command: Sequence[str]) -> str:
    raise SlurmUnreachable(f"{command[0]} is not on PATH")


def nothing(command: Sequence[str]) -> str:
    if command[0] == "squeue":
        raise SlurmUnreachable("squeue: slurm_load_jobs error: Invalid job id specified")
    return ""


def recorded(jobid: str = "7", raw: str = "7", **values: object) -> str:
    """Return slurmdbd's record of a job of ten minutes."""
    known = {"Submit": START - 100, "Start": START, "End": START + 600, "User": "alice"}
    told = {name: str(value) for name, value in (known | values).items()}
    return sacct(JobID=jobid, JobIDRaw=raw, **told)


def slurm(*records: str) -> Ask:
    return answering(sacct="".join(records), squeue="")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    made = LocalStore(tmp_path / "rooflight.db", 14.0)
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def away(tmp_path: Path) -> LocalStore:
    return LocalStore.read_only(tmp_path / "nowhere" / "rooflight.db")


def asked(store: LocalStore, jobid: str, ask: Ask, restart: int | None = None) -> Asked:
    return inspect(store, CONFIG, jobid, NOW_MS, restart=restart, ask=ask)


def report(store: LocalStore, jobid: str, ask: Ask, restart: int | None = None) -> JobReport:
    return asked(store, jobid, ask, restart).report


def cpu_seconds(given: JobReport) -> float | None:
    return next((line.total for line in given.summary if line.what == "cpu time"), None)


def ids(given: JobReport) -> list[str]:
    return [finding.id for finding in given.findings]


def test_slurm_tells_who_and_when_and_the_store_what(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start(), cpus=4.0)])
    record = recorded(Account="proj", TimelimitRaw="60", State="COMPLETED", AllocCPUS="8")
    given = report(store, "7", slurm(record))
    job = given.job
    assert (job.user, job.account, job.state, job.exit_code) == ("alice", "proj", "COMPLETED", 0)
    assert (job.wait_seconds, job.elapsed_seconds, job.time_limit_seconds) == (100, 600, 3600)
    assert cpu_seconds(given) == 4 * 600
    assert "time-over-asked" in ids(given)
    assert given.notes == []


def test_a_pending_job_says_why_and_since_when(store: LocalStore) -> None:
    waits = squeue(
        JobID="7",
        ArrayTaskID="N/A",
        State="PENDING",
        Reason="Resources",
        NodeList="",
        SubmitTime=str(START),
        StartTime=str(START + 7200),
        EndTime="NONE",
    )
    given = report(store, "7", answering(sacct=None, squeue=waits))
    job = given.job
    assert (job.state, job.reason, job.start_ms, job.wait_seconds) == (
        "PENDING",
        "Resources",
        0,
        3600.0,
    )
    assert job.expected_start_ms == START_MS + 7_200_000
    assert (given.nodes, given.findings, given.notes) == ((), [], [])


def test_a_job_that_no_agent_saw_is_still_told_of(store: LocalStore) -> None:
    given = report(store, "7", slurm(recorded()))
    assert given.job.state == "COMPLETED"
    assert given.notes == ["no agent sampled job 7, as far as the store knows"]


def test_with_the_store_away_slurm_s_part_is_told(away: LocalStore) -> None:
    given = asked(away, "7", slurm(recorded()))
    assert given.report.job.user == "alice"
    assert "rooflight.db" in given.store_words
    both = asked(away, "7", slurm(recorded("7_1", "8"), recorded("7_2", "9", State="FAILED")))
    assert [task.state for task in both.report.tasks] == ["COMPLETED", "FAILED"]
    assert "rooflight.db" in both.store_words
    with pytest.raises(StoreUnreachable):
        asked(away, "7", silent)


def test_with_slurm_silent_the_store_s_part_is_told(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start(), cpus=4.0)])
    given = report(store, "7", silent)
    assert cpu_seconds(given) == 4 * 600
    assert list(given.notes) == [
        "Slurm could not be asked (sacct is not on PATH; squeue is not on PATH):"
        " what follows is the store's alone"
    ]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (nothing, "; sacct and squeue do not know it either"),
        (silent, "; Slurm could not be asked (sacct is not on PATH; squeue is not on PATH)"),
    ],
)
def test_an_unknown_job_says_what_was_asked_where(store: LocalStore, ask: Ask, words: str) -> None:
    with pytest.raises(JobNotFound) as error:
        asked(store, "4711", ask)
    assert str(error.value) == f"no job 4711 of cluster test in the local store{words}"


def test_a_local_job_is_no_question_for_slurm(store: LocalStore) -> None:
    def never(command: Sequence[str]) -> str:
        raise AssertionError(command)

    with pytest.raises(JobNotFound, match=r"in the local store$"):
        asked(store, "run-20261123-021201-15603", never)


RUNS = (
    recorded(State="REQUEUED", End=START + 600),
    recorded(Submit=START + 601, Start=START + 720, End=START + 1020),
)


def two_runs(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start(), cpus=2.0)], exit_code=137)
    again = job_start(start_ms=START_MS + 720_000, restart=1)
    write_job(store, [SimulatedHost(again, cpus=6.0)], seconds=300)


def test_of_a_requeued_job_the_last_run_or_the_one_that_is_asked_for(store: LocalStore) -> None:
    two_runs(store)
    last, first = report(store, "7", slurm(*RUNS)), report(store, "7", slurm(*RUNS), restart=0)
    assert (last.job.restart, last.job.state, cpu_seconds(last)) == (1, "COMPLETED", 6 * 300)
    assert (first.job.restart, first.job.state, cpu_seconds(first)) == (0, "REQUEUED", 2 * 600)
    with pytest.raises(JobNotFound, match="not requeued 2 times"):
        report(store, "7", slurm(*RUNS), restart=2)


def test_an_earlier_run_that_slurm_has_forgotten_is_the_store_s(store: LocalStore) -> None:
    two_runs(store)
    times = {"StartTime": str(START + 720), "EndTime": str(START + 1020)}
    now = squeue(JobID="7", ArrayTaskID="N/A", State="COMPLETED", restartcnt="1", **times)
    ask = answering(sacct=None, squeue=now)
    assert cpu_seconds(report(store, "7", ask)) == 6 * 300
    assert cpu_seconds(report(store, "7", ask, restart=0)) == 2 * 600


def test_a_requeued_job_that_waits_again_shows_nothing_of_its_earlier_run(
    store: LocalStore,
) -> None:
    write_job(store, [SimulatedHost(job_start(), cpus=2.0)], exit_code=137)
    waits = recorded(Submit=START + 601, Start="Unknown", End="Unknown", State="PENDING")
    given = report(store, "7", slurm(RUNS[0], waits))
    assert (given.job.state, given.nodes, given.job.start_ms) == ("PENDING", (), 0)
    assert given.notes == ["it was requeued: --restart 0 shows the run before"]


def test_an_array_has_a_line_for_each_task_and_what_was_found_in_how_many(
    store: LocalStore,
) -> None:
    for raw, cpus in (("31", 0.5), ("32", 1.0), ("30", 7.0)):
        write_job(store, [SimulatedHost(job_start(raw), cpus=cpus)])
    tasks = [("30_1", "31"), ("30_2", "32"), ("30_3", "30")]
    records = [recorded(jobid, raw, AllocCPUS="8", AllocTRES="cpu=8") for jobid, raw in tasks]
    waits = recorded("30_[4-9%1]", "30", State="PENDING", Start="Unknown", End="Unknown")
    given = report(store, "30", slurm(*records, waits))
    assert [(task.jobid, task.cpu_mean_ratio) for task in given.tasks] == [
        ("30_1", pytest.approx(0.5 / 8)),
        ("30_2", pytest.approx(1 / 8)),
        ("30_3", pytest.approx(7 / 8)),
        ("30_[4-9%1]", None),
    ]
    assert (given.job.cpus, given.job.end_ms) == (3 * 8 + 2, None)
    (low,) = [finding for finding in given.findings if finding.id == "low-cpu"]
    assert low.words == "low-cpu in 2 of 4 jobs: 30_1, 30_2"
    one = report(store, "30_2", slurm(records[1]))
    assert (one.job.jobid, cpu_seconds(one)) == ("30_2", 600.0)


def components(store: LocalStore) -> None:
    for raw, cpus in (("30", 1.0), ("31", 6.0)):
        write_job(store, [SimulatedHost(job_start(raw, het_jobid="30"), cpus=cpus)])
    write_job(store, [SimulatedHost(job_start("32"), cpus=2.0)])


def test_components_are_found_with_slurm_and_without(store: LocalStore) -> None:
    components(store)
    both = slurm(recorded("30+0", "30"), recorded("30+1", "31"))
    assert [task.jobid for task in report(store, "30", both).tasks] == ["30+0", "30+1"]
    assert [task.jobid for task in report(store, "30", silent).tasks] == ["30", "31"]
    assert cpu_seconds(report(store, "30+1", silent)) == 6 * 600
    with pytest.raises(JobNotFound):
        report(store, "30+2", silent)  # 32 is no part of it


def test_a_user_s_jobs_by_slurm(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start("8"), cpus=4.0)])
    ask = slurm(recorded("7", "7"), recorded("8", "8", Submit=START + 5))
    given = recent(store, CONFIG, "alice", START_MS, NOW_MS, ask=ask).report
    assert [(task.jobid, task.cpu_mean_ratio) for task in given.tasks] == [("7", None), ("8", 0.5)]
    assert given.job.jobid == ""


def test_a_user_s_jobs_by_the_store_alone(store: LocalStore) -> None:
    write_job(store, [SimulatedHost(job_start("7"))])
    write_job(store, [SimulatedHost(job_start("8", user="bob"))])
    write_job(store, [SimulatedHost(job_start("9", start_ms=START_MS + 1_800_000))], exit_code=None)
    given = recent(store, CONFIG, "alice", START_MS, NOW_MS, ask=silent).report
    assert [task.jobid for task in given.tasks] == ["7", "9"]
    late = recent(store, CONFIG, "alice", START_MS + 900_000, NOW_MS, ask=silent).report
    assert [task.jobid for task in late.tasks] == ["9"]
    assert recent(store, CONFIG, "eve", START_MS, NOW_MS, ask=silent).report.tasks == []

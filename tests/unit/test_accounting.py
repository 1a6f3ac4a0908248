import re
from collections.abc import Callable, Sequence

import pytest

from agent.slurm.accounting import SlurmUnreachable, jobs, jobs_of, latest, numbered
from agent.slurm.answers import (
    SACCT_COLUMNS,
    SQUEUE_COLUMNS,
    exit_code,
    from_sacct,
    from_squeue,
    gpus_of,
    hosts_of,
    memory_of,
)

CUT = "\x1fcut\x1f"


def no_command(command: Sequence[str]) -> str:
    raise AssertionError(f"not to be asked: {command}")


def sacct(cut: str = CUT, **values: str) -> str:
    known = {
        "JobID": "28_5",
        "JobIDRaw": "31",
        "User": "nobody",
        "Account": "acct",
        "Partition": "main",
        "State": "COMPLETED",
        "NodeList": "n1",
        "AllocCPUS": "2",
        "AllocTRES": "billing=2,cpu=2,gres/gpu:a100=1,gres/gpu=1,mem=1500M,node=1",
        "Submit": "1700000000",
        "Start": "1700000010",
        "End": "1700000070",
        "TimelimitRaw": "5",
        "ExitCode": "0:0",
        "Reason": "None",
        "JobName": "train",
    }
    record = dict.fromkeys(SACCT_COLUMNS, "") | known | values
    return "".join(f"{value}{cut}" for value in record.values()) + "\n"


def squeue(cut: str = CUT, **values: str) -> str:
    known = {
        "JobID": "31",
        "ArrayJobID": "28",
        "ArrayTaskID": "5",
        "HetJobID": "N/A",
        "HetJobOffset": "N/A",
        "UserName": "nobody",
        "Account": "acct",
        "Partition": "main",
        "State": "RUNNING",
        "NodeList": "n[1-2]",
        "NumCPUs": "2",
        "tres-alloc": "cpu=2,mem=2G,node=1,gres/gpu=2",
        "SubmitTime": "1700000000",
        "StartTime": "1700000010",
        "EndTime": "1700360000",
        "TimeLimit": "1-02:03:04",
        "exit_code": "0",
        "Reason": "None",
        "restartcnt": "0",
        "Name": "train",
    }
    record = dict.fromkeys(SQUEUE_COLUMNS, "") | known | values
    return "".join(f"{value}{cut}" for value in record.values()) + "\n"


def test_a_finished_array_task() -> None:
    job = from_sacct(sacct(), CUT)[0]
    assert (job.jobid, job.raw, job.state, job.exit_code) == ("28_5", "31", "COMPLETED", 0)
    assert (job.start_ms, job.end_ms) == (1_700_000_010_000, 1_700_000_070_000)
    assert (job.cpus, job.gpus, job.time_limit_seconds) == (2, 1, 300.0)
    assert (job.submit_ms, job.memory_bytes) == (1_700_000_000_000, 1500 * 2.0**20)
    assert job.hosts == ["n1"]


def test_a_pending_job_has_a_reason_and_no_times() -> None:
    waiting = {"Start": "Unknown", "End": "Unknown", "NodeList": "None assigned"}
    job = from_sacct(sacct(State="PENDING", Reason="Resources", **waiting), CUT)[0]
    assert (job.start_ms, job.end_ms, job.exit_code, job.reason) == (0, None, None, "Resources")
    assert job.hosts == []


def test_slurmctld_knows_when_it_means_to_start_a_pending_job() -> None:
    waiting = {"State": "PENDING", "NodeList": "", "Reason": "Priority", "EndTime": "NONE"}
    job = from_squeue(squeue(**waiting), CUT)[0]
    assert (job.start_ms, job.expected_start_ms, job.end_ms) == (0, 1_700_000_010_000, None)
    assert (job.reason, job.hosts) == ("Priority", [])


def test_who_cancelled_is_not_part_of_the_state() -> None:
    job = from_sacct(sacct(State="CANCELLED by 0", ExitCode="0:15"), CUT)[0]
    assert (job.state, job.exit_code) == ("CANCELLED", 143)


FORGED = (
    "a|b,c;d 'x' \"y\" <b> JobState=FAILED\t",
    "one\nJobId=99 JobName=x UserId=root(0) JobState=FAILED",
    "two\n" + "\x1f".join(["99", "99", "root", *("x" for _ in SACCT_COLUMNS[3:])]),
    sacct(cut="\x1fother\x1f", JobID="99"),
    "",
)


@pytest.mark.parametrize("name", FORGED)
def test_a_hostile_name_comes_out_as_it_is_and_makes_no_job(name: str) -> None:
    after = {"JobID": "32", "ArrayTaskID": "6"}
    for found in (
        from_sacct(sacct(JobName=name) + sacct(JobID="28_6"), CUT),
        from_squeue(squeue(Name=name) + squeue(**after), CUT),
    ):
        assert [(job.jobid, job.name) for job in found] == [("28_5", name), ("28_6", "train")]
        assert found[0].user == "nobody"


def test_an_answer_of_other_columns_is_left_out() -> None:
    assert from_sacct(f"1{CUT}2{CUT}\n", CUT) == []


def test_slurmctld_s_running_array_task() -> None:
    job = from_squeue(squeue(), CUT)[0]
    assert (job.jobid, job.raw, job.state, job.end_ms) == ("28_5", "31", "RUNNING", None)
    assert (job.cpus, job.gpus, job.account, job.hosts) == (2, 2, "acct", ["n1", "n2"])
    assert job.time_limit_seconds == ((24 + 2) * 60 + 3) * 60 + 4
    assert job.memory_bytes == 2 * 2.0**30


@pytest.mark.parametrize(
    ("values", "jobid"),
    [
        ({"ArrayTaskID": "N/A"}, "31"),
        ({"ArrayTaskID": "3-4%1"}, "28_[3-4%1]"),
        ({"ArrayTaskID": "N/A", "HetJobID": "30", "HetJobOffset": "1"}, "30+1"),
    ],
)
def test_ids_as_users_write_them(values: dict[str, str], jobid: str) -> None:
    assert from_squeue(squeue(**values), CUT)[0].jobid == jobid


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("0:0", 0), ("7:0", 7), ("0:9", 137), ("", None), ("x:y", None)),
        *(("0", 0), ("1280", 5), ("9", 137), ("137", 137)),  # wait statuses; 128 + 9: core dumped
    ],
)
def test_exit_codes(text: str, code: int | None) -> None:
    assert exit_code(text) == code


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("UNLIMITED", None), ("365-00:00:00", None), ("7:00", 420.0), ("1:00:00", 3600.0)],
)
def test_time_limits(limit: str, seconds: float | None) -> None:
    assert from_squeue(squeue(TimeLimit=limit), CUT)[0].time_limit_seconds == seconds


@pytest.mark.parametrize(
    ("tres", "count"),
    [("cpu=4", 0), ("gres/gpu=2,gres/gpu:a100=2", 2), ("gres/gpu:a=1,gres/gpu:b=3", 4), ("", 0)],
)
def test_gpus_are_counted_once(tres: str, count: int) -> None:
    assert gpus_of(tres) == count


@pytest.mark.parametrize(
    ("tres", "size"),
    [("cpu=1,mem=4G", 4 * 2.0**30), ("mem=1.50G", 1.5 * 2**30), ("mem=7", 7.0), ("mem=x", 0.0)],
)
def test_memory_of_an_allocation(tres: str, size: float) -> None:
    assert memory_of(tres) == size


def test_hosts_of_a_list() -> None:
    assert hosts_of("n[1-2],m7") == ["n1", "n2", "m7"]
    assert hosts_of("None assigned") == hosts_of("") == hosts_of("n[x]") == []


def test_the_last_run_of_a_requeued_job_counts() -> None:
    runs = from_sacct(sacct(State="REQUEUED") + sacct(State="FAILED"), CUT)
    assert [job.state for job in latest(runs)] == ["FAILED"]


def test_slurmdbd_s_runs_are_numbered_and_an_id_that_came_back_begins_anew() -> None:
    text = sacct(State="REQUEUED", End="1700000070")
    text += sacct(Submit="1700000071", End="1700000100")
    text += sacct(Submit="1800000000", Start="1800000001", End="1800000002")
    assert [job.restart for job in numbered(from_sacct(text, CUT))] == [0, 1, 0]


def answering(**answers: str | None) -> Callable[[Sequence[str]], str]:
    """Answer as Slurm's commands do, with the delimiter that the question asks for."""

    def ask(command: Sequence[str]) -> str:
        answer = answers[command[0]]
        if answer is None:
            raise SlurmUnreachable(f"{command[0]} is disabled")
        asked = re.search("\x1f[0-9a-f]{16}\x1f", " ".join(command))
        assert asked, command
        return answer.replace(CUT, asked[0])

    return ask


def test_without_slurmdbd_slurmctld_is_asked() -> None:
    assert jobs("28_5", answering(sacct=None, squeue=squeue()))[0].state == "RUNNING"


def test_slurmctld_s_word_is_fresher_and_slurmdbd_s_goes_further_back() -> None:
    recorded = sacct(State="REQUEUED") + sacct(Submit="1700000071", State="RUNNING", End="Unknown")
    now = squeue(State="COMPLETED", restartcnt="1", StartTime="1700000080", EndTime="1700000090")
    found = jobs("28_5", answering(sacct=recorded, squeue=now))
    assert [(job.state, job.restart) for job in found] == [("REQUEUED", 0), ("COMPLETED", 1)]


def test_with_neither_both_are_named() -> None:
    with pytest.raises(SlurmUnreachable, match="sacct is disabled; squeue is disabled"):
        jobs("28", answering(sacct=None, squeue=None))


def test_one_component_is_not_all_of_its_job() -> None:
    both = [squeue(ArrayTaskID="N/A", HetJobID="31", HetJobOffset=str(n)) for n in range(2)]
    ask = answering(sacct=None, squeue="".join(both))
    assert [job.jobid for job in jobs("31+1", ask)] == ["31+1"]
    assert [job.jobid for job in jobs("31", ask)] == ["31+0", "31+1"]


def test_a_user_s_jobs_since_a_moment_oldest_first() -> None:
    later = sacct(JobID="40", JobIDRaw="40", Submit="1700000500", End="1700000900")
    ask = answering(sacct=later + sacct(), squeue="")
    assert [job.jobid for job in jobs_of("nobody", 1_700_000_000_000, ask)] == ["28_5", "40"]
    assert [job.jobid for job in jobs_of("nobody", 1_700_000_600_000, ask)] == ["40"]


@pytest.mark.parametrize("jobid", ["run-20261123-1", "1;rm", "--help", "", "1_2_3"])
def test_what_is_no_slurm_id_is_not_asked(jobid: str) -> None:
    assert jobs(jobid, no_command) == []

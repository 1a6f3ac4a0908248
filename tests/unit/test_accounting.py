from collections.abc import Callable, Sequence

import pytest

from agent.slurm.accounting import (
    COLUMNS,
    SEPARATOR,
    SlurmUnreachable,
    exit_code,
    expand,
    from_sacct,
    from_scontrol,
    gpus_of,
    jobs,
    latest,
)


def no_command(command: Sequence[str]) -> str:
    raise AssertionError(f"not to be asked: {command}")


def row(**values: str) -> str:
    defaults = dict.fromkeys(COLUMNS, "")
    known = {
        "JobID": "28_5",
        "JobIDRaw": "31",
        "User": "nobody",
        "Account": "acct",
        "Partition": "main",
        "State": "COMPLETED",
        "NodeList": "n1",
        "NNodes": "1",
        "AllocCPUS": "2",
        "AllocTRES": "billing=2,cpu=2,gres/gpu:a100=1,gres/gpu=1,node=1",
        "Submit": "1700000000",
        "Start": "1700000010",
        "End": "1700000070",
        "TimelimitRaw": "5",
        "ExitCode": "0:0",
        "JobName": "train",
    }
    return SEPARATOR.join((defaults | known | values).values())


def test_a_finished_array_task() -> None:
    job = from_sacct(row() + "\n", no_command)[0]
    assert (job.jobid, job.raw, job.state, job.exit_code) == ("28_5", "31", "COMPLETED", 0)
    assert (job.start_ms, job.end_ms) == (1_700_000_010_000, 1_700_000_070_000)
    assert (job.cpus, job.gpus, job.time_limit_seconds) == (2, 1, 300.0)
    assert job.hosts == ["n1"]


def test_a_pending_job_has_a_reason_and_no_times() -> None:
    text = row(
        State="PENDING",
        Start="Unknown",
        End="Unknown",
        NodeList="None assigned",
        Reason="Resources",
    )
    job = from_sacct(text, no_command)[0]
    assert (job.start_ms, job.end_ms, job.exit_code, job.reason) == (0, None, None, "Resources")
    assert job.hosts == []


def test_who_cancelled_is_not_part_of_the_state() -> None:
    job = from_sacct(row(State="CANCELLED by 0", ExitCode="0:15"), no_command)[0]
    assert (job.state, job.exit_code) == ("CANCELLED", 143)


def test_a_hostile_name_changes_no_other_column() -> None:
    name = "a|b,c;d 'x' \"y\" <b> JobState=FAILED\t"
    job = from_sacct(row(JobName=name), no_command)[0]
    assert (job.name, job.state) == (name, "COMPLETED")


def test_a_name_of_several_lines_makes_no_job() -> None:
    found = from_sacct(row(JobName="one") + "\nsecond line\n" + row(JobID="9"), no_command)
    assert [job.jobid for job in found] == ["28_5", "9"]


SCONTROL = (
    "JobId=31 ArrayJobId=28 ArrayTaskId=5 JobName=my job UserId=root(0) x UserId=nobody(65534) "
    "GroupId=nogroup(65534) MCS_label=N/A Priority=1 Account=acct QOS=(null) JobState=RUNNING "
    "Reason=None Dependency=(null) Requeue=1 Restarts=0 ExitCode=0:0 TimeLimit=1-02:03:04 "
    "StartTime=1700000010 EndTime=1700360000 Partition=main NodeList=n1 NumNodes=1 NumCPUs=2 "
    "TRES=cpu=2,mem=100M,node=1,gres/gpu=2"
)


def test_scontrol_of_a_running_array_task() -> None:
    job = from_scontrol(SCONTROL + "\n\n", no_command)[0]
    assert (job.jobid, job.raw, job.state, job.end_ms) == ("28_5", "31", "RUNNING", None)
    assert (job.cpus, job.gpus, job.account) == (2, 2, "acct")
    assert job.time_limit_seconds == ((24 + 2) * 60 + 3) * 60 + 4


@pytest.mark.parametrize(
    ("text", "code"), [("0:0", 0), ("7:0", 7), ("0:9", 137), ("", None), ("x:y", None)]
)
def test_exit_codes(text: str, code: int | None) -> None:
    assert exit_code(text) == code


@pytest.mark.parametrize(
    ("tres", "count"),
    [("cpu=4", 0), ("gres/gpu=2,gres/gpu:a100=2", 2), ("gres/gpu:a=1,gres/gpu:b=3", 4), ("", 0)],
)
def test_gpus_are_counted_once(tres: str, count: int) -> None:
    assert gpus_of(tres) == count


def test_slurm_itself_expands_brackets() -> None:
    assert expand("n[1-2]", lambda command: f"{command[-1]}!\n") == ["n[1-2]!"]
    assert expand("a,b", no_command) == ["a", "b"]
    assert expand("None assigned", no_command) == []


def test_the_last_run_of_a_requeued_job_counts() -> None:
    runs = from_sacct(row(State="REQUEUED") + "\n" + row(State="FAILED"), no_command)
    assert [job.state for job in latest(runs)] == ["FAILED"]


def answering(**answers: str | None) -> Callable[[Sequence[str]], str]:
    def ask(command: Sequence[str]) -> str:
        answer = answers[command[0]]
        if answer is None:
            raise SlurmUnreachable(f"{command[0]} is disabled")
        return answer

    return ask


def test_without_slurmdbd_slurmctld_is_asked() -> None:
    assert jobs("28_5", answering(sacct=None, scontrol=SCONTROL))[0].state == "RUNNING"


def test_with_neither_both_are_named() -> None:
    with pytest.raises(SlurmUnreachable, match="sacct is disabled; scontrol is disabled"):
        jobs("28", answering(sacct=None, scontrol=None))


@pytest.mark.parametrize("jobid", ["run-20261123-1", "1;rm", "--help", "", "1_2_3"])
def test_what_is_no_slurm_id_is_not_asked(jobid: str) -> None:
    assert jobs(jobid, no_command) == []

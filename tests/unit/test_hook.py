"""The hook's datagrams are messages that the agent takes, whatever Slurm's environment holds."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.listener import AgentSocket
from agent.messages import JobEnd, JobStart, Reply, decode
from agent.slurm import hook
from tests.weather import PATIENCE

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {
    "SLURM_JOB_ID": "31",
    "SLURM_JOB_UID": "65534",
    "SLURM_JOB_USER": "nobody",
    "SLURM_JOB_ACCOUNT": "acct",
    "SLURM_JOB_PARTITION": "main",
    "SLURM_JOB_RESTART_COUNT": "1",
    "SLURM_JOB_GPUS": "0,3",
    "SLURM_JOB_CPUS_PER_NODE": "4(x2)",
    "SLURMD_NODENAME": "n2",
    "SLURM_NODELIST": "n[1-2]",
    "SLURM_HET_JOB_ID": "30",
}


def test_a_start_holds_what_slurm_says() -> None:
    assert decode(hook.start_message(ENVIRONMENT, 1000)) == JobStart(
        "31",
        1000,
        uid=65534,
        user="nobody",
        account="acct",
        partition="main",
        gpus=("0", "3"),
        cpus=4.0,
        restart=1,
        source="slurm",
        node="n2",
        nodes="n[1-2]",
        het_jobid="30",
    )


def test_a_job_without_gpus_has_none_and_not_all() -> None:
    message = decode(hook.start_message({"SLURM_JOB_ID": "7"}, 1000))
    assert message == JobStart("7", 1000, gpus=(), source="slurm")


@pytest.mark.parametrize(
    ("said", "cpus"), [("2", 2.0), ("2(x8)", 2.0), ("2(x2),8", 0.0), ("", 0.0), ("-1", 0.0)]
)
def test_cpus_of_this_node_where_all_nodes_agree(said: str, cpus: float) -> None:
    message = decode(hook.start_message({**ENVIRONMENT, "SLURM_JOB_CPUS_PER_NODE": said}, 0))
    assert isinstance(message, JobStart)
    assert message.cpus == cpus


@pytest.mark.parametrize(
    ("said", "exit_code"), [("0:0", 0), ("3:0", 3), ("0:9", 137), ("1:15", 143), ("", 0)]
)
def test_an_exit_code_is_as_shells_have_it(said: str, exit_code: int) -> None:
    environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_EXIT_CODE2": said}
    assert decode(hook.end_message(environment)) == JobEnd("7", exit_code)


@given(st.text())
def test_any_name_comes_through_literally(name: str) -> None:
    message = decode(hook.start_message({**ENVIRONMENT, "SLURM_JOB_USER": name}, 0))
    assert isinstance(message, JobStart)
    assert message.user == name.encode(errors="replace").decode()


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    name = b"a\xff".decode(errors="surrogateescape")
    message = decode(hook.start_message({**ENVIRONMENT, "SLURM_JOB_USER": name}, 0))
    assert isinstance(message, JobStart)
    assert message.user == "a?"


def test_nobody_listens(tmp_path: Path) -> None:
    assert hook.tell(str(tmp_path / "agent.sock"), b"{}", 0.5) is None


def test_a_deaf_agent_is_waited_for_only_so_long(tmp_path: Path) -> None:
    listener = AgentSocket(tmp_path / "agent.sock")
    begun = time.monotonic()
    assert hook.tell(str(listener.path), hook.start_message(ENVIRONMENT, 0), 0.1) == b""
    assert 0.1 <= time.monotonic() - begun < 1.0
    listener.close()


def test_an_agent_with_a_full_queue_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    listener = AgentSocket(tmp_path / "agent.sock")
    begun = time.monotonic()
    for _ in range(14):  # the kernel's queue takes 10 or so (net.unix.max_dgram_qlen)
        assert hook.tell(str(listener.path), hook.end_message(ENVIRONMENT), 0.0) == b""
    assert time.monotonic() - begun < 5.0
    listener.close()


def test_an_agent_that_ends_before_it_answers_is_none(tmp_path: Path) -> None:
    listener = AgentSocket(tmp_path / "agent.sock")
    ending = threading.Timer(0.1, listener.close)
    ending.start()
    assert hook.tell(str(listener.path), hook.start_message(ENVIRONMENT, 0), 20.0) is None
    ending.join()


def test_as_a_program_it_asks_prints_nothing_and_ends_well(tmp_path: Path) -> None:
    listener = AgentSocket(tmp_path / "agent.sock")
    program = subprocess.Popen(
        [sys.executable, "-I", "-S", REPOSITORY / "agent/slurm/hook.py", "start"],
        env={**ENVIRONMENT, "ROOFLIGHT_SOCKET": str(listener.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while (received := listener.receive()) is None:
        time.sleep(0.01)
    assert program.poll() is None  # it waits for the sample at the job's start
    listener.answer(received, Reply(True))
    assert program.communicate(timeout=PATIENCE)[0] == b""
    assert program.returncode == 0
    assert isinstance(received.message, JobStart)
    listener.close()


def test_it_imports_next_to_nothing() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import agent.slurm.hook; print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"json", "re", "enum", "socket", "pathlib", "msgspec"} & set(done.stdout.split())

"""People on the same node who mean harm, to a real agent: root and jobs' owners are heard."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.listener import (
    NOBODY,
    AgentSocket,
    Listeners,
    access_list,
    allow_all,
    give_to,
    is_unnamed,
)
from tests.integration import neighbours
from tests.integration.neighbours import (
    FLOOD,
    LARGE_POINTS,
    LONG_NAMES,
    OWNER,
    REFLECTION,
    STRANGER,
    Agent,
    prologs_heard,
    waits,
    writable_by,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users"),
    pytest.mark.skipif(neighbours.PYTHON is None, reason="needs a Python that all users may run"),
]

HEARD_SECONDS = 0.05
MOST_CORES = 0.02
UNREAD = "1"
"""Bytes of a message that is flooded."""


@pytest.fixture
def running() -> Iterator[Agent]:
    with neighbours.agent() as agent:
        yield agent


def test_datagrams_that_the_agent_would_answer_to_itself_do_nothing(running: Agent) -> None:
    with writable_by(STRANGER) as folder:
        running.attack(REFLECTION, folder, seconds=0, uid=STRANGER).result()
    heard, _ = prologs_heard(running, 100, count=5)
    assert heard == 5
    assert running.cores(2.0) < MOST_CORES + 0.01  # its own ticks take less than the hundredth


def test_a_flood_costs_little_and_root_and_the_owner_are_heard_at_once(running: Agent) -> None:
    running.hook("start", "7")
    flood = running.attack(FLOOD, UNREAD, "0", seconds=20, uid=STRANGER)
    time.sleep(1)
    cores = running.cores(4.0)
    heard, _ = prologs_heard(running, 100, count=5)
    found = waits(running, "7", 3.0)
    flood.process.kill()
    flood.process.communicate()
    assert heard == 5
    assert cores < MOST_CORES
    # on a busy machine a process may wait for a CPU longer than that, but not most of the times
    assert sorted(found)[len(found) // 2] < HEARD_SECONDS
    assert max(found) < 2.0


def test_an_owner_s_own_flood_is_his_own_affair(running: Agent) -> None:
    running.hook("start", "7")
    flood = running.attack(
        FLOOD.replace("sendto(b", "sendto(message(phase('x', '7')) or b").replace(
            ", path)", ", best(path))"
        ),
        UNREAD, "0", seconds=20, uid=OWNER,
    )  # fmt: skip
    time.sleep(1)
    cores = running.cores(4.0)
    heard, _ = prologs_heard(running, 100, count=5)
    flood.process.kill()
    flood.process.communicate()
    assert heard == 5
    assert cores < 2 * MOST_CORES


def test_large_points_are_charged_and_cut(running: Agent) -> None:
    running.hook("start", "7")
    before = running.kept_bytes()
    sent = int(running.attack(LARGE_POINTS, "7", seconds=5, uid=OWNER).result())
    assert sent > 50
    # 400 kB at once and 20 kB a second are eight points and one each other second, a kB each
    assert running.kept_bytes() - before < 400_000
    lines = [
        line
        for file in (running.folder / "state/spool").glob("*-metrics.lp")
        for line in file.read_text().splitlines()
        if line.startswith("phase,")
    ]
    assert lines
    assert max(map(len, lines)) < 1_000
    assert not any("xxx" in line for line in lines), "a bound is one of eight words"


def test_long_names_are_cut_before_anything_keeps_them(running: Agent) -> None:
    for number in range(50):
        running.hook("start", str(1000 + number))
        running.attack(LONG_NAMES, str(1000 + number), seconds=0, uid=OWNER).result()
        running.hook("end", str(1000 + number))
    assert running.resident_mebibytes() < 60


def test_a_user_s_socket_is_there_while_his_job_runs_and_nobody_else_s(running: Agent) -> None:
    own = running.folder / "users" / f"{OWNER}.sock"
    assert not own.exists()
    running.hook("start", "7")
    running.hook("start", "8")
    send = "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', sys.argv[3])"
    running.attack(send, str(own), seconds=0, uid=OWNER).result()
    for target in (own, running.folder / "root.sock"):
        refused = running.attack(
            f"try: {send}\nexcept PermissionError: print('refused')",
            str(target), seconds=0, uid=STRANGER,
        )  # fmt: skip
        assert refused.result() == "refused\n"
    running.hook("end", "7")
    assert own.exists()
    running.hook("end", "8")
    deadline = time.monotonic() + 30
    while own.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_agent_that_is_not_root_gives_a_socket_by_an_access_list(tmp_path: Path) -> None:
    """The service's user may not change owners: the kernel must heed the list that it writes."""
    code = (
        "import os, socket, sys; sys.path.insert(0, sys.argv[1]);"
        "own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); own.bind(sys.argv[2]);"
        "os.chmod(sys.argv[2], 0o600);"
        f"os.setxattr(sys.argv[2], 'system.posix_acl_access', {access_list(OWNER)!r});"
        "own.settimeout(30); print(own.recv(9).decode(), flush=True)"
    )
    with writable_by(NOBODY) as folder:
        Path(folder).chmod(0o755)
        path = f"{folder}/own.sock"
        serving = subprocess.Popen(
            [str(neighbours.PYTHON), "-I", "-c", code, "", path],
            user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not Path(path).exists() or Path(path).stat().st_mode & 0o070 == 0:
            assert serving.poll() is None
            time.sleep(0.01)
        send = (
            "import socket, sys; own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "try: own.sendto(sys.argv[2].encode(), sys.argv[1])\n"
            "except PermissionError: print('refused')"
        )
        said = [
            subprocess.run(
                [str(neighbours.PYTHON), "-I", "-c", send, path, word],
                user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=True,
            ).stdout
            for uid, word in ((STRANGER, "stranger"), (OWNER, "owner"))
        ]  # fmt: skip
        assert said == ["refused\n", ""]
        assert serving.communicate(timeout=30)[0] == "owner\n"


def test_root_gives_a_socket_away(tmp_path: Path) -> None:
    listener = AgentSocket(tmp_path / "own.sock", 0o600)
    assert give_to(listener.path, OWNER)
    status = listener.path.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (OWNER, 0o600)
    listener.close()


def test_a_folder_of_users_sockets_that_is_somebody_else_s_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "users").mkdir()
    os.chown(tmp_path / "users", STRANGER, STRANGER)
    listeners = Listeners(tmp_path / "agent.sock", allow_all)
    assert listeners.admit(OWNER) is None
    assert caplog.text.count("others may write to it") == 1
    listeners.close()


def test_where_no_socket_can_be_made_for_a_user_everybody_s_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listeners = Listeners(tmp_path / "agent.sock", allow_all)
    (tmp_path / "users" / f"{OWNER}.sock").mkdir()
    assert listeners.admit(OWNER) is None
    assert f"no socket for user {OWNER}: " in caplog.text
    listeners.close()


@pytest.mark.parametrize(
    ("sender", "unnamed"),
    [(b"\0002a6f1", True), (b"\0named", False), (b"\0longer-name", False), ("/a/path", False),
     (b"/path1", False), ("", False), (b"", False)],
)  # fmt: skip
def test_only_addresses_that_linux_makes_up_are_answered(
    sender: bytes | str, unnamed: bool
) -> None:
    assert is_unnamed(sender) is unnamed

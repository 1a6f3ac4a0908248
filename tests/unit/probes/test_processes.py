import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.processes import ProcessTree, parse_io, parse_stat
from probes.roots import Roots
from probes.sample import Value
from tests.weather import PATIENCE

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def number(fields: dict[str, Value], name: str) -> float:
    value = fields[name]
    assert isinstance(value, float)
    return value


def reap(pid: int) -> float:
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime


# --- parsers ---------------------------------------------------------------------------------


def test_a_name_may_hold_spaces_and_parentheses() -> None:
    columns = ["S", "7", "40", "41", *["0"] * 7, "11", "12", "13", "14", *["0"] * 4]
    columns += ["555", "1000", "99", "18446744073709551615"]
    stat = parse_stat(f"42 (a) S 1 (b c)) {' '.join(columns)} 0 0\n".encode())
    assert stat
    assert (stat.state, stat.parent, stat.group, stat.session) == (b"S", 7, 40, 41)
    assert stat[4:] == (11, 12, 13, 14, 555, 99)


def test_the_own_line_agrees_with_the_system() -> None:
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    assert stat
    assert stat.parent == os.getppid()
    assert stat.group == os.getpgrp()
    assert stat.session == os.getsid(0)
    times = os.times()
    assert stat.user + stat.system == pytest.approx((times.user + times.system) * TICKS, abs=3)


def test_a_line_cut_anywhere_gives_the_whole_or_nothing() -> None:
    text = Path("/proc/self/stat").read_bytes()
    whole = parse_stat(text)
    assert all(parse_stat(text[:length]) in (None, whole) for length in range(len(text)))


@given(st.binary(max_size=300))
def test_any_bytes_are_no_process(content: bytes) -> None:
    assert parse_stat(content) is None
    assert parse_io(content) is None


def test_bytes_need_both_lines() -> None:
    assert parse_io(b"rchar: 9\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 1\n") == (
        5,
        6,
    )
    assert parse_io(b"read_bytes: 5\n") is None
    assert parse_io(b"read_bytes: -5\nwrite_bytes: 6\n") is None


# --- a machine written by hand -----------------------------------------------------------------


class Machine:
    """A /proc to which processes are added, changed and taken away."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.put(1, parent=0)

    def put(
        self,
        pid: int,
        parent: int,
        user: int = 0,
        children: int = 0,
        session: int = 1,
        started: int = 5,
        written: int = 0,
    ) -> None:
        folder = self.proc / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        columns = ["S", parent, session, session, *[0] * 7, user, 0, children, 0, *[0] * 4]
        text = " ".join(map(str, [*columns, started, 1 << 20, 10, 0, 0, 0]))
        (folder / "stat").write_text(f"{pid} (x) {text}\n")
        (folder / "io").write_text(f"read_bytes: 0\nwrite_bytes: {written}\n")

    def end(self, *pids: int) -> None:
        for pid in pids:
            for file in (self.proc / str(pid)).iterdir():
                file.unlink()
            (self.proc / str(pid)).rmdir()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def ticks(tree: ProcessTree) -> float:
    return number(tree.read(), "cpu_seconds") * TICKS


@pytest.fixture
def tree(machine: Machine) -> ProcessTree:
    machine.put(100, parent=1, user=100)
    machine.put(101, parent=100, user=50)
    machine.put(102, parent=101, user=7)
    machine.put(200, parent=1, user=9999)
    return ProcessTree(Roots(proc=machine.proc), 100)


def test_descendants_are_members_and_others_are_not(tree: ProcessTree) -> None:
    fields = tree.read()
    assert fields == {
        "cpu_seconds": pytest.approx(157 / TICKS),
        "cpu_user_seconds": pytest.approx(157 / TICKS),
        "cpu_system_seconds": 0.0,
        "memory_bytes": 30.0 * PAGE,
        "memory_peak_bytes": 30.0 * PAGE,
        "read_bytes": 0.0,
        "write_bytes": 0.0,
        "processes_total": 3.0,
        "source": "processes",
    }


def test_a_reaped_child_is_counted_once(machine: Machine, tree: ProcessTree) -> None:
    assert ticks(tree) == 157
    machine.end(102)
    machine.put(101, parent=100, user=50, children=9)  # it had run on since it was last seen
    assert ticks(tree) == 159


def test_a_child_that_nobody_reaped_is_carried_over(machine: Machine, tree: ProcessTree) -> None:
    tree.read()
    machine.end(102)  # its parent ignores SIGCHLD
    for _ in range(3):
        assert ticks(tree) == 157
    machine.put(101, parent=100, user=60)
    assert ticks(tree) == 167


def test_an_orphan_reaped_by_init_is_carried_over(machine: Machine, tree: ProcessTree) -> None:
    tree.read()
    machine.end(101)
    machine.put(100, parent=1, user=100, children=50)
    machine.put(102, parent=1, user=8)
    assert ticks(tree) == 158
    machine.end(102)
    assert ticks(tree) == 158


def test_a_child_reaped_between_two_files_is_not_counted_twice(
    machine: Machine, tree: ProcessTree
) -> None:
    tree.read()
    machine.end(102)  # gone, but its parent was read just before it was reaped
    assert ticks(tree) == 157
    machine.put(101, parent=100, user=50, children=7)
    assert ticks(tree) == 157
    machine.put(101, parent=100, user=51, children=7)
    assert ticks(tree) == 158


def test_parent_and_child_that_end_together(machine: Machine, tree: ProcessTree) -> None:
    tree.read()
    machine.end(101, 102)
    machine.put(100, parent=1, user=100, children=57)
    assert ticks(tree) == 157


def test_all_that_ended_stays_counted(machine: Machine, tree: ProcessTree) -> None:
    tree.read()
    machine.end(100, 101, 102)
    fields = tree.read()
    assert number(fields, "cpu_seconds") * TICKS == 157
    assert fields["processes_total"] == 0.0
    assert fields["memory_bytes"] == 0.0
    assert fields["memory_peak_bytes"] == 30.0 * PAGE
    machine.put(100, parent=1, user=5000, started=900)  # another process gets the number
    assert ticks(tree) == 157


def test_bytes_of_a_reaped_child_are_counted_once(machine: Machine, tree: ProcessTree) -> None:
    machine.put(102, parent=101, user=7, written=4096)
    assert tree.read()["write_bytes"] == 4096.0
    machine.end(102)
    machine.put(101, parent=100, user=50, children=7, written=8192)
    assert tree.read()["write_bytes"] == 8192.0


def test_an_orphan_of_the_root_s_session_is_found(machine: Machine, tree: ProcessTree) -> None:
    machine.put(100, parent=1, user=100, session=100)
    tree.read()
    machine.put(300, parent=1, user=1000, session=100)
    assert ticks(tree) == 1157


def test_a_session_that_the_root_does_not_lead_is_not_the_job(
    machine: Machine, tree: ProcessTree
) -> None:
    machine.put(50, parent=1, user=3000, session=50)  # a shell, and a job started from it
    machine.put(100, parent=50, user=100, session=50)
    machine.put(51, parent=50, user=3000, session=50)
    assert ticks(tree) == 157


def test_a_child_with_a_lower_number_than_its_parent_is_found(
    machine: Machine, tree: ProcessTree
) -> None:
    machine.put(60, parent=102, user=20)
    tree.read()
    assert ticks(tree) == 177


def test_a_process_that_was_never_there_gives_nothing(machine: Machine) -> None:
    assert ProcessTree(Roots(proc=machine.proc), 77).read() == {}


# --- real processes ----------------------------------------------------------------------------

ROUNDING = 4 / TICKS
"""User and system time, own and children's, are each rounded down to a whole tick."""

BURN = """
import os, sys, time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

if os.fork() == 0:
    if os.fork() == 0:
        burn(0.5)
        os._exit(0)
    os.wait()
    if os.fork() == 0:
        burn(0.3)
        os._exit(0)
    os.wait()
    burn(0.2)
    os._exit(0)
os.wait()
"""


def watch(tree: ProcessTree, until: Callable[[], bool]) -> list[float]:
    seen = []
    deadline = time.monotonic() + PATIENCE
    while not until() and time.monotonic() < deadline:
        seen.append(number(tree.read(), "cpu_seconds"))
        time.sleep(0.02)
    return seen


def has_ended(pid: int) -> Callable[[], bool]:
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return lambda: os.waitid(os.P_PID, pid, options) is not None


def test_cpu_time_of_real_grandchildren_is_what_the_kernel_charges() -> None:
    child = subprocess.Popen([sys.executable, "-c", BURN])
    tree = ProcessTree(Roots(), child.pid)
    seen = watch(tree, has_ended(child.pid))
    last = number(tree.read(), "cpu_seconds")  # of the zombie, before it is reaped
    charged = reap(child.pid)
    child.returncode = 0
    assert charged > 1.0
    assert charged * 0.98 - ROUNDING <= last <= charged * 1.02
    assert seen == sorted(seen)
    assert number(tree.read(), "cpu_seconds") == last


MANY_SHORT = """
import os, time
for _ in range(60):
    if os.fork() == 0:
        if os.fork() == 0:
            end = time.process_time() + 0.012
            while time.process_time() < end:
                pass
            os._exit(0)
        os.wait()
        os._exit(0)
    os.wait()
"""


def test_many_short_processes_are_each_counted_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", MANY_SHORT])
    tree = ProcessTree(Roots(), child.pid)
    has_child_ended = has_ended(child.pid)
    while not has_child_ended():
        tree.read()  # without a pause, so that many end between two files of one read
    last = number(tree.read(), "cpu_seconds")
    charged = reap(child.pid)
    child.returncode = 0
    assert charged * 0.98 - ROUNDING <= last <= charged * 1.02


def test_a_double_forked_process_stays_in_the_job(tmp_path: Path) -> None:
    script = f"""
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        assert ProcessTree(Roots(), child.pid).read()["processes_total"] == 2.0
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def test_bytes_written_by_a_real_child(tmp_path: Path) -> None:
    if os.statvfs(tmp_path).f_blocks == 0 or not (Path("/proc/self/io").exists()):
        pytest.skip("no process accounting of bytes here")
    output = tmp_path / "out"
    script = f"dd if=/dev/zero of={output} bs=1M count=64 conv=fsync 2>/dev/null; true"
    child = subprocess.Popen(["sh", "-c", script])
    tree = ProcessTree(Roots(), child.pid)
    watch(tree, has_ended(child.pid))
    written = number(tree.read(), "write_bytes")
    child.wait()
    assert written == pytest.approx(64 << 20, rel=0.02)

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes import cgroup
from probes.catalogue import JOB_CGROUP
from probes.cgroup import Cgroup, CgroupPaths, processes_of
from probes.roots import Roots
from probes.sample import Value

JOB = "system.slice/slurmstepd.scope/job_7"
V2 = {
    "cpu.stat": "usage_usec 12500000\nuser_usec 10000000\nsystem_usec 2500000\nnr_periods 0\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    "memory.pressure": "some avg10=1.00 avg60=0.00 avg300=0.00 total=250000\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "memory.current": "1073741824\n",
    "memory.peak": "2147483648\n",
    "memory.max": "4294967296\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
    "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"
    "259:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n",
    "pids.current": "40\n",
    "cgroup.procs": "",
    "step_0/cgroup.procs": "101\n102\n0\n",
    "step_0/user/task_0/cgroup.procs": "103\n",
}
V1_UID = "slurm_n1/uid_1000/job_7"
V1 = {
    f"cpuacct/{V1_UID}/cpuacct.usage": "12500000000\n",
    f"cpuacct/{V1_UID}/cpuacct.stat": "user 1000\nsystem 250\n",
    f"cpuacct/{V1_UID}/cgroup.procs": "",
    f"cpuacct/{V1_UID}/step_0/cgroup.procs": "201\n202\n",
    f"memory/{V1_UID}/memory.usage_in_bytes": "1048576\n",
    f"memory/{V1_UID}/memory.max_usage_in_bytes": "2097152\n",
    f"memory/{V1_UID}/memory.limit_in_bytes": "209715200\n",
    f"memory/{V1_UID}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    f"memory/{V1_UID}/step_0/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    f"memory/{V1_UID}/cgroup.procs": "200\n",
    f"blkio/{V1_UID}/blkio.throttle.io_service_bytes": "8:0 Read 1\n8:0 Write 1\nTotal 2\n",
    f"blkio/{V1_UID}/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\n"
    "8:0 Sync 0\n8:0 Async 12288\n8:0 Total 12288\n8:16 Read 4\n8:16 Write 5\nTotal 12297\n",
}


def write_tree(top: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


def read_cgroup(paths: CgroupPaths, roots: Roots | None = None) -> dict[str, Value]:
    group = Cgroup(paths, roots or Roots())
    try:
        return group.read()
    finally:
        group.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def roots_of(tmp_path: Path) -> Roots:
    return Roots(proc=tmp_path / "proc", sys=tmp_path / "sys", cgroup=tmp_path / "cgroup")


@pytest.fixture
def v2(tmp_path: Path) -> CgroupPaths:
    return CgroupPaths(v2=write_tree(tmp_path / "cgroup" / JOB, V2))


@pytest.fixture
def v1(tmp_path: Path) -> CgroupPaths:
    top = write_tree(tmp_path / "cgroup", V1)
    return CgroupPaths(v1={name: top / name / V1_UID for name in ("cpuacct", "memory", "blkio")})


def test_version_2(v2: CgroupPaths, tmp_path: Path) -> None:
    assert read_cgroup(v2, roots_of(tmp_path)) == {
        "cpu_seconds": 12.5,
        "cpu_user_seconds": 10.0,
        "cpu_system_seconds": 2.5,
        "memory_bytes": 2.0**30,
        "memory_peak_bytes": 2.0**31,
        "memory_limit_bytes": 2.0**32,
        "oom_kills_total": 1.0,
        "read_bytes": 4196.0,
        "write_bytes": 8392.0,
        "processes_total": 3.0,  # not 40, which are threads
        "cpu_pressure_seconds": 1.5,
        "memory_pressure_seconds": 0.25,
        "io_pressure_seconds": 0.0,
        "source": "cgroup2",
    }


def test_version_1(v1: CgroupPaths, tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    assert read_cgroup(v1, roots_of(tmp_path)) == {
        "cpu_seconds": 12.5,
        "cpu_user_seconds": 1000 / ticks,
        "cpu_system_seconds": 250 / ticks,
        "memory_bytes": 1048576.0,
        "memory_peak_bytes": 2097152.0,
        "memory_limit_bytes": 209715200.0,
        "oom_kills_total": 2.0,  # v1 counts a kill in the victim's own group alone
        "read_bytes": 4100.0,
        "write_bytes": 8197.0,
        "processes_total": 2.0,
        "source": "cgroup1",
    }


def test_fields_are_in_the_catalogue(v1: CgroupPaths, v2: CgroupPaths, tmp_path: Path) -> None:
    for paths in (v1, v2):
        fields = read_cgroup(paths, roots_of(tmp_path))
        assert fields.keys() <= JOB_CGROUP.fields.keys()
        assert all(isinstance(value, float) for name, value in fields.items() if name != "source")


def test_processes_below_are_found(v1: CgroupPaths, v2: CgroupPaths) -> None:
    assert processes_of(v2) == {101, 102, 103}
    assert processes_of(v1) == {201, 202}
    assert processes_of(CgroupPaths()) == set()


def test_an_old_kernel_without_peak_and_a_job_without_limit(
    v2: CgroupPaths, v1: CgroupPaths, tmp_path: Path
) -> None:
    assert v2.v2
    (v2.v2 / "memory.peak").unlink()
    (v2.v2 / "memory.max").write_text("max\n")
    assert not read_cgroup(v2).keys() & {"memory_peak_bytes", "memory_limit_bytes"}
    for unlimited in ("9223372036854771712", "9223372036854710272"):  # pages of 4 and of 64 KiB
        (v1.v1["memory"] / "memory.limit_in_bytes").write_text(unlimited)
        assert "memory_limit_bytes" not in read_cgroup(v1, roots_of(tmp_path))


def test_an_old_kernel_without_recursive_bytes(v1: CgroupPaths, tmp_path: Path) -> None:
    (v1.v1["blkio"] / "blkio.throttle.io_service_bytes_recursive").unlink()
    assert read_cgroup(v1, roots_of(tmp_path))["read_bytes"] == 1.0


def test_bytes_of_a_stacked_device_are_counted_once(v2: CgroupPaths, tmp_path: Path) -> None:
    assert v2.v2
    roots = roots_of(tmp_path)
    (roots.sys / "dev/block/253:0/slaves/sda3").mkdir(parents=True)
    (roots.sys / "dev/block/8:0/slaves").mkdir(parents=True)
    (v2.v2 / "io.stat").write_text(
        "8:0 rbytes=4096 wbytes=8192 rios=1\n253:0 rbytes=4096 wbytes=8192 rios=1\n"
    )
    fields = read_cgroup(v2, roots)
    assert (fields["read_bytes"], fields["write_bytes"]) == (4096.0, 8192.0)
    (v2.v2 / "io.stat").write_text("253:0 rbytes=4096 wbytes=8192 rios=1\n")
    assert read_cgroup(v2, roots)["read_bytes"] == 4096.0


def test_a_group_that_is_gone_gives_nothing(tmp_path: Path) -> None:
    assert read_cgroup(CgroupPaths(v2=tmp_path / "gone")) == {}
    assert read_cgroup(CgroupPaths(v1={"memory": tmp_path / "gone"})) == {}
    assert processes_of(CgroupPaths(v2=tmp_path / "gone")) == set()


def test_files_stay_open_until_the_group_is_closed(v2: CgroupPaths) -> None:
    assert v2.v2
    before = open_files()
    group = Cgroup(v2)
    group.read()
    kept = open_files()
    (v2.v2 / "cpu.stat").write_text("usage_usec 13500000\n")
    assert group.read()["cpu_seconds"] == 13.5
    assert open_files() == kept > before
    group.close()
    assert open_files() == before


def test_processes_below_are_counted_now_and_then_and_when_asked(v2: CgroupPaths) -> None:
    assert v2.v2
    now = 0.0
    group = Cgroup(v2, Roots(), lambda: now)
    assert group.read()["processes_total"] == 3.0
    write_tree(v2.v2, {"step_1/cgroup.procs": "104\n"})
    now = 1.0
    assert group.read()["processes_total"] == 3.0
    group.freshen()
    assert group.read()["processes_total"] == 4.0
    (v2.v2 / "step_1/cgroup.procs").write_text("")
    now = 10.0
    assert group.read()["processes_total"] == 3.0
    group.close()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"usage_usec -5\n", b"oom_kill 1 2 3\n"])
def test_broken_files_leave_fields_out(v2: CgroupPaths, content: bytes) -> None:
    assert v2.v2
    for file in V2:
        (v2.v2 / file).write_bytes(content)
    assert read_cgroup(v2) == {}


@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    assert all(value >= 0 for value in cgroup.parse_flat(text).values())
    cgroup.parse_io_stat(text)
    cgroup.parse_service_bytes(text)
    cgroup.parse_stall(text)


BURN = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
start = time.process_time()
block = bytearray(48 << 20)
end = time.process_time() + 0.6
while time.process_time() < end:
    pass
print(time.process_time() - start, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def real_v1() -> Iterator[dict[str, Path]]:
    folders = {
        name: Path("/sys/fs/cgroup") / name / f"rooflight-test-{os.getpid()}"
        for name in ("cpuacct", "memory")
    }
    try:
        for folder in folders.values():
            folder.mkdir()
            (folder / "cgroup.procs").stat()
    except OSError as error:
        for folder in folders.values():
            if folder.is_dir():
                folder.rmdir()
        pytest.skip(f"no v1 control group can be made here: {error}")
    yield folders
    for folder in folders.values():
        folder.rmdir()


def test_a_real_v1_group_agrees_with_the_kernel_s_own_account(real_v1: dict[str, Path]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        for folder in real_v1.values():
            (folder / "cgroup.procs").write_text(str(child.pid))
        found = CgroupPaths(v1=real_v1)
        child.stdin.write("\n")
        child.stdin.flush()
        burnt = float(child.stdout.readline())
        assert processes_of(found) == {child.pid}
        during = read_cgroup(found)
        child.communicate("\n")
    after = read_cgroup(found)
    assert during["source"] == "cgroup1"
    assert isinstance(during["cpu_seconds"], float)
    assert isinstance(during["memory_bytes"], float)
    assert burnt >= 0.6
    assert during["cpu_seconds"] == pytest.approx(burnt, rel=0.02, abs=0.01)
    assert during["memory_bytes"] >= 48 << 20
    assert after["processes_total"] == 0.0
    assert isinstance(after["memory_peak_bytes"], float)
    assert after["memory_peak_bytes"] >= 48 << 20
    time.sleep(0.05)  # the kernel frees the group's last task in the background

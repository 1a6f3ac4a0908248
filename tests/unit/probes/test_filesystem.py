import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.catalogue import FILESYSTEM
from probes.clients import lustre, nfs
from probes.filesystem import FilesystemProbe, shared_mounts
from probes.mounts import Mount, mount_of, parse_mountinfo
from probes.probe import Context, ProbeUnavailable
from probes.roots import Roots
from probes.sample import Sample

FIXTURE = Path(__file__).parents[2] / "golden/machines/gpu_node"
HOME, SOFTWARE = "/rooflight-golden/home", "/rooflight-golden/sw"
SCRATCH, WEKA = "/rooflight-golden/scratch", "/rooflight-golden/weka"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Servers:
    """Answers statvfs, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, path: str) -> os.statvfs_result:
        self.asked.append(path)
        if path == SOFTWARE:
            raise OSError(116, "Stale file handle")
        return os.statvfs_result((1048576, 1048576, 1000, 400, 350, 0, 0, 0, 0, 255))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "proc/self").mkdir(parents=True)
    for file in ("mountinfo", "mountstats"):
        shutil.copy(FIXTURE / "proc/self" / file, tmp_path / "proc/self" / file)
    shutil.copytree(FIXTURE / "proc/fs/lustre", tmp_path / "proc/fs/lustre")
    return Roots(proc=tmp_path / "proc", sys=tmp_path / "sys")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def probe(roots: Roots, clock: Clock, servers: Servers) -> FilesystemProbe:
    return FilesystemProbe(Context(roots=roots, monotonic=clock), statvfs=servers)


def by_mount(samples: Sequence[Sample]) -> dict[str, Sample]:
    return {dict(sample.tags)["mount"]: sample for sample in samples}


def test_each_file_system_is_given_once(probe: FilesystemProbe) -> None:
    samples = by_mount(probe.sample())
    types = {mount: dict(sample.tags)["type"] for mount, sample in samples.items()}
    assert types == {HOME: "nfs", SOFTWARE: "nfs", SCRATCH: "lustre", WEKA: "weka"}


def test_nfs_version_4(probe: FilesystemProbe) -> None:
    assert by_mount(probe.sample())[HOME].fields == {
        "read_bytes": 1210214218.0,  # from the server: programs read 9999999 (and from the cache)
        "write_bytes": 55000.0,
        "reads_total": 1298.0,
        "writes_total": 40.0,
        "opens_total": 35.0,
        "closes_total": 28.0,
        "metadata_operations_total": 1500.0,  # GETATTR 1000, LOOKUP 200, ACCESS 300; no COMMIT
        "retransmits_total": 5.0,  # READ 2, WRITE 3; the ACCESS under way is not minus one
        "total_bytes": 1000 * 2.0**20,
        "used_bytes": 600 * 2.0**20,
        "available_bytes": 350 * 2.0**20,
    }


def test_nfs_version_3_of_a_server_that_gives_no_capacity(probe: FilesystemProbe) -> None:
    assert by_mount(probe.sample())[SOFTWARE].fields == {
        "read_bytes": 4096.0,
        "write_bytes": 0.0,
        "reads_total": 1.0,
        "writes_total": 0.0,
        "metadata_operations_total": 7.0 + 11 + 3 + 2,
        "retransmits_total": 1.0,
    }


def test_lustre(probe: FilesystemProbe) -> None:
    fields = dict(by_mount(probe.sample())[SCRATCH].fields)
    assert fields["read_bytes"] == 4194304000.0
    assert fields["reads_total"] == 1000.0
    assert fields["write_bytes"] == 83886080.0
    assert fields["writes_total"] == 20.0
    assert fields["opens_total"] == 50.0
    assert fields["closes_total"] == 49.0
    assert fields["metadata_operations_total"] == 2.0 + 500 + 3 + 1


def test_lustre_in_debugfs_where_it_may_be_read(roots: Roots, probe: FilesystemProbe) -> None:
    debug = roots.sys / "kernel/debug/lustre"
    debug.parent.mkdir(parents=True)
    shutil.move(roots.proc / "fs/lustre", debug)
    assert by_mount(probe.sample())[SCRATCH].fields["read_bytes"] == 4194304000.0
    assert not any("Lustre" in line for line in probe.limits())


def test_two_mounts_of_one_lustre_are_added_up(roots: Roots) -> None:
    instances = roots.proc / "fs/lustre/llite"
    shutil.copytree(instances / "scratch-ffff9a0b1c2d3e00", instances / "scratch-ffff9a0b00000000")
    shutil.copytree(instances / "scratch-ffff9a0b1c2d3e00", instances / "scratch2-ffff9a0b00000001")
    counters = lustre.read_counters(roots)
    assert counters["scratch"]["read_bytes"] == 2 * 4194304000.0
    assert counters["scratch2"]["read_bytes"] == 4194304000.0


def test_what_cannot_be_read_is_said(roots: Roots, probe: FilesystemProbe) -> None:
    assert [line.split()[0] for line in probe.limits()] == ["WEKA"]
    shutil.rmtree(roots.proc / "fs/lustre")
    (roots.proc / "self/mountstats").unlink()
    probe.close()
    assert [line.split()[0] for line in probe.limits()] == ["Lustre", "NFS", "WEKA"]
    assert by_mount(probe.sample())[SCRATCH].fields.keys() == {
        "total_bytes",
        "used_bytes",
        "available_bytes",
    }


def test_capacity_is_asked_for_once_a_minute(
    probe: FilesystemProbe, clock: Clock, servers: Servers
) -> None:
    assert servers.asked == []  # not at the agent's start, which a dead server would hang
    for clock.now in (0.0, 1.0, 59.0):
        assert by_mount(probe.sample())[HOME].fields["total_bytes"] == 1000 * 2.0**20
    assert servers.asked.count(HOME) == 1
    clock.now = 60.0
    probe.sample()
    assert servers.asked.count(HOME) == 2


def test_a_file_system_mounted_later_is_found(
    roots: Roots, probe: FilesystemProbe, clock: Clock
) -> None:
    probe.sample()
    with (roots.proc / "self/mountinfo").open("a") as file:
        file.write("50 28 0:70 / /late rw,relatime - beegfs_nodev beegfs_nodev rw\n")
    clock.now = 60.0
    assert dict(by_mount(probe.sample())["/late"].tags)["type"] == "beegfs"


def test_no_shared_file_system_is_unavailable(roots: Roots) -> None:
    (roots.proc / "self/mountinfo").write_text("28 1 8:2 / / rw - xfs /dev/sda2 rw\n")
    with pytest.raises(ProbeUnavailable, match="NFS, Lustre, WEKA, GPFS, BeeGFS"):
        FilesystemProbe(Context(roots=roots))


def test_all_fields_are_in_the_catalogue(probe: FilesystemProbe) -> None:
    for sample in probe.sample():
        assert sample.fields.keys() <= FILESYSTEM.fields.keys()
        assert all(isinstance(value, float) for value in sample.fields.values())


def test_an_nfs_file_cut_anywhere_gives_whole_values_or_none() -> None:
    text = (FIXTURE / "proc/self/mountstats").read_text()
    whole = nfs.parse_mountstats(text)
    for length in range(0, len(text), 7):
        for mount, fields in nfs.parse_mountstats(text[:length]).items():
            assert fields in ({}, whole[mount])


def test_a_lustre_file_cut_within_a_line_gives_nothing() -> None:
    text = (FIXTURE / "proc/fs/lustre/llite/scratch-ffff9a0b1c2d3e00/stats").read_text()
    assert lustre.parse_stats(text)
    assert lustre.parse_stats(text[:-1]) == {}
    assert lustre.parse_stats(text[:100]) == {}


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(content: bytes) -> None:
    text = content.decode(errors="replace")
    assert lustre.parse_stats(text) == {} or " samples " in text
    assert nfs.parse_mountstats(text) == {}
    parse_mountinfo(text)


def test_broken_numbers_are_left_out() -> None:
    head = "device a mounted on /m with fstype nfs4 statvers=1.1\n"
    huge = "9" * 21
    text = (
        f"{head}\tbytes:\t1 2 3 4 {huge} -6 7 8 \n\tper-op statistics\n\t READ: x 1 0 0 0 0 0 0\n\n"
    )
    assert nfs.parse_mountstats(text) == {"/m": {}}
    assert lustre.parse_stats("read_bytes -1 samples [bytes] 0 1 nan\n") == {}


def test_mount_table() -> None:
    line = "36 35 98:0 /a /with\\040space rw,noatime master:1 - ext3 /dev/ro\\134ot rw"
    assert parse_mountinfo(f"{line}\nbroken - line\n") == [
        Mount("98:0", "/with space", "ext3", "/dev/ro\\ot", "/a")
    ]


def test_the_mount_that_holds_a_path() -> None:
    root, tmp = Mount("8:1", "/", "xfs", "a"), Mount("0:2", "/tmp", "tmpfs", "b")
    over = Mount("8:3", "/tmp", "ext4", "c")
    assert mount_of(Path("/tmp/x"), [root, tmp]) == tmp
    assert mount_of(Path("/tmp"), [root, tmp, over]) == over
    assert mount_of(Path("/tmpfoo"), [root, tmp]) == root
    assert mount_of(Path("/x"), [tmp]) is None


def test_a_hidden_mount_is_not_counted() -> None:
    below, above = Mount("0:1", "/m", "nfs", "a:/b"), Mount("0:2", "/m", "nfs4", "c:/d")
    assert shared_mounts([below, above]) == [above]

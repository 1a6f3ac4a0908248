import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.probe import Context, ProbeUnavailable
from probes.roots import Roots
from probes.sample import Sample
from probes.tempdisk import TempdiskProbe, parse_block_stat

MOUNTINFO = """\
28 1 8:2 / / rw,relatime shared:1 - xfs /dev/sda2 rw
29 28 0:25 / /tmp rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=33554432k
30 28 259:5 / /local/scr\\040atch rw - ext4 /dev/nvme0n1p5 rw
"""
# reads, merged, sectors, ms, writes, merged, sectors, ms, in flight, ms, ms, discards ...
NVME_STAT = "  100 3 2048 55 200 4 8192 66 0 70 80 0 0 0 0 0 0\n"


def space(
    blocks: int, free: int, available: int, files: int = 0, left: int = 0
) -> os.statvfs_result:
    return os.statvfs_result((1048576, 4096, blocks, free, available, files, left, left, 0, 255))


def stat_of(devices: dict[str, int]) -> Callable[[Path], os.stat_result]:
    def stat(path: Path) -> os.stat_result:
        if str(path) not in devices:
            raise FileNotFoundError(path)
        return os.stat_result((0o41777, 1, devices[str(path)], 2, 0, 0, 0, 0, 0, 0))

    return stat


def statvfs_of(spaces: dict[str, os.statvfs_result]) -> Callable[[Path], os.statvfs_result]:
    return lambda path: spaces[str(path)]


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTINFO)
    block = tmp_path / "sys/dev/block/259:5"
    block.mkdir(parents=True)
    (block / "stat").write_text(NVME_STAT)
    return Roots(proc=tmp_path / "proc", sys=tmp_path / "sys")


NVME = os.makedev(259, 5)
TMPFS = os.makedev(0, 25)


def by_path(samples: list[Sample]) -> dict[str, Sample]:
    return {dict(sample.tags)["path"]: sample for sample in samples}


def make(roots: Roots, *paths: str, devices: dict[str, int]) -> TempdiskProbe:
    spaces = {path: space(1000, 400, 350, 500, 100) for path in devices}
    spaces["/tmp"] = space(10, 10, 10)
    context = Context(roots=roots, tempdisk_paths=tuple(map(Path, paths)))
    return TempdiskProbe(context, statvfs=statvfs_of(spaces), stat=stat_of(devices))


def test_sizes_inodes_and_bytes_of_the_partition(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    probe = make(roots, "/local/scr atch", devices={"/local/scr atch": NVME, "/tmp": TMPFS})
    samples = by_path(list(probe.sample()))
    assert dict(samples["/local/scr atch"].tags)["type"] == "ext4"
    assert samples["/local/scr atch"].fields == {
        "total_bytes": 1000 * 4096.0,
        "used_bytes": 600 * 4096.0,
        "available_bytes": 350 * 4096.0,
        "inodes_total": 500.0,
        "inodes_used_total": 400.0,
        "read_bytes": 2048 * 512.0,
        "write_bytes": 8192 * 512.0,
    }
    assert dict(samples["/tmp"].tags)["type"] == "tmpfs"
    assert samples["/tmp"].fields.keys() == {"total_bytes", "used_bytes", "available_bytes"}


@pytest.mark.parametrize(
    ("configured", "own", "named"),
    [
        (["/a"], "/b", ["/a"]),
        ([], "/b", ["/b"]),
        ([], None, ["/tmp"]),
        (["/a", "/b"], "/b", ["/a"]),
    ],
)
def test_one_file_system_is_given_once_under_its_first_path(
    roots: Roots,
    monkeypatch: pytest.MonkeyPatch,
    configured: list[str],
    own: str | None,
    named: list[str],
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    if own:
        monkeypatch.setenv("TMPDIR", own)
    probe = make(roots, *configured, devices={"/a": NVME, "/b": NVME, "/tmp": NVME})
    assert list(by_path(list(probe.sample()))) == named


def test_a_disk_mounted_later_is_found_and_a_missing_one_is_told(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    devices = {"/tmp": TMPFS}
    probe = make(roots, "/nowhere/scratch", devices=devices)
    assert list(by_path(list(probe.sample()))) == ["/tmp"]
    assert any("/nowhere/scratch" in line for line in probe.limits())


def test_nothing_to_read_is_unavailable(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    with pytest.raises(ProbeUnavailable, match="/tmp"):
        TempdiskProbe(Context(roots=roots), stat=stat_of({}))


def test_a_dead_file_system_does_not_hide_the_others(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statvfs(path: Path) -> os.statvfs_result:
        if path == Path("/tmp"):
            raise OSError(5, "Input/output error")
        return space(10, 5, 5)

    monkeypatch.delenv("TMPDIR", raising=False)
    stat = stat_of({"/a": NVME, "/tmp": TMPFS})
    context = Context(roots=roots, tempdisk_paths=(Path("/a"),))
    samples = TempdiskProbe(context, statvfs=statvfs, stat=stat).sample()
    assert list(by_path(list(samples))) == ["/a"]


def test_a_real_folder_agrees_with_statvfs_and_its_device_counts_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    probe = TempdiskProbe(Context())
    before = by_path(list(probe.sample()))[str(tmp_path)].fields
    with (tmp_path / "filler").open("wb") as file:
        file.write(os.urandom(32 << 20))
        file.flush()
        os.fsync(file.fileno())
    after = by_path(list(probe.sample()))[str(tmp_path)].fields
    real = os.statvfs(tmp_path)
    assert after["total_bytes"] == float(real.f_blocks * real.f_frsize)
    used = (real.f_blocks - real.f_bfree) * real.f_frsize
    assert after["used_bytes"] == pytest.approx(used, rel=0.05)  # others write here as well
    written, written_before = after.get("write_bytes", 0.0), before.get("write_bytes", 0.0)
    assert isinstance(written, float)
    assert isinstance(written_before, float)
    assert "write_bytes" not in after or written - written_before >= 32 << 20


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")
def test_a_real_tmpfs_has_no_block_device() -> None:
    probe = TempdiskProbe(Context(tempdisk_paths=(Path("/dev/shm"),)))
    sample = by_path(list(probe.sample()))["/dev/shm"]
    assert dict(sample.tags)["type"] == "tmpfs"
    assert "write_bytes" not in sample.fields
    assert sample.fields["total_bytes"] == float(
        os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    )


@given(st.binary(max_size=120))
def test_any_bytes_are_no_block_statistics_or_not_negative(text: bytes) -> None:
    assert all(isinstance(value, float) and value >= 0 for value in parse_block_stat(text).values())


@pytest.mark.parametrize("text", [b"", b"1 2 3", b"a b c d e f g h i j k", b"-1 " * 11])
def test_broken_block_statistics_are_left_out(text: bytes) -> None:
    assert parse_block_stat(text) == {}

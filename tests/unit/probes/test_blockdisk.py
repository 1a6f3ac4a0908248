from pathlib import Path

import pytest

from probes.blockdisk import BlockdiskProbe, is_whole, parse_diskstats
from probes.probe import ProbeUnavailable
from tests.unit.probes.files import BareMachine

OLD = " 8 0 sda 10 1 20 3000 40 5 60 7000 8 9000 10\n"
NEW = " 259 0 nvme0n1 1 0 2 0 3 0 4 0 0 0 0 5 0 6 0\n"


def test_sectors_are_512_bytes_and_times_milliseconds() -> None:
    assert parse_diskstats(OLD.encode()) == {
        "sda": {
            "reads_total": 10,
            "read_bytes": 10240,
            "read_seconds": 3.0,
            "writes_total": 40,
            "write_bytes": 30720,
            "write_seconds": 7.0,
            "in_flight_total": 8,
            "busy_seconds": 9.0,
        }
    }
    assert parse_diskstats(NEW.encode())["nvme0n1"]["discard_bytes"] == 3072


@pytest.mark.parametrize("name", ["loop0", "ram1", "zram0", "sr0", "fd0", "dm-3", "md127", "drbd0"])
def test_devices_that_lie_on_others_are_left_out(name: str) -> None:
    assert parse_diskstats(OLD.replace("sda", name).encode()) == {}


@pytest.mark.parametrize("line", [OLD[:-1], " 8 0 sda 1 2 3\n", OLD.replace("20", "-20"), "\n"])
def test_malformed_lines_are_left_out(line: str) -> None:
    assert parse_diskstats(line.encode()) == {}


def test_whole_devices(tmp_path: Path) -> None:
    for name, hidden in (("sda", None), ("cciss!c0d0", None), ("nvme0n1", "0"), ("nvme0c0n1", "1")):
        (tmp_path / name).mkdir()
        if hidden:
            (tmp_path / name / "hidden").write_text(f"{hidden}\n")
    assert is_whole(tmp_path, "sda")
    assert is_whole(tmp_path, "cciss/c0d0")
    assert is_whole(tmp_path, "nvme0n1")
    assert not is_whole(tmp_path, "sda1")
    assert not is_whole(tmp_path, "nvme0c0n1")
    assert not is_whole(tmp_path, "sda\0")


def test_a_device_that_never_did_anything_is_left_out(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    machine.write("proc/diskstats", OLD + " 8 16 sdb 0 0 0 0 0 0 0 0 0 0 0\n")
    machine.write("sys/block/sda/hidden", "0\n")
    machine.write("sys/block/sdb/hidden", "0\n")
    probe = BlockdiskProbe(machine.context)
    assert [sample.tags for sample in probe.sample()] == [(("device", "sda"),)]
    probe.close()


def test_absent_source(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match="absent"):
        BlockdiskProbe(BareMachine(tmp_path).context)

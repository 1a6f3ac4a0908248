import os
from pathlib import Path

import pytest

from probes.memory import MemoryProbe, memory_fields, parse_meminfo, parse_vmstat
from probes.probe import ProbeUnavailable
from tests.unit.probes.files import BareMachine

MIB = 1024 * 1024
MEMINFO = """\
MemTotal:           8192 kB
MemFree:            1024 kB
MemAvailable:       3072 kB
SwapTotal:          2048 kB
SwapFree:            512 kB
HugePages_Total:       7
"""


def test_sizes_are_in_bytes_and_used_is_what_is_not_available() -> None:
    assert memory_fields(parse_meminfo(MEMINFO.encode())) == {
        "total_bytes": 8 * MIB,
        "free_bytes": 1 * MIB,
        "available_bytes": 3 * MIB,
        "used_bytes": 5 * MIB,
        "swap_total_bytes": 2 * MIB,
        "swap_used_bytes": 1.5 * MIB,
    }


def test_old_kernels_tell_neither_available_nor_used() -> None:
    old = "".join(line for line in MEMINFO.splitlines(True) if "MemAvailable" not in line)
    fields = memory_fields(parse_meminfo(old.encode()))
    assert "available_bytes" not in fields
    assert "used_bytes" not in fields
    assert fields["total_bytes"] == 8 * MIB


def test_a_part_above_its_whole_gives_no_use() -> None:
    fields = memory_fields({"total_bytes": 10.0, "available_bytes": 11.0})
    assert fields == {"total_bytes": 10.0, "available_bytes": 11.0}


@pytest.mark.parametrize("line", ["MemTotal: 12", "MemTotal: -1 kB", "MemTotal: x kB", "MemTotal"])
def test_malformed_lines_are_left_out(line: str) -> None:
    assert parse_meminfo(f"{line}\n".encode()) == {}


def test_swapped_pages_become_bytes() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    vmstat = b"nr_free_pages 9\npswpin 2\npswpout 3\npgmajfault 40\noom_kill 1\n"
    assert parse_vmstat(vmstat) == {
        "swap_in_bytes": 2 * page,
        "swap_out_bytes": 3 * page,
        "major_faults_total": 40,
        "oom_kills_total": 1,
    }


def test_a_vmstat_line_that_was_cut_off_is_left_out() -> None:
    assert parse_vmstat(b"nr_free_pages 9\npgmajfault 40\noom_kill 1") == {"major_faults_total": 40}


def test_vmstat_may_be_absent(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    with pytest.raises(ProbeUnavailable):
        MemoryProbe(machine.context)
    machine.write("proc/meminfo", MEMINFO)
    probe = MemoryProbe(machine.context)
    (sample,) = probe.sample()
    probe.close()
    assert sample.fields["used_bytes"] == 5 * MIB
    assert "oom_kills_total" not in sample.fields

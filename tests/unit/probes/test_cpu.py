from pathlib import Path

import pytest

from probes.cpu import CpuProbe, Stat, parse_loadavg, parse_stat, ratios
from probes.parsing import KeptFile
from probes.probe import ProbeUnavailable
from tests.unit.probes.files import BareMachine

STAT = """\
cpu  300 0 100 1500 100 0 0 0 250 0
cpu0 200 0 50 700 50 0 0 0 200 0
cpu1 100 0 50 800 50 0 0 0 50 0
intr 5 0 1
ctxt 77
processes 12
procs_running 2
procs_blocked 1
"""
LATER = """\
cpu  390 0 110 1550 150 0 0 0 330 0
cpu0 290 0 60 700 50 0 0 0 280 0
cpu1 100 0 50 850 100 0 0 0 50 0
intr 5 0 1
ctxt 99
processes 13
procs_running 1
procs_blocked 0
"""


def test_stat_is_in_ticks_and_guests_are_within_user() -> None:
    stat = parse_stat(STAT.encode())
    assert stat.node == [300, 0, 100, 1500, 100, 0, 0, 0]
    assert set(stat.cpus) == {b"cpu0", b"cpu1"}
    assert stat.totals == {
        "context_switches_total": 77,
        "forks_total": 12,
        "running_total": 2,
        "blocked_total": 1,
    }


def test_ratios_are_of_the_time_passed() -> None:
    # of 200 ticks, 90 + 10 were busy, 50 idle and 50 waiting; cpu0 was busy all the time
    assert ratios(parse_stat(STAT.encode()), parse_stat(LATER.encode())) == {
        "utilization_ratio": 0.5,
        "iowait_ratio": 0.25,
        "busiest_core_ratio": 1.0,
    }


def test_iowait_that_goes_backwards_counts_as_none() -> None:
    before = Stat([0, 0, 0, 100, 50, 0, 0, 0], {}, {})
    now = Stat([30, 0, 0, 170, 40, 0, 0, 0], {}, {})
    assert ratios(before, now) == {"utilization_ratio": 0.3, "iowait_ratio": 0.0}


def test_no_time_passed_gives_no_ratio() -> None:
    stat = parse_stat(STAT.encode())
    assert ratios(stat, stat) == {}


def test_a_cpu_that_appears_has_no_ratio_yet() -> None:
    before = Stat(None, {b"cpu0": [0, 0, 0, 0, 0, 0, 0, 0]}, {})
    now = Stat(None, {b"cpu0": [10, 0, 0, 30, 0, 0, 0, 0], b"cpu1": [9, 0, 0, 0, 0, 0, 0, 0]}, {})
    assert ratios(before, now) == {"busiest_core_ratio": 0.25}


@pytest.mark.parametrize("line", ["cpu  1 2 3", "cpu  1 2 3 4 5 6 -7 8", "cpu", "cpu  a b c"])
def test_malformed_lines_are_left_out(line: str) -> None:
    assert parse_stat(f"{line}\nctxt -3\n".encode()) == Stat(None, {}, {})


@pytest.mark.parametrize(
    "line",
    [
        "cpu  0 100 1500 100 0 0 0 250 0",  # a number and its space are not there
        "cpu  300 0  1500 100 0 0 0 250 0",  # a number is not there
        "cpu  300 0 1 00 1500 100 0 0 0 250 0",  # a space within a number
        "cpu  300 0 100 1500 100 0 0 0",  # the last two are not there
    ],
)
def test_a_line_that_is_unlike_the_others_is_not_read_with_shifted_columns(line: str) -> None:
    stat = parse_stat(STAT.replace("cpu  300 0 100 1500 100 0 0 0 250 0", line).encode())
    assert stat.node is None
    assert stat.cpus == parse_stat(STAT.encode()).cpus


def test_of_two_lines_that_differ_neither_is_believed() -> None:
    assert parse_stat(b"cpu  1 2 3 4 5 6 7 8 9\ncpu0 1 2 3 4 5 6 7 8 9 10\n") == Stat(None, {}, {})


@pytest.mark.parametrize("columns", [8, 9, 10, 11])
def test_a_kernel_may_write_fewer_columns_or_more(columns: int) -> None:
    words = " ".join(str(number) for number in range(1, columns + 1))
    stat = parse_stat(f"cpu  {words}\ncpu0 {words}\n".encode())
    assert stat == Stat([1, 2, 3, 4, 5, 6, 7, 8], {b"cpu0": [1, 2, 3, 4, 5, 6, 7, 8]}, {})


def test_loads_that_are_no_numbers_are_left_out() -> None:
    assert parse_loadavg(b"0.50 nan 2.00 1/2 3\n") == {"load_1m_load": 0.5, "load_15m_load": 2.0}
    assert parse_loadavg(b"") == {}
    assert parse_loadavg(b"0.50 12") == {}


def test_cpus_are_not_counted_in_a_file_that_was_cut_off(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    machine.write("proc/stat", STAT[: STAT.index("cpu1")])
    (sample,) = CpuProbe(machine.context).sample()
    assert "cpus_total" not in sample.fields
    assert sample.fields["user_seconds"] == 3.0


def test_first_sample_has_no_ratio_and_the_clock_is_refreshed_every_ten_seconds(
    tmp_path: Path,
) -> None:
    machine = BareMachine(tmp_path)
    machine.write("proc/stat", STAT)
    machine.write("proc/cpuinfo", "processor : 0\ncpu MHz\t\t: 2000.5\ncpu MHz\t\t: 3000.5\n")
    probe = CpuProbe(machine.context)
    assert not any(name.endswith("_ratio") for name in probe.sample()[0].fields)
    machine.write("proc/cpuinfo", "cpu MHz\t\t: 1000.0\n")
    machine.clock.now = 9.9
    assert probe.sample()[0].fields["frequency_hertz"] == 2_500_500_000.0
    machine.clock.now = 10.0
    assert probe.sample()[0].fields["frequency_hertz"] == 1e9
    probe.close()


def test_absent_source(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match="stat is absent"):
        CpuProbe(BareMachine(tmp_path).context)


def test_this_machine() -> None:
    stat = KeptFile(Path("/proc/stat"))
    parsed = parse_stat(stat.read())
    stat.close()
    assert parsed.node
    assert len(parsed.cpus) >= 1
    assert set(parsed.totals) >= {"context_switches_total", "forks_total"}

from pathlib import Path

import pytest

from probes.pressure import PressureProbe, parse_pressure
from probes.probe import ProbeUnavailable
from tests.unit.probes.files import BareMachine

IO = """\
some avg10=12.50 avg60=1.30 avg300=0.62 total=5010222
full avg10=0.83 avg60=1.24 avg300=0.58 total=4608429
"""


def test_microseconds_become_seconds_and_percent_ratios() -> None:
    assert parse_pressure(IO.encode()) == {
        "some": (5.010222, 0.125),
        "full": (4.608429, pytest.approx(0.0083)),
    }


@pytest.mark.parametrize(
    "line",
    [
        "some avg10=100.01 total=5",
        "some avg10=-1.00 total=5",
        "some avg10=1.00 total=",
        "some avg10=1.00",
        "some",
        "",
    ],
)
def test_malformed_lines_are_left_out(line: str) -> None:
    assert parse_pressure(f"{line}\n".encode()) == {}


def test_only_what_is_there_is_told(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    machine.write("proc/pressure/io", IO)
    machine.write("proc/pressure/irq", IO)
    (tmp_path / "proc/pressure/cpu").mkdir()  # opens, and cannot be read: as when it is off
    probe = PressureProbe(machine.context)
    (sample,) = probe.sample()
    probe.close()
    assert set(sample.fields) == {
        *("io_some_seconds", "io_some_ratio", "io_full_seconds", "io_full_ratio"),
        *("irq_full_seconds", "irq_full_ratio"),
    }


def test_off_or_too_old(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match=r"older than 4\.20.*psi=1"):
        PressureProbe(BareMachine(tmp_path).context)

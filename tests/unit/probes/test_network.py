from pathlib import Path

import pytest

from probes.network import NetworkProbe, choose_interfaces, parse_net_dev
from probes.probe import ProbeUnavailable
from tests.unit.probes.files import BareMachine

HEADER = "Inter-| Receive | Transmit\n face |bytes packets | bytes packets\n"
ETH0 = " eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"


def test_columns() -> None:
    assert parse_net_dev((HEADER + ETH0).encode()) == {
        "eth0": {
            "receive_bytes": 1,
            "receive_packets_total": 2,
            "receive_errors_total": 3,
            "receive_drops_total": 4,
            "transmit_bytes": 9,
            "transmit_packets_total": 10,
            "transmit_errors_total": 11,
            "transmit_drops_total": 12,
        }
    }


@pytest.mark.parametrize("line", ["eth0: 1 2 3", "eth0: " + "-1 " * 16, "eth0 1", "", "\0: x"])
def test_malformed_lines_are_left_out(line: str) -> None:
    assert parse_net_dev(f"{HEADER}{line}\n".encode()) == {}


def folder_of(tmp_path: Path, devices: str) -> Path:
    for name in devices.split():
        (tmp_path / name / "device").mkdir(parents=True)
    return tmp_path


def test_a_bond_is_told_by_its_ports(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "eth0 eth1")
    (folder / "eth0/master").symlink_to("../bond0")
    names = ["lo", "bond0", "eth0", "eth1", "br0", "docker0", "veth12"]
    assert choose_interfaces(folder, names) == {"lo", "eth0", "eth1"}


def test_a_virtual_function_is_told_by_its_synthetic_master(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "eth0 enP1s1")
    (folder / "enP1s1/master").symlink_to("../eth0")
    assert choose_interfaces(folder, ["eth0", "enP1s1"]) == {"eth0"}


def test_without_devices_all_but_helpers_are_told(tmp_path: Path) -> None:
    names = ["lo", "eth0", "veth1", "docker0", "cali9", "virbr0", "ifb0"]
    assert choose_interfaces(tmp_path, names) == {"lo", "eth0"}


def write_link(machine: BareMachine, speed: str, operstate: str, line: str) -> None:
    machine.write("proc/net/dev", HEADER + line)
    machine.write("sys/class/net/eth0/device/vendor", "0x15b3\n")
    machine.write("sys/class/net/eth0/speed", speed)
    machine.write("sys/class/net/eth0/operstate", operstate)


def test_speed_is_refreshed_every_minute(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_link(machine, "1000\n", "up\n", ETH0)
    probe = NetworkProbe(machine.context)
    assert probe.sample()[0].fields["speed_bits_per_second"] == 1e9
    machine.write("sys/class/net/eth0/speed", "-1\n")
    machine.clock.now = 59.0
    assert probe.sample()[0].fields["speed_bits_per_second"] == 1e9
    machine.clock.now = 60.0
    assert "speed_bits_per_second" not in probe.sample()[0].fields
    probe.close()


def test_unused_interfaces_that_are_down_are_left_out(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_link(machine, "-1\n", "down\n", " eth0: " + "0 " * 16 + "\n")
    probe = NetworkProbe(machine.context)
    assert probe.sample() == []
    machine.write("proc/net/dev", HEADER + ETH0)
    assert len(probe.sample()) == 1
    probe.close()


def test_an_interface_that_comes_is_found(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_link(machine, "1000\n", "up\n", ETH0)
    probe = NetworkProbe(machine.context)
    probe.sample()
    machine.write("sys/class/net/ib0/device/vendor", "0x15b3\n")
    machine.write("proc/net/dev", HEADER + ETH0 + ETH0.replace("eth0", "ib0"))
    assert [dict(sample.tags)["interface"] for sample in probe.sample()] == ["eth0", "ib0"]
    probe.close()


def test_absent_source(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match="absent"):
        NetworkProbe(BareMachine(tmp_path).context)

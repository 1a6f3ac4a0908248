from pathlib import Path

import pytest

from probes.power import EnergyMeter, PowerProbe, find_sensors, zone_domain
from probes.probe import ProbeUnavailable
from tests.unit.probes.files import BareMachine


def write_zone(machine: BareMachine, zone: str, name: str, microjoules: int) -> None:
    folder = f"sys/class/powercap/{zone}"
    machine.write(f"{folder}/name", f"{name}\n")
    machine.write(f"{folder}/max_energy_range_uj", "1000000000\n")
    machine.write(f"{folder}/energy_uj", f"{microjoules}\n")


def test_energy_grows_over_the_counters_wrap() -> None:
    meter = EnergyMeter(most=1000e6)
    assert meter.update(900e6, 0.0) == {"energy_joules": 0.0}
    assert meter.update(950e6, 10.0) == {"energy_joules": 50.0, "power_watts": 5.0}
    assert meter.update(20e6, 20.0) == {"energy_joules": 120.0, "power_watts": 7.0}


def test_a_reading_above_the_range_is_passed_over() -> None:
    meter = EnergyMeter(most=1000e6)
    meter.update(100e6, 0.0)
    assert meter.update(5000e6, 10.0) == {}
    assert meter.update(300e6, 20.0) == {"energy_joules": 200.0, "power_watts": 10.0}


def test_no_time_passed_gives_no_power() -> None:
    meter = EnergyMeter(most=1000e6)
    meter.update(100e6, 1.0)
    assert meter.update(101e6, 1.0) == {"energy_joules": 1.0}


def test_children_are_named_after_their_package() -> None:
    assert zone_domain("dram", "package-1") == "dram-1"
    assert zone_domain("core", "package-1-die-0") == "core-1-die-0"
    assert zone_domain("package-0", "") == "package-0"
    assert zone_domain("psys", "") == "psys"


def test_unreadable_domains_are_limits_with_a_remedy(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_zone(machine, "intel-rapl:0", "package-0", 5)
    write_zone(machine, "intel-rapl:1", "psys", 5)
    unreadable = tmp_path / "sys/class/powercap/intel-rapl:1/energy_uj"
    unreadable.unlink()
    unreadable.mkdir()  # cannot be read by anyone, root included
    probe = PowerProbe(machine.context)
    assert [dict(sample.tags)["domain"] for sample in probe.sample()] == ["package-0"]
    (limit,) = probe.limits()
    probe.close()
    assert limit.startswith("psys: ")
    assert "CAP_DAC_READ_SEARCH" in limit
    assert "tmpfiles.d" in limit


def test_nothing_readable_names_the_remedy(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_zone(machine, "intel-rapl:0", "package-0", 5)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    with pytest.raises(ProbeUnavailable, match=r"package-0: .*CAP_DAC_READ_SEARCH"):
        PowerProbe(machine.context)


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match="neither RAPL counters nor a power meter"):
        PowerProbe(BareMachine(tmp_path).context)


def test_one_domain_is_told_once(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_zone(machine, "intel-rapl:0", "package-0", 5)
    write_zone(machine, "intel-rapl-mmio:0", "package-0", 7)
    for hwmon in ("hwmon3", "hwmon4"):
        machine.write(f"sys/class/hwmon/{hwmon}/name", "power_meter\n")
        machine.write(f"sys/class/hwmon/{hwmon}/power1_average", "300000000\n")
    probe = PowerProbe(machine.context)
    samples = {dict(sample.tags)["domain"]: sample.fields for sample in probe.sample()}
    probe.close()
    assert samples == {"package-0": {"energy_joules": 0.0}, "node": {"power_watts": 300.0}}


def test_sensors_of_parts_are_not_the_nodes(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    for number, driver in enumerate(("amdgpu", "nouveau", "BAT0", "nvme")):
        machine.write(f"sys/class/hwmon/hwmon{number}/name", f"{driver}\n")
        machine.write(f"sys/class/hwmon/hwmon{number}/power1_average", "1000000\n")
    assert list(find_sensors(tmp_path / "sys/class/hwmon")) == []


def test_labelled_meters(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    hwmon = "sys/class/hwmon"
    machine.write(f"{hwmon}/hwmon0/name", "ibmpowernv\n")
    machine.write(f"{hwmon}/hwmon0/power1_input", "1000000\n")
    machine.write(f"{hwmon}/hwmon0/power1_label", "System\n")
    machine.write(f"{hwmon}/hwmon0/power2_input", "1000000\n")
    machine.write(f"{hwmon}/hwmon1/device/name", "power_meter\n")
    machine.write(f"{hwmon}/hwmon1/device/power1_average", "1000000\n")
    machine.write(f"{hwmon}/hwmon1/device/power1_oem_info", "Grace Power Socket 1\n")
    domains = [domain for domain, _ in find_sensors(tmp_path / hwmon)]
    assert domains == ["ibmpowernv-System", "ibmpowernv-power2", "grace-1"]


def test_a_sensor_that_stops_answering_is_left_out(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    write_zone(machine, "intel-rapl:0", "package-0", 5)
    machine.write("sys/class/hwmon/hwmon0/name", "power_meter\n")
    machine.write("sys/class/hwmon/hwmon0/power1_average", "1000000\n")
    probe = PowerProbe(machine.context)
    machine.write("sys/class/hwmon/hwmon0/power1_average", "garbage\n")
    assert [dict(sample.tags)["domain"] for sample in probe.sample()] == ["package-0"]
    probe.close()

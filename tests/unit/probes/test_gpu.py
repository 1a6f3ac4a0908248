"""The GPU probe through the real binding, against traces that the replay library plays.

Expected numbers are worked out here from the rows of the traces, by their units.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pynvml
import pytest

from probes.catalogue import GPU, Kind
from probes.probe import ProbeUnavailable
from tests.golden.test_golden import lines
from tests.nvml.build import HERE, TRACES, environment
from tests.nvml.replay import StartReplay
from tests.weather import PATIENCE

pytestmark = pytest.mark.cc

GIBI = 2.0**30
MEBI = 2.0**20


def write_trace(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_field_of_a_gauge_or_counter_in_its_unit(replay: StartReplay) -> None:
    fields = replay("two_h100.csv").at(0)["0"]
    assert fields == {
        "utilization_ratio": 1.0,
        "memory_utilization_ratio": 0.41,
        "memory_used_bytes": 61440 * MEBI,
        "memory_total_bytes": 81559 * MEBI,
        "power_watts": 690.0,
        "power_limit_watts": 700.0,
        "energy_joules": 1_000_000.0,
        "temperature_celsius": 66.0,
        "memory_temperature_celsius": 78.0,
        "sm_clock_hertz": 1.62e9,
        "sm_clock_limit_hertz": 1.98e9,
        "memory_clock_hertz": 2.619e9,
        "throttle_power_cap_seconds": 2.0,
        "throttle_sync_boost_seconds": 0.0,
        "throttle_software_thermal_seconds": 0.0,
        "throttle_hardware_thermal_seconds": 0.0,
        "throttle_power_brake_seconds": 0.0,
        "throttled_state": 1.0,
        "processes_total": 1.0,
        "ecc_corrected_total": 2.0,
        "ecc_uncorrected_total": 0.0,
        "remapped_rows_total": 1.0,
        "remap_pending_state": 0.0,
        "xid_errors_total": 0.0,
        "pcie_replays_total": 3.0,
        "nvlink_transmit_bytes": 400_000_000 * 1024.0,
        "nvlink_receive_bytes": 410_000_000 * 1024.0,
        "source": "gpm",
    }


def test_tags_name_the_gpu(replay: StartReplay) -> None:
    (first, second) = replay("two_h100.csv").probe.sample()
    assert (first.measurement, second.measurement) == ("gpu", "gpu")
    assert dict(first.tags) == {
        "gpu": "0",
        "uuid": "GPU-11111111-0000-0000-0000-000000000000",
        "model": "NVIDIA H100 80GB HBM3",
    }
    assert dict(second.tags)["gpu"] == "1"
    assert list(first.tags) == sorted(first.tags)


def test_all_and_only_the_fields_of_the_catalogue(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv")
    h100.at(0)
    fields = h100.at(10)["0"]
    assert set(fields) == set(GPU.fields)
    for name, value in fields.items():
        if GPU.fields[name].kind is Kind.TEXT:
            assert isinstance(value, str)
        else:
            assert type(value) is float
            assert GPU.fields[name].low <= value <= GPU.fields[name].high, name


def test_gpm_is_the_exact_mean_over_an_interval_across_rows(replay: StartReplay) -> None:
    # prefill until 10 s, decode until 20 s: from 4 s to 13 s, 6 s of one and 3 s of the other
    h100 = replay("two_h100.csv")
    h100.at(4)
    fields = h100.at(13)["0"]
    assert fields["tensor_active_ratio"] == pytest.approx((6 * 0.835 + 3 * 0.045) / 9)
    assert fields["hmma_active_ratio"] == pytest.approx((6 * 0.835 + 3 * 0.045) / 9)
    assert fields["dram_active_ratio"] == pytest.approx((6 * 0.36 + 3 * 0.79) / 9)
    assert fields["sm_active_ratio"] == pytest.approx((6 * 0.965 + 3 * 0.91) / 9)
    assert fields["sm_occupancy_ratio"] == pytest.approx((6 * 0.24 + 3 * 0.31) / 9)
    assert fields["graphics_active_ratio"] == pytest.approx((6 * 0.992 + 3 * 0.978) / 9)
    assert fields["integer_active_ratio"] == pytest.approx((6 * 0.11 + 3 * 0.17) / 9)
    assert fields["fp32_active_ratio"] == pytest.approx((6 * 0.09 + 3 * 0.14) / 9)
    assert fields["fp16_active_ratio"] == pytest.approx((6 * 0.02 + 3 * 0.06) / 9)
    # the trace moves 2 GiB/s and 128 MiB/s to the GPU, 4 (receiving 3) and 1 over NVLink
    assert fields["pcie_receive_bytes_per_second"] == pytest.approx((6 * 2 + 3 / 8) / 9 * GIBI)
    assert fields["nvlink_transmit_bytes_per_second"] == pytest.approx((6 * 4 + 3) / 9 * GIBI)
    assert fields["nvlink_receive_bytes_per_second"] == pytest.approx((6 * 3 + 3) / 9 * GIBI)


@pytest.mark.parametrize("trace", ["two_h100", "four_a100", "failing", "mig_h100"])
def test_second_sample_as_line_protocol(replay: StartReplay, trace: str) -> None:
    one = replay(f"{trace}.csv")
    one.at(0)
    one.move_to(10)
    now = lines(one.probe.sample(), machine=trace)
    expected = HERE / "expected" / f"{trace}.lp"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(now)
    assert now == expected.read_text()


def test_pcie_bytes_add_up_from_gpm(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv")
    assert "pcie_receive_bytes" not in h100.at(0)["0"]
    first, second = h100.at(7)["0"], h100.at(15)["0"]
    assert first["pcie_receive_bytes"] == pytest.approx(7 * 2 * GIBI)
    assert second["pcie_receive_bytes"] == pytest.approx((10 * 2 + 5 / 8) * GIBI)
    assert second["pcie_transmit_bytes"] == pytest.approx((10 / 4 + 5 / 16) * GIBI)


def test_gpm_waits_a_tenth_of_a_second_and_loses_nothing(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv")
    h100.at(9)
    early = h100.at(9.05)["0"]
    assert "tensor_active_ratio" not in early
    assert early["source"] == "gpm"
    later = h100.at(11)["0"]
    assert later["tensor_active_ratio"] == pytest.approx((0.835 + 0.045) / 2)


def test_energy_is_exact_at_any_time_and_grows_over_loops(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv", loop="1")
    start = 1_000_000.0
    assert h100.at(12.5)["0"]["energy_joules"] == pytest.approx(start + 10 * 690 + 2.5 * 410)
    # one loop of 60 s: three times 10 s of prefill and 10 s of decode
    loop = 3 * 10 * (690 + 410)
    assert h100.at(72.5)["0"]["energy_joules"] == pytest.approx(start + loop + 10 * 690 + 2.5 * 410)
    assert h100.at(72.5)["0"]["power_watts"] == 410.0
    across = h100.at(122)["0"]  # 49.5 s, of which prefill 20-30, 40-50 and 60-62 of the loop
    assert across["tensor_active_ratio"] == pytest.approx((22 * 0.835 + 27.5 * 0.045) / 49.5)


def test_counters_that_are_missing_are_integrated_from_the_reasons(replay: StartReplay) -> None:
    a100 = replay("four_a100.csv")
    assert a100.at(0)["0"]["throttle_software_thermal_seconds"] == 0.0
    a100.at(29)  # power cap by counter: 1 s per second until 30 s; hot from 30 s on
    for second in range(31, 42):
        a100.probe.freshen()
        hot, idle = (a100.at(second)[gpu] for gpu in "02")
    assert hot["throttle_power_cap_seconds"] == pytest.approx(30.0)
    assert hot["throttle_software_thermal_seconds"] == pytest.approx(2.0 + 10.0)
    assert hot["throttle_hardware_thermal_seconds"] == pytest.approx(2.0 + 10.0)
    assert hot["throttle_power_brake_seconds"] == 0.0
    assert hot["throttled_state"] == 1.0
    assert idle["throttled_state"] == 0.0  # idleness alone is no throttling
    assert idle["throttle_software_thermal_seconds"] == 0.0


REASONS = {
    0x04: "throttle_power_cap_seconds",
    0x10: "throttle_sync_boost_seconds",
    0x20: "throttle_software_thermal_seconds",
    0x40: "throttle_hardware_thermal_seconds",
    0x80: "throttle_power_brake_seconds",
}


@pytest.mark.parametrize("bit", [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x100])
def test_each_throttle_reason_by_its_bit(replay: StartReplay, tmp_path: Path, bit: int) -> None:
    one = replay(write_trace(tmp_path / "bit.csv", f"t_seconds,gpu,throttle_reasons\n0,0,{bit}\n"))
    one.at(1)
    fields = one.at(5)["0"]
    expected = {name: 5.0 if bit == reason else 0.0 for reason, name in REASONS.items()}
    assert {name: fields[name] for name in expected} == expected
    assert fields["throttled_state"] == (1.0 if bit in (*REASONS, 0x08) else 0.0)


def test_no_two_fields_are_mixed_up(replay: StartReplay, tmp_path: Path) -> None:
    throttles = [name.removesuffix("_seconds") for name in REASONS.values()]
    pipes = [
        "graphics",
        "sm",
        "occupancy",
        "integer",
        "tensor",
        "dfma",
        "hmma",
        "imma",
        "dram",
        "fp64",
        "fp32",
        "fp16",
    ]
    columns = [f"{name}_ns" for name in throttles] + [f"gpm_{name}_percent" for name in pipes]
    row = [str((i + 1) * 10**9) for i in range(5)] + [str(i + 1) for i in range(12)]
    header = ",".join(["t_seconds", "gpu", *columns])
    one = replay(write_trace(tmp_path / "all.csv", f"{header}\n0,0,{','.join(row)}\n"))
    fields = {**one.at(0)["0"], **one.at(1)["0"]}
    assert [fields[f"{name}_seconds"] for name in throttles] == [1.0, 2.0, 3.0, 4.0, 5.0]
    ratios = ["sm_occupancy_ratio" if n == "occupancy" else f"{n}_active_ratio" for n in pipes]
    assert [fields[name] for name in ratios] == [(i + 1) / 100 for i in range(12)]


def test_before_hopper_there_is_no_activity_and_it_is_said(replay: StartReplay) -> None:
    a100 = replay("four_a100.csv")
    a100.at(0)
    fields = a100.at(10)["0"]
    assert fields["source"] == "nvml"
    assert not [name for name in fields if name.endswith("_active_ratio")]
    assert "memory_temperature_celsius" not in fields
    assert "xid_errors_total" not in fields
    assert a100.probe.limits()[0] == (
        "GPU 0, 1, 2, 3 (NVIDIA A100-SXM4-80GB): no GPM counters before Hopper: "
        "pipe and DRAM activity need a DCGM exporter (probes.dcgm_url in the configuration)"
    )


def test_pcie_counters_are_told_only_where_no_wrap_can_hide(replay: StartReplay) -> None:
    a100 = replay("four_a100.csv")
    for seconds in (0, 10, 20, 35, 60):
        gpus = a100.at(seconds)
        assert gpus["2"]["pcie_receive_bytes"] == 7e9 + 2e8 * seconds
        assert gpus["2"]["pcie_transmit_bytes"] == 6e9 + 1e8 * seconds
        assert "pcie_receive_bytes" not in gpus["3"]  # 32 bits, and wrapped three times by now
    assert [line for line in a100.probe.limits() if "32 bits" in line and "GPU 3 " in line]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every field that NVML is asked for."""
    found: list[int] = []
    real = pynvml.nvmlDeviceGetFieldValues

    def note(handle: object, fields: list[tuple[int, int]]) -> object:
        found.extend(field for field, _ in fields)
        return real(handle, fields)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", note)
    return found


def test_a_call_that_is_not_supported_is_made_once(replay: StartReplay, asked: list[int]) -> None:
    a100 = replay("four_a100.csv")
    a100.at(0)
    first = {*asked}
    asked.clear()
    a100.at(10)
    assert first - {*asked} == {269, 270, 271, 82}


def test_counters_of_what_slows_a_gpu_are_told_now_and_then(
    replay: StartReplay, tmp_path: Path, asked: list[int]
) -> None:
    trace = """t_seconds,gpu,throttle_reasons,throttle_power_cap_ns,pcie_replays
0,0,0,1e9,3
1,0,4,2e9,4
4,0,0,5e9,7
12,0,0,6e9,8
"""
    one = replay(write_trace(tmp_path / "slowed.csv", trace))
    names = ("throttled_state", "throttle_power_cap_seconds", "pcie_replays_total")

    def seen(at: float) -> list[object]:
        fields = one.at(at)["0"]
        return [fields.get(name) for name in names]

    assert [seen(0), seen(1)] == [[0.0, 1.0, 3.0], [1.0, None, None]]
    assert asked.count(74) == asked.count(94) == 1
    one.probe.freshen()  # a job begins or ends
    assert [seen(4), seen(12)] == [[0.0, 5.0, 7.0], [0.0, None, None]]
    assert seen(13) == [0.0, 6.0, 8.0]


def test_a_lost_gpu_is_left_out_and_the_others_go_on(replay: StartReplay) -> None:
    failing = replay("failing.csv")
    assert set(failing.at(0)) == {"0", "1", "2"}
    assert failing.probe.limits() == ["GPU 3: does not answer: GPU is lost"]
    pids = {gpu.index: gpu.pids for gpu in failing.probe.seen}
    assert pids == {"0": (1000,), "1": (2000,), "2": (3000,), "3": None}
    assert set(failing.at(25)) == {"0", "2"}
    assert failing.probe.limits()[1] == (
        "GPU 1 (NVIDIA H100 PCIe): lost: it fell off the bus; reset it or restart the node"
    )
    assert failing.seen(25)["1"].pids is None


def test_a_passing_error_leaves_one_field_out_for_once(replay: StartReplay) -> None:
    failing = replay("failing.csv")
    assert failing.at(5)["2"]["power_watts"] == 300.0
    during = failing.at(12)["2"]
    assert "power_watts" not in during
    assert "energy_joules" not in during
    assert during["temperature_celsius"] == 50.0
    after = failing.at(22)["2"]
    assert (after["power_watts"], after["energy_joules"]) == (300.0, 6600.0)


def test_gpm_blanks_and_nonsense_are_left_out(replay: StartReplay) -> None:
    failing = replay("failing.csv")
    failing.at(0)
    rounded = failing.at(9)["0"]  # 100.3 %, NaN, 50 %
    assert rounded["sm_active_ratio"] == 1.0
    assert "tensor_active_ratio" not in rounded
    assert rounded["dram_active_ratio"] == 0.5
    failing.at(11)
    nonsense = failing.at(19)["0"]  # 100.6 %, -0.5 %, 50 %
    assert "sm_active_ratio" not in nonsense
    assert "tensor_active_ratio" not in nonsense
    failing.at(20)
    assert failing.at(30)["0"]["tensor_active_ratio"] == pytest.approx(0.30)


def test_xid_events_are_counted(replay: StartReplay) -> None:
    failing = replay("failing.csv")
    assert failing.at(0)["1"]["xid_errors_total"] == 0.0
    gpus = failing.at(10)
    assert gpus["1"]["xid_errors_total"] == 2.0
    assert gpus["0"]["xid_errors_total"] == 0.0
    assert gpus["1"]["remap_pending_state"] == 1.0
    assert gpus["1"]["remapped_rows_total"] == 1.0


def test_no_gpu_answering_is_an_error_and_a_gpu_may_come_back(
    replay: StartReplay, tmp_path: Path
) -> None:
    text = "t_seconds,gpu,power_mw\n0,0,1000\n10,0,lost\n20,0,2000\n"
    lonely = replay(write_trace(tmp_path / "lonely.csv", text))
    assert lonely.at(0)["0"]["power_watts"] == 1.0
    with pytest.raises(OSError, match="no GPU answers"):
        lonely.at(10)
    assert lonely.at(20)["0"]["power_watts"] == 2.0
    assert not [line for line in lonely.probe.limits() if "lost" in line]


def test_a_second_probe_starts_afresh_and_nothing_leaks(replay: StartReplay) -> None:
    held = []
    for _ in range(3):
        h100 = replay("two_h100.csv")
        for step in range(200):
            h100.at(step / 5)
        h100.close()
        gc.collect()
        held.append(len(gc.get_objects()))
        assert pynvml._nvmlLib_refcount == 0
    assert held[2] - held[1] < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t_seconds,gpu,watts\n0,0,1\n", ":1: unknown column 'watts'"),
        ("t_seconds,gpu,power_mw\n0,0,many\n", ":2: 'many' is not a number"),
        ("t_seconds,gpu,power_mw\n0,0\n", ":2: not as many cells as the header has"),
        ("t_seconds,gpu,power_mw\n5,0,1\n5,0,1\n", ":3: times of GPU 0 must grow"),
        ("# device 0 colour=red\n", ":1: unknown device option 'colour'"),
        ("", "no header"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(
    replay: StartReplay, tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    with pytest.raises(ProbeUnavailable, match="driver does not answer"):
        replay(write_trace(tmp_path / "bad.csv", text))
    assert message in capfd.readouterr().err


SAMPLE_ONCE = """
import sys
from probes.gpu import GpuProbe
from probes.probe import Context, ProbeUnavailable
try:
    probe = GpuProbe(Context())
except ProbeUnavailable as reason:
    print(reason, "pynvml" in sys.modules)
else:
    print(len(probe.sample()))
    probe.close()
"""


def run_python(code: str, settings: Mapping[str, str]) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        cwd=HERE.parents[1],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return finished.stdout.strip()


def test_a_new_process_finds_the_library_by_its_path() -> None:
    assert run_python(SAMPLE_ONCE, environment(TRACES / "four_a100.csv")) == "4"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a real driver")
def test_without_a_driver_the_binding_is_not_even_imported() -> None:
    without = run_python(SAMPLE_ONCE, {"LD_LIBRARY_PATH": ""})
    assert without == "no NVIDIA driver: libnvidia-ml.so.1 not found False"


COST = """
import time
from probes.gpu import GpuProbe
from probes.probe import Context
probe = GpuProbe(Context())
probe.sample()
spent = []
for _ in range(15):
    time.sleep(0.11)
    begin = time.process_time()
    samples = probe.sample()
    spent.append(time.process_time() - begin)
assert len(samples) == 8 and "tensor_active_ratio" in samples[7].fields
print(sorted(spent)[7])
"""


def test_eight_gpus_with_gpm_cost_less_than_the_agent_may(tmp_path: Path) -> None:
    lines = (TRACES / "two_h100.csv").read_text().splitlines()
    header = next(line for line in lines if line.startswith("t_seconds"))
    busy = [line.split(",", 2) for line in lines if line.split(",")[1:2] == ["0"]]
    rows = [f"{time},{gpu},{cells}" for time, _, cells in busy for gpu in range(8)]
    trace = write_trace(tmp_path / "eight.csv", "\n".join([header, *rows]))
    median = float(run_python(COST, environment(trace, loop="1")))
    print(f"8 GPUs with GPM: {median * 1e3:.2f} ms of CPU per sample")
    assert median < 4e-3

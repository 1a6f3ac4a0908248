import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.catalogue import INFINIBAND
from probes.infiniband import InfinibandProbe, parse_rate, parse_state
from probes.probe import Context, ProbeUnavailable
from probes.roots import Roots
from probes.sample import Value

FIXTURE = Path(__file__).parents[2] / "golden/machines/gpu_node"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE / "sys/class/infiniband", tmp_path / "sys/class/infiniband")
    return tmp_path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probe(machine: Path, clock: Clock) -> Iterator[InfinibandProbe]:
    probe = InfinibandProbe(context(machine, clock))
    yield probe
    probe.close()


def context(machine: Path, clock: Clock) -> Context:
    return Context(roots=Roots(sys=machine / "sys"), monotonic=clock)


def ports(probe: InfinibandProbe) -> dict[str, dict[str, Value]]:
    return {dict(sample.tags)["device"]: dict(sample.fields) for sample in probe.sample()}


def port_folder(machine: Path, device: str) -> Path:
    return machine / "sys/class/infiniband" / device / "ports/1"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_words_of_four_bytes_are_given_as_bytes(probe: InfinibandProbe) -> None:
    fields = ports(probe)["mlx5_0"]
    assert fields["receive_bytes"] == float(4 * 90071992547409930)
    assert fields["transmit_bytes"] == float(4 * 812345678901)
    assert fields["receive_packets_total"] == 350123456789.0


def test_every_field_is_in_the_catalogue_and_a_plausible_float(probe: InfinibandProbe) -> None:
    for fields in ports(probe).values():
        for name, value in fields.items():
            known = INFINIBAND.fields[name]
            if name != "link_layer":
                assert isinstance(value, float)
                assert known.low <= value <= known.high


def test_link_and_congestion_of_a_roce_port(probe: InfinibandProbe) -> None:
    fields = ports(probe)["mlx5_1"]
    assert fields["link_layer"] == "Ethernet"
    assert fields["rate_bits_per_second"] == 100e9
    assert fields["np_cnp_sent_total"] == 310.0
    assert fields["np_ecn_marked_total"] == 412.0


def test_soft_roce_has_no_counters_folder(machine: Path, probe: InfinibandProbe) -> None:
    assert not (port_folder(machine, "rxe0") / "counters").exists()
    assert ports(probe)["rxe0"] == {
        "link_layer": "Ethernet",
        "link_up_state": 1.0,
        "rate_bits_per_second": 2.5e9,
        "transmit_packets_total": 900.0,
        "receive_packets_total": 1000.0,
        "duplicate_requests_total": 1.0,
        "out_of_sequence_total": 2.0,
        "rnr_retries_total": 3.0,
        "retries_exceeded_total": 0.0,
        "send_errors_total": 0.0,
        "link_downed_total": 4.0,
        "rdma_sends_total": 40.0,
        "rdma_receives_total": 41.0,
    }


def test_omni_path_without_pma_leaves_fields_out(probe: InfinibandProbe) -> None:
    fields = ports(probe)["hfi1_0"]
    assert fields["receive_bytes"] == 4000.0
    assert fields["link_up_state"] == 0.0
    assert "symbol_errors_total" not in fields
    assert "vl15_dropped_total" not in fields


def test_counters_win_over_hardware_counters(machine: Path, clock: Clock) -> None:
    port = port_folder(machine, "rxe0")
    (port / "counters").mkdir()
    (port / "counters/port_rcv_packets").write_text("77\n")
    probe = InfinibandProbe(context(machine, clock))
    assert ports(probe)["rxe0"]["receive_packets_total"] == 77.0
    assert ports(probe)["rxe0"]["transmit_packets_total"] == 900.0
    probe.close()


def test_a_plugged_in_device_is_found_after_a_minute(
    machine: Path, clock: Clock, probe: InfinibandProbe
) -> None:
    devices = machine / "sys/class/infiniband"
    shutil.copytree(devices / "mlx5_0", devices / "mlx5_9")
    clock.now = 59.0
    assert "mlx5_9" not in ports(probe)
    clock.now = 60.0  # all tell everything, so that a sum over the ports is one of all
    seen = ports(probe)
    assert seen["mlx5_9"] == seen["mlx5_0"]
    assert "link_up_state" in seen["mlx5_9"]


def test_a_removed_device_is_forgotten_and_its_files_closed(
    machine: Path, clock: Clock, probe: InfinibandProbe
) -> None:
    probe.sample()
    open_before = open_files()
    shutil.rmtree(machine / "sys/class/infiniband/mlx5_0")
    clock.now = 60.0
    assert set(ports(probe)) == {"mlx5_1", "hfi1_0", "rxe0"}
    assert open_files() <= open_before - 30


def test_samples_do_not_leak_files(probe: InfinibandProbe) -> None:
    probe.sample()
    before = open_files()
    for _ in range(5):
        probe.sample()
    assert open_files() == before


def test_traffic_is_read_at_every_sample_and_errors_now_and_then(
    machine: Path, clock: Clock, probe: InfinibandProbe
) -> None:
    probe.sample()
    counters = port_folder(machine, "mlx5_0") / "counters"
    (counters / "port_xmit_data").write_text("250\n")
    (counters / "symbol_error").write_text("77\n")
    clock.now = 1.0
    soon = ports(probe)["mlx5_0"]
    assert soon["transmit_bytes"] == 1000.0
    assert soon.keys().isdisjoint(("symbol_errors_total", "link_up_state", "rate_bits_per_second"))
    clock.now = 10.0
    assert ports(probe)["mlx5_0"]["symbol_errors_total"] == 77.0


def test_errors_are_fresh_when_a_job_begins_or_ends(machine: Path, probe: InfinibandProbe) -> None:
    probe.sample()
    (port_folder(machine, "mlx5_0") / "counters/link_downed").write_text("3\n")
    probe.freshen()
    assert ports(probe)["mlx5_0"]["link_downed_total"] == 3.0


def test_a_port_that_is_gone_tells_nothing_from_memory(
    machine: Path, clock: Clock, probe: InfinibandProbe
) -> None:
    probe.sample()
    probe.close()  # as the kernel does with the open files of a device that went away
    shutil.rmtree(machine / "sys/class/infiniband/mlx5_0")
    clock.now = 1.0
    assert "mlx5_0" not in ports(probe)


def test_no_device_is_unavailable(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ProbeUnavailable, match="InfiniBand"):
        InfinibandProbe(context(tmp_path, clock))


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("100 Gb/sec (4X EDR)\n", 100e9),
        ("2.5 Gb/sec", 2.5e9),
        ("56 Gb/sec (4X FDR)", 56e9),
        ("", None),
        ("100", None),
        ("fast Gb/sec", None),
        ("-1 Gb/sec", None),
    ],
)
def test_rate(text: str, bits: float | None) -> None:
    assert parse_rate(text) == bits


@pytest.mark.parametrize(
    ("text", "up"),
    [
        (b"4: ACTIVE\n", 1.0),
        (b"1: DOWN\n", 0.0),
        (b"5: ACTIVE_DEFER\n", 0.0),
        (b"", None),
        (b"4: A", None),
        (b"ACTIVE", None),
        (b"? ?", None),
    ],
)
def test_state(text: bytes, up: float | None) -> None:
    assert parse_state(text) == up


@given(st.binary(max_size=60))
def test_any_bytes_give_nothing_or_a_plausible_value(content: bytes) -> None:
    assert parse_state(content) in (None, 0.0, 1.0)
    rate = parse_rate(content)
    assert rate is None or rate >= 0


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"-5\n", b"1e400\n", b"99999999999999999999999\n"]
)
def test_a_broken_counter_is_left_out(machine: Path, clock: Clock, content: bytes) -> None:
    (port_folder(machine, "mlx5_0") / "counters/port_rcv_data").write_bytes(content)
    probe = InfinibandProbe(context(machine, clock))
    fields = ports(probe)["mlx5_0"]
    assert "receive_bytes" not in fields
    assert "transmit_bytes" in fields
    probe.close()

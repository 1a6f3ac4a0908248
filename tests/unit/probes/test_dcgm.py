"""A DCGM exporter's page, and a real HTTP server that serves it."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.dcgm import RETRY_SECONDS, TIMEOUT_SECONDS, DcgmExporter, parse_metrics
from probes.sample import Sample, Value, tags
from tests.hostile import Hostile
from tests.nvml.exporter import Exporter

UUID = "GPU-22222222-0000-0000-0000-000000000000"
OTHER = "GPU-22222222-0000-0000-0000-000000000001"


def line(name: str, value: str, uuid: str = UUID, more: str = "") -> str:
    labels = f'gpu="0",UUID="{uuid}",pci_bus_id="00000000:07:00.0",device="nvidia0"'
    who = (
        f'modelName="NVIDIA A100-SXM4-80GB",Hostname="node{{1}} x"{more},DCGM_FI_DRIVER_VERSION="5"'
    )
    return f"DCGM_FI_{name}{{{labels},{who}}} {value}"


OLD = "\n".join(
    [
        "# HELP DCGM_FI_PROF_PIPE_TENSOR_ACTIVE Ratio of cycles the tensor pipe is active.",
        "# TYPE DCGM_FI_PROF_PIPE_TENSOR_ACTIVE gauge",
        line("DEV_GPU_UTIL", "97"),
        line("PROF_GR_ENGINE_ACTIVE", "0.990012"),
        line("PROF_SM_ACTIVE", "0.9"),
        line("PROF_SM_OCCUPANCY", "0.31"),
        line("PROF_PIPE_TENSOR_ACTIVE", "0.712345"),
        line("PROF_DRAM_ACTIVE", "0.42"),
        line("PROF_PIPE_FP64_ACTIVE", "0"),
        line("PROF_PIPE_FP32_ACTIVE", "1e-1"),
        line("PROF_PIPE_FP16_ACTIVE", "0.01"),
        line("PROF_PIPE_TENSOR_IMMA_ACTIVE", "0.5"),
        line("PROF_PIPE_TENSOR_HMMA_ACTIVE", "0.7"),
        line("PROF_PCIE_TX_BYTES", "285234567"),
        line("PROF_PCIE_RX_BYTES", "12345678901"),
        line("PROF_NVLINK_TX_BYTES", "9223372036854775794"),
        line("PROF_DRAM_ACTIVE", "0.11", OTHER),
    ]
)
NEW = "\n".join(
    [
        line("PROF_GR_ENGINE_UTIL_RATIO", "0.990012"),
        line("PROF_SM_UTIL_RATIO", "0.9"),
        line("PROF_SM_OCCUPANCY_RATIO", "0.31"),
        line("PROF_TENSOR_UTIL_RATIO", "0.712345"),
        line("PROF_DRAM_UTIL_RATIO", "0.42"),
        line("PROF_FP64_UTIL_RATIO", "0"),
        line("PROF_FP32_UTIL_RATIO", "0.1"),
        line("PROF_FP16_UTIL_RATIO", "0.01"),
        line("PROF_IMMA_UTIL_RATIO", "0.5"),
        line("PROF_HMMA_UTIL_RATIO", "0.7"),
        line("PROF_PCIE_TX_BYTES", "285234567"),
        line("PROF_PCIE_RX_BYTES", "12345678901"),
        line("PROF_DRAM_UTIL_RATIO", "0.11", OTHER),
    ]
)
TOLD = {
    "graphics_active_ratio": 0.990012,
    "sm_active_ratio": 0.9,
    "sm_occupancy_ratio": 0.31,
    "tensor_active_ratio": 0.712345,
    "dram_active_ratio": 0.42,
    "fp64_active_ratio": 0.0,
    "fp32_active_ratio": 0.1,
    "fp16_active_ratio": 0.01,
    "imma_active_ratio": 0.5,
    "hmma_active_ratio": 0.7,
    "pcie_transmit_bytes_per_second": 285234567.0,
    "pcie_receive_bytes_per_second": 12345678901.0,
}


@pytest.mark.parametrize("page", [OLD, NEW], ids=["old names", "new names"])
def test_both_sets_of_names_give_the_same_fields_and_blanks_none(page: str) -> None:
    assert parse_metrics(page) == {UUID: TOLD, OTHER: {"dram_active_ratio": 0.11}}


@pytest.mark.parametrize(
    "value",
    [
        "9223372036854775794",
        "9.223372036854776e+18",
        "140737488355328",
        "2147483632",
        "NaN",
        "-1",
        "1.5",
        "+Inf",
        "x",
        "",
    ],
)
def test_blanks_and_nonsense_are_left_out_of_a_ratio(value: str) -> None:
    assert parse_metrics(line("PROF_DRAM_ACTIVE", value)) == {}


def test_a_mig_instance_is_not_taken_for_its_parent() -> None:
    instance = ',GPU_I_PROFILE="1g.10gb",GPU_I_ID="7"'
    assert parse_metrics(line("PROF_DRAM_ACTIVE", "0.5", more=instance)) == {}


@given(st.text(alphabet='DCGM_FI_PROF{}"=,. 0123456789\\\nUUIDx-', max_size=300))
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    parse_metrics(text)
    parse_metrics(OLD + text)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    server = Exporter(OLD)
    yield server
    server.close()


def sample(source: str, uuid: str = UUID) -> Sample:
    fields: dict[str, Value] = {"power_watts": 388.0, "source": source}
    return Sample("gpu", tags(gpu="0", uuid=uuid, model="A100"), fields)


@pytest.mark.parametrize("page", [OLD, NEW], ids=["old names", "new names"])
def test_one_request_completes_the_samples_that_lack_counters(
    exporter: Exporter, page: str
) -> None:
    exporter.page = page
    reader = DcgmExporter(exporter.url, lambda: 0.0)
    first, second, third = reader.complete(
        [sample("nvml"), sample("gpm", OTHER), sample("nvml", "GPU-unknown")]
    )
    assert first.fields == {"power_watts": 388.0, "source": "dcgm", **TOLD}
    assert second == sample("gpm", OTHER)
    assert third == sample("nvml", "GPU-unknown")
    assert exporter.requests == 1


def test_gpus_with_gpm_need_no_request(exporter: Exporter) -> None:
    DcgmExporter(exporter.url, lambda: 0.0).complete([sample("gpm")])
    assert exporter.requests == 0


def test_an_exporter_without_profiling_fields_is_told_of(exporter: Exporter) -> None:
    exporter.page = line("DEV_GPU_UTIL", "97")
    reader = DcgmExporter(exporter.url, lambda: 0.0)
    assert reader.complete([sample("nvml")]) == [sample("nvml")]
    assert "gives no profiling fields" in reader.limits()[0]
    exporter.page = "\n".join(
        line(f"PROF_{name}", "0.1") for name in ("PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE")
    )
    reader.complete([sample("nvml")])
    assert reader.limits()[0].endswith(
        "lacks DCGM_FI_PROF_PIPE_FP64_ACTIVE, DCGM_FI_PROF_PIPE_FP32_ACTIVE:"
        " add them to its table of counters"
    )


def test_an_exporter_that_fails_is_left_alone_for_a_while(exporter: Exporter) -> None:
    now = 100.0
    reader = DcgmExporter(exporter.url, lambda: now)
    exporter.page = None
    assert reader.complete([sample("nvml")]) == [sample("nvml")]
    assert "does not answer: HTTP Error 500" in reader.limits()[0]
    exporter.page = OLD
    assert reader.complete([sample("nvml")]) == [sample("nvml")]
    assert exporter.requests == 1
    now += RETRY_SECONDS
    assert reader.complete([sample("nvml")])[0].fields["source"] == "dcgm"
    assert reader.limits() == [
        f"DCGM exporter at {exporter.url} lacks DCGM_FI_PROF_PIPE_TENSOR_ACTIVE,"
        " DCGM_FI_PROF_PIPE_FP64_ACTIVE, DCGM_FI_PROF_PIPE_FP32_ACTIVE:"
        " add them to its table of counters"
    ]  # of the other GPU


def test_no_exporter_at_all_costs_nothing_but_a_word() -> None:
    reader = DcgmExporter("http://127.0.0.1:1/metrics", lambda: 0.0)
    assert reader.complete([sample("nvml")]) == [sample("nvml")]
    assert "does not answer" in reader.limits()[0]


@pytest.mark.parametrize(
    "mode", ["slow_headers", "slow_body", "silent", "endless", "endless_headers", "large", "empty"]
)
def test_an_exporter_that_means_harm_costs_no_more_time_than_one_that_is_away(mode: str) -> None:
    server = Hostile(TIMEOUT_SECONDS / 4)
    server.mode = mode
    begun = time.monotonic()
    try:
        (completed,) = DcgmExporter(server.url, lambda: 0.0).complete([sample("nvml")])
    finally:
        server.close()
    assert time.monotonic() - begun < 10 * TIMEOUT_SECONDS
    assert completed == sample("nvml")

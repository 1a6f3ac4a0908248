"""Labels from fractions, from counters, and from NVML alone."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.inspect.model import GpuBounds, JobHeader, JobReport, Node
from agent.inspect.text import render
from agent.labels.bounds import BoundTracker, Labeller, fractions_of, judge, resembled
from agent.labels.gpuroofs import DEFAULT_TOPS, GpuRoofs, Signature, load, with_defaults
from probes.sample import Sample, Value, tags
from workloads.roofline import Bound, Fractions

H100 = "NVIDIA H100 80GB HBM3"
COMPUTE = Fractions(0.9, 0.4, 0.0)
MEMORY = Fractions(0.1, 0.9, 0.0)
EVEN = Fractions(0.58, 0.6, 0.0)
FAINT = Fractions(0.1, 0.2, 0.0)
UNKNOWN = Fractions()


def track(given: Iterable[Fractions], seconds: float = 1.0) -> str:
    """Return the labels' first letters."""
    tracker = BoundTracker()
    return "".join(tracker.update(each, seconds, busy=1.0).value[0] for each in given)


@pytest.mark.parametrize(
    ("fractions", "bound"),
    [
        (Fractions(0.80, 0.69), Bound.COMPUTE),
        (Fractions(0.80, 0.70), Bound.BALANCED),
        (Fractions(0.69, 0.80), Bound.MEMORY),
        (Fractions(0.31, 0.10), Bound.COMPUTE),
        (Fractions(0.29, 0.10), Bound.LATENCY),
        (Fractions(0.10, 0.30, 0.41), Bound.LINK),
        (Fractions(0.10, 0.31, 0.39), Bound.MEMORY),
        (Fractions(0.10, 0.20, 0.39), Bound.LATENCY),
        (Fractions(0.10, 0.45, 0.50), Bound.BALANCED),
        (Fractions(None, 0.9), Bound.UNKNOWN),
        (Fractions(0.9, None, 0.9), Bound.UNKNOWN),
    ],
)
def test_a_roof_must_lead_by_the_hysteresis(fractions: Fractions, bound: Bound) -> None:
    assert judge(fractions) is bound


def test_the_held_bound_stays_while_it_leads_at_all() -> None:
    assert judge(Fractions(0.80, 0.79), held=Bound.COMPUTE) is Bound.COMPUTE
    assert judge(Fractions(0.80, 0.79), held=Bound.MEMORY) is Bound.BALANCED
    assert judge(Fractions(0.34, 0.1), held=Bound.LATENCY) is Bound.LATENCY
    assert judge(Fractions(0.35, 0.1), held=Bound.LATENCY) is Bound.COMPUTE


def test_a_clear_label_is_taken_at_once_and_kept_for_two_samples() -> None:
    assert track([COMPUTE, COMPUTE, MEMORY, COMPUTE, COMPUTE]) == "ccmmc"


def test_a_mixed_second_between_two_phases_is_not_balanced() -> None:
    assert track([COMPUTE, COMPUTE, EVEN, MEMORY, MEMORY]) == "cccmm"


def test_balanced_and_latency_are_believed_when_they_last() -> None:
    assert track([COMPUTE, COMPUTE, EVEN, EVEN, EVEN]) == "cccbb"
    assert track([COMPUTE, COMPUTE, EVEN, FAINT, FAINT]) == "cccll"


def test_an_interval_of_two_seconds_is_long_enough_by_itself() -> None:
    assert track([COMPUTE, EVEN, MEMORY, FAINT], seconds=10.0) == "cbml"


def test_unknown_is_taken_and_left_at_once() -> None:
    assert track([COMPUTE, UNKNOWN, MEMORY, UNKNOWN]) == "cumu"


def test_a_gpu_with_no_kernel_is_idle_whatever_its_counters_say() -> None:
    assert BoundTracker().update(COMPUTE, 1.0, busy=0.049) is Bound.IDLE
    assert BoundTracker().update(COMPUTE, 1.0, busy=0.051) is Bound.COMPUTE


@given(st.lists(st.sampled_from([COMPUTE, MEMORY, EVEN, FAINT]), min_size=1, max_size=60))
def test_a_clear_label_never_flickers(given: list[Fractions]) -> None:
    labels = track(given)
    stretches = [
        *"".join(
            a + (" " if a != b else "") for a, b in zip(labels, labels[1:] + "-", strict=True)
        ).split()
    ]
    assert all(len(each) >= 2 for each in stretches[:-1] if each[0] in "cm")


def gpu(**fields: Value) -> dict[str, Value]:
    quiet = dict.fromkeys(DEFAULT_TOPS, 0.0)
    return {**quiet, "graphics_active_ratio": 1.0, "source": "gpm", **fields}


def test_compute_is_the_busiest_pipe_over_what_it_can_show() -> None:
    roofs = with_defaults(H100, None)
    tensor = fractions_of(gpu(tensor_active_ratio=0.465, fp32_active_ratio=0.3), roofs)
    assert tensor.compute == pytest.approx(0.5)
    fp64 = fractions_of(gpu(tensor_active_ratio=0.1, fp64_active_ratio=0.9), roofs)
    assert fp64.compute == pytest.approx(0.9)
    assert fractions_of(gpu(dram_active_ratio=0.465), roofs).memory == pytest.approx(0.5)


def test_the_link_is_the_busier_direction_of_the_busier_link() -> None:
    roofs = with_defaults(H100, None)
    pcie = gpu(pcie_receive_bytes_per_second=0.83 * 31.5e9, pcie_transmit_bytes_per_second=1e9)
    assert fractions_of(pcie, roofs).link == pytest.approx(0.5)
    nvlink = gpu(nvlink_transmit_bytes_per_second=0.83 * 450e9, pcie_receive_bytes_per_second=1e9)
    assert fractions_of(nvlink, roofs).link == pytest.approx(1.0)
    assert fractions_of(pcie, with_defaults("Unheard Of", None)).link is None


def test_readings_of_this_node_s_own_reference_work_come_first() -> None:
    roofs = with_defaults(H100, GpuRoofs({"dram_active_ratio": 0.8}))
    seen = fractions_of(gpu(dram_active_ratio=0.4, tensor_active_ratio=0.93), roofs)
    assert (seen.compute, seen.memory) == (1.0, 0.5)


def test_pipes_that_an_exporter_leaves_out_may_be_the_busy_ones() -> None:
    roofs = with_defaults("NVIDIA A100-SXM4-80GB", None)
    fields: dict[str, Value] = {"dram_active_ratio": 0.5, "tensor_active_ratio": 0.02}
    assert fractions_of(fields, roofs).compute is None
    fields["tensor_active_ratio"] = 0.8
    assert judge(fractions_of(fields, roofs)) is Bound.COMPUTE


COMPUTE_PHASE = Signature(0.97, 0.40, 0.80)
MEMORY_PHASE = Signature(0.45, 0.88, 1.0)
REFERENCE = GpuRoofs({}, COMPUTE_PHASE, MEMORY_PHASE)


@pytest.mark.parametrize(
    ("now", "utilization", "bound"),
    [
        (Signature(0.90, 0.45, 0.75), 1.0, Bound.COMPUTE),
        (Signature(0.50, 0.80, 0.95), 1.0, Bound.MEMORY),
        (Signature(0.70, 0.65, 0.90), 1.0, Bound.UNKNOWN),
        (Signature(0.97, 0.40, 0.80), 0.89, Bound.UNKNOWN),
        (Signature(0.97, 0.40, 0.80), 0.04, Bound.IDLE),
        (None, 1.0, Bound.UNKNOWN),
        (Signature(0.97, 0.40, 0.80), None, Bound.UNKNOWN),
    ],
)
def test_nvml_alone_tells_what_looks_like_one_reference_phase(
    now: Signature | None, utilization: float | None, bound: Bound
) -> None:
    assert resembled(now, utilization, REFERENCE) is bound


def test_reference_phases_that_look_alike_tell_nothing() -> None:
    alike = GpuRoofs({}, COMPUTE_PHASE, Signature(0.9, 0.45, 0.85))
    assert resembled(COMPUTE_PHASE, 1.0, alike) is Bound.UNKNOWN


def a100(watts: float, **fields: Value) -> dict[str, Value]:
    return {
        "utilization_ratio": 1.0,
        "memory_utilization_ratio": 0.4,
        "power_watts": watts,
        "power_limit_watts": 400.0,
        "sm_clock_hertz": 0.8e9,
        "sm_clock_limit_hertz": 1e9,
        "source": "nvml",
        **fields,
    }


def labels(samples: Iterable[dict[str, Value]], step_ms: int = 1000) -> list[dict[str, Value]]:
    labeller = Labeller({"A100": REFERENCE})
    who = tags(gpu="0", uuid="GPU-1", model="A100")
    found = [
        labeller.label([Sample("gpu", who, each)], i * step_ms) for i, each in enumerate(samples)
    ]
    assert all(sample.tags == (("gpu", "0"),) for (sample,) in found)
    return [dict(sample.fields) for (sample,) in found]


def test_a_resemblance_is_believed_from_its_second_sample_on() -> None:
    found = labels([a100(388.0), a100(388.0), a100(120.0), a100(388.0)])
    assert [each["bound"] for each in found] == ["unknown", "compute", "unknown", "unknown"]
    assert {each["evidence"] for each in found} == {"nvml"}
    assert "compute_ratio" not in found[1]


@pytest.mark.parametrize(
    ("processes", "bound"), [(0.0, "idle"), (1.0, "unknown"), (None, "unknown")]
)
def test_an_instance_without_utilization_is_idle_while_no_program_has_it(
    processes: float | None, bound: str
) -> None:
    fields: dict[str, Value] = {"memory_used_bytes": 1e6, "source": "nvml"}
    if processes is not None:
        fields["processes_total"] = processes
    assert labels([fields])[0]["bound"] == bound


def test_the_energy_counter_tells_a_mixed_interval_from_a_pure_one() -> None:
    """The sensor shows the last second; the counter shows what the other nine were like."""
    pure = labels([a100(388.0, energy_joules=3880.0 * i) for i in range(3)], step_ms=10_000)
    assert pure[-1]["bound"] == "compute"
    mixed = labels([a100(388.0, energy_joules=2500.0 * i) for i in range(3)], step_ms=10_000)
    assert mixed[-1]["bound"] == "unknown"


def test_fractions_above_a_roof_are_written_as_one() -> None:
    (first,) = labels([gpu(tensor_active_ratio=0.98, dram_active_ratio=0.3)])
    assert first["compute_ratio"] == 1.0
    assert (first["bound"], first["evidence"]) == ("compute", "gpm")


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *DEFAULT_TOPS,
                "graphics_active_ratio",
                "power_watts",
                "energy_joules",
                "power_limit_watts",
                "utilization_ratio",
                "pcie_receive_bytes_per_second",
            ]
        ),
        st.floats(0, 1e6),
    )
)
def test_any_sample_has_one_label_and_fractions_from_0_to_1(fields: dict[str, Value]) -> None:
    (found,) = labels([{**fields, "source": "gpm"}])
    assert Bound(str(found.pop("bound"))) in Bound
    found.pop("evidence")
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in found.values())


def test_a_broken_table_of_readings_is_left_aside(tmp_path: Path) -> None:
    file = tmp_path / "gpu-roofs.json"
    assert load(file) == {}
    file.write_text("{broken")
    assert load(file) == {}
    file.write_text('{"A100": {"tops": {"dram_active_ratio": 0.85}}}')
    assert load(file)["A100"].tops["dram_active_ratio"] == 0.85


@pytest.mark.parametrize(
    ("model", "pcie", "nvlink"),
    [
        (H100, 63.0, 450.0),
        ("NVIDIA H100 PCIe", 63.0, 300.0),
        ("NVIDIA H200", 63.0, 450.0),
        ("NVIDIA A100-SXM4-80GB", 31.5, 300.0),
        ("Tesla V100-SXM2-16GB", 15.75, 150.0),
    ],
)
def test_links_by_the_driver_s_name(model: str, pcie: float, nvlink: float) -> None:
    tops = with_defaults(model, None).tops
    assert tops["pcie_receive_bytes_per_second"] == pytest.approx(pcie * 1e9 * 0.83)
    assert tops["nvlink_transmit_bytes_per_second"] == pytest.approx(nvlink * 1e9 * 0.83)


def test_the_page_s_table_fits_80_columns_with_every_bound() -> None:
    everything = {bound.value: 10.0 for bound in Bound}
    gpus = [GpuBounds(str(i), "gpm", everything) for i in range(8)]
    node = Node("n" * 20, 80.0, 8, 8, 0, True, "", [], gpus)
    report = JobReport(JobHeader("1", "c", "COMPLETED"), [node], [], [], [])
    page = render(report, 80, per_node=False)
    assert all(bound.value in page for bound in Bound)
    assert page.count("12%") == 8 * len(Bound)

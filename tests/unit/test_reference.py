"""What NVML showed during reference phases becomes what other work is compared with."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.labels.bounds import Labeller
from agent.labels.gpuroofs import GpuRoofs, Signature, load, save
from agent.labels.reference import Look, Window, signature_in, windows
from probes.sample import Sample, Value, tags
from workloads.roofline import Bound

A100 = "NVIDIA A100-SXM4-80GB"
TRAINING = Signature(0.97, 0.40, 0.80)


def phase(
    name: str, bound: str, seconds: float, device: str = "cuda:0", confidence: float = 0.9
) -> Sample:
    fields: dict[str, Value] = {
        "bound": bound,
        "duration_seconds": seconds,
        "confidence_ratio": confidence,
    }
    return Sample("phase", tags(phase=name, device=device, workload="w", jobid="1"), fields)


def test_phases_one_after_the_other_are_windows() -> None:
    run = [(0, phase("prefill", "compute", 8.0)), (9_000, phase("decode", "memory", 30.0))]
    assert windows(run) == [
        Window(Bound.COMPUTE, 0, 8_000),
        Window(Bound.MEMORY, 9_000, 39_000),
    ]


def test_phases_that_take_turns_are_not() -> None:
    run = [
        (0, phase("forward", "compute", 10.0)),
        (50, phase("backward", "compute", 20.0)),
        (150, phase("optimizer", "memory", 6.0)),
    ]
    assert windows(run) == []


@pytest.mark.parametrize(
    "one",
    [
        phase("decode", "memory", 4.9),
        phase("decode", "memory", 30.0, device="cpu"),
        phase("decode", "memory", 30.0, confidence=0.29),
        phase("decode", "latency", 30.0),
        phase("decode", "nonsense", 30.0),
        Sample("phase", (), {}),
    ],
)
def test_short_undecided_and_cpu_phases_teach_nothing(one: Sample) -> None:
    assert windows([(0, one)]) == []


def looks(*signatures: Signature, utilization: float = 1.0) -> list[Look]:
    return [Look(1000 * i, each, utilization) for i, each in enumerate(signatures)]


def test_a_signature_is_the_mean_of_steady_looks_after_the_first() -> None:
    seen = looks(Signature(0.2, 0.0, 1.0), TRAINING, TRAINING, Signature(0.91, 0.46, 0.80))
    found = signature_in(Window(Bound.COMPUTE, 0, 3_000), seen)
    assert found is not None
    assert found.power_ratio == pytest.approx(0.95)
    assert found.memory_utilization_ratio == pytest.approx(0.42)


def test_few_idle_or_unsteady_looks_give_none() -> None:
    window = Window(Bound.COMPUTE, 0, 9_000)
    assert signature_in(window, looks(*[TRAINING] * 3)) is None
    assert signature_in(window, looks(*[TRAINING] * 4, utilization=0.89)) is None
    assert signature_in(window, looks(*[TRAINING, Signature(0.4, 0.9, 1.0)] * 3)) is None


def gpu(watts: float, memory: float) -> Mapping[str, Value]:
    return {
        "utilization_ratio": 1.0,
        "memory_utilization_ratio": memory,
        "power_watts": float(watts),
        "power_limit_watts": 400.0,
        "sm_clock_hertz": 1.2e9,
        "sm_clock_limit_hertz": 1.41e9,
        "source": "nvml",
    }


IDLE = {**gpu(60.0, 0.0), "utilization_ratio": 0.0}


def second(labeller: Labeller, number: int, *readings: Mapping[str, Value]) -> list[str]:
    samples = [
        Sample("gpu", tags(gpu=str(i), uuid=f"GPU-{i}", model=A100), fields)
        for i, fields in enumerate(readings)
    ]
    return [str(each.fields["bound"]) for each in labeller.label(samples, 1000 * number)]


def test_work_is_known_again_by_what_the_reference_phase_showed(tmp_path: Path) -> None:
    file = tmp_path / "gpu-roofs.json"
    labeller = Labeller(keep=lambda table: save(file, table))
    for number in range(10):
        assert second(labeller, number, gpu(390, 0.4), IDLE) == ["unknown", "idle"]
    labeller.learn([(0, phase("prefill", "compute", 9.0))])
    assert second(labeller, 10, gpu(385, 0.42), IDLE) == ["unknown", "idle"]
    assert second(labeller, 11, gpu(385, 0.42), IDLE) == ["compute", "idle"]
    assert second(labeller, 12, IDLE, gpu(385, 0.42)) == ["idle", "unknown"]
    assert second(labeller, 13, IDLE, gpu(385, 0.42)) == ["idle", "compute"]
    restarted = Labeller(load(file))
    assert second(restarted, 0, gpu(385, 0.42)) == ["unknown"]
    assert second(restarted, 1, gpu(385, 0.42)) == ["compute"]


def test_with_two_busy_gpus_it_is_not_clear_which_ran_the_phase() -> None:
    labeller = Labeller()
    for number in range(10):
        second(labeller, number, gpu(390, 0.4), gpu(180, 0.9))
    labeller.learn([(0, phase("prefill", "compute", 9.0))])
    assert second(labeller, 10, gpu(390, 0.4), IDLE) == ["unknown", "idle"]
    assert second(labeller, 11, gpu(390, 0.4), IDLE) == ["unknown", "idle"]


def test_what_was_known_of_the_other_roof_stays() -> None:
    kept: list[Mapping[str, GpuRoofs]] = []
    known = GpuRoofs({"dram_active_ratio": 0.8}, None, Signature(0.45, 0.9, 1.0))
    labeller = Labeller({A100: known}, kept.append)
    for number in range(10):
        second(labeller, number, gpu(388, 0.4))
    labeller.learn([(0, phase("prefill", "compute", 9.0))])
    (table,) = kept
    assert (table[A100].tops, table[A100].memory) == (known.tops, known.memory)
    learned = table[A100].compute
    assert learned is not None
    assert learned.power_ratio == pytest.approx(0.97)


def test_a_table_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "absent" / "gpu-roofs.json", {})

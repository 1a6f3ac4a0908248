"""Turn a run's report into samples of the measurements `phase` and `ceiling`."""

from collections.abc import Mapping, Sequence

from probes.sample import Sample, Value, tags
from workloads.ceilings import MATMUL, Ceiling
from workloads.runner import LabelledPhase, RunReport

Timed = tuple[Sample, int]
"""A sample with its time in milliseconds since 1970."""


def report_samples(report: RunReport, jobid: str, variant: str = "") -> list[Timed]:
    """Return the samples of a run, a phase's at its start.

    `variant` says after the workload's name what it was run with, when several are compared.
    """
    device = report.setting.device
    finished = int(report.finished * 1000)
    phases = [
        (phase_sample(item, device, jobid, variant), int(item.phase.started * 1000))
        for item in report.phases
    ]
    roofs = [(ceiling_sample(item, device, report.model), finished) for item in report.ceilings]
    return phases + roofs


def sample_rows(samples: Sequence[Timed], measurement: str) -> list[dict[str, Value | int]]:
    """Return the samples of one measurement as flat rows."""
    return [
        {"time_ms": time_ms, **dict(sample.tags), **sample.fields}
        for sample, time_ms in samples
        if sample.measurement == measurement
    ]


def phase_sample(item: LabelledPhase, device: str, jobid: str, variant: str = "") -> Sample:
    """Return one phase as a sample; fractions that are unknown are absent."""
    phase, label = item.phase, item.label
    numbers = {
        "flops_total": phase.flops,
        "moved_bytes": phase.bytes,
        "link_bytes": phase.link_bytes,
        "io_bytes": phase.io_bytes,
        "duration_seconds": phase.seconds,
        "calls_total": phase.calls,
        "tokens_total": phase.tokens,
        "flops_per_second": phase.flops_per_second,
        "moved_bytes_per_second": phase.bytes_per_second,
        "intensity_flops_per_byte": label.intensity,
        "ridge_flops_per_byte": label.ridge,
        "compute_ratio": label.fractions.compute,
        "memory_ratio": label.fractions.memory,
        "link_ratio": label.fractions.link,
        "io_ratio": label.fractions.io,
        "confidence_ratio": label.confidence,
    }
    texts = {
        "bound": label.bound.value,
        "dtype": phase.dtype,
        "explanation": label.explanation,
    }
    workload = f"{phase.workload} {variant}".rstrip()
    where = tags(jobid=jobid, workload=workload, phase=phase.name, device=device)
    return Sample("phase", where, _present(numbers) | texts)


def ceiling_sample(ceiling: Ceiling, device: str, model: str) -> Sample:
    """Return one ceiling as a sample."""
    rate = "flops_per_second" if ceiling.kind == MATMUL else "bytes_per_second"
    numbers = {
        rate: ceiling.per_second,
        "spread_ratio": ceiling.spread,
        "threads_total": ceiling.threads,
    }
    # the model is a tag, so that a store can hold a device against the others of its kind
    where = tags(device=device, kind=ceiling.kind, dtype=ceiling.dtype, model=model)
    texts = {"method": ceiling.method}
    return Sample("ceiling", where, _present(numbers) | texts)


def _present(numbers: Mapping[str, float | None]) -> dict[str, Value]:
    return {name: float(value) for name, value in numbers.items() if value is not None}

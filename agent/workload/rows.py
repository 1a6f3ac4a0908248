"""What a run found as plain data: for JSON, and as rows for CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from workloads.compare import Variant
from workloads.runner import RunReport
from workloads.samples import Timed, sample_rows
from workloads.sweep import DecodeRow


def as_data(report: RunReport, points: Sequence[Timed]) -> dict[str, object]:
    """Return the report as plain data: what the store gets, with the setting."""
    return {
        "model": report.model,
        "size": report.setting.size,
        "setting": asdict(report.setting),
        "partial": report.partial,
        "ceilings": sample_rows(points, "ceiling"),
        "phases": sample_rows(points, "phase"),
    }


def variants_as_data(
    workload: str,
    field: str,
    variants: Sequence[Variant],
    points: Mapping[str, Sequence[Timed]],
) -> dict[str, object]:
    """Return a comparison as plain data: for each value a report, or why there is none."""
    found = [
        {"value": variant.value, **as_data(variant.report, points[variant.value])}
        if variant.report
        else {"value": variant.value, "refused": variant.refused}
        for variant in variants
    ]
    return {"workload": workload, "vary": field, "variants": found}


def phase_rows(report: RunReport, points: Sequence[Timed]) -> list[dict[str, object]]:
    """Return one row per phase, with all that it was run with."""
    common = {"model": report.model, "partial": report.partial, **asdict(report.setting)}
    return [{**common, **row} for row in sample_rows(points, "phase")]


def variant_rows(
    field: str, variants: Sequence[Variant], points: Mapping[str, Sequence[Timed]]
) -> list[dict[str, object]]:
    """Return one row per variant and phase, and one for a variant that was refused."""
    rows: list[dict[str, object]] = []
    for variant in variants:
        if variant.report:
            rows += phase_rows(variant.report, points[variant.value])
        else:
            rows.append({field: variant.value, "refused": variant.refused})
    return rows


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Write rows under one header: every column that any of them has."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_rows(rows: Sequence[DecodeRow]) -> list[dict[str, object]]:
    """Return one row per batch size; what was not run has no `seconds`."""
    return [
        {
            "batch": row.batch,
            "flops": row.step.flops,
            "bytes": row.step.bytes,
            "intensity_flops_per_byte": row.intensity,
            "linear_intensity_flops_per_byte": row.linear_intensity,
            "attention_intensity_flops_per_byte": row.attention_intensity,
            "expected_bound": row.predicted.value if row.predicted else None,
            **_measured(row),
        }
        for row in rows
    ]


def _measured(row: DecodeRow) -> dict[str, object]:
    if row.measured is None:
        return {"refused": row.refused} if row.refused else {}
    phase, label = row.measured.phase, row.measured.label
    return {
        "seconds": phase.seconds_per_unit,
        "tokens_per_second": phase.tokens_per_second,
        "compute_ratio": label.fractions.compute,
        "memory_ratio": label.fractions.memory,
        "bound": label.bound.value,
    }

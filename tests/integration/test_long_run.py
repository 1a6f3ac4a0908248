"""The long run itself, for a few seconds: every figure is there, and what grows is named."""

from pathlib import Path

import pytest

from tests.benchmarks.long_run import Figures, Reading, grown, measure, table

pytestmark = pytest.mark.influxd


def test_a_short_long_run_has_every_figure(tmp_path: Path) -> None:
    figures = measure(tmp_path, minutes=0.1, hertz=20)
    assert len(figures.readings) >= 3
    assert all(each.resident_kibibytes > 10_000 for each in figures.readings)
    assert all(each.descriptors > 5 and each.threads >= 2 for each in figures.readings)
    assert len(figures.late) + figures.skipped > 10
    assert figures.cpu > 0
    text = table(figures)
    for name in ("resident memory, KiB", "descriptors", "threads", "lateness, ms", "skipped"):
        assert name in text


def test_what_grows_is_named() -> None:
    readings = [
        Reading(second / 3600, 30_000 + second % 7, 20 + second / 60, 5) for second in range(600)
    ]
    late = [(second / 3600, 1.0 + second % 3) for second in range(600)]
    assert grown(Figures(readings, late, skipped=0, cpu=1.0)) == ["descriptors"]

"""A job with GPUs, replayed through NVML's own interface into the real binding."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.commands import Site, usage
from tests.nvml.build import TRACES, environment
from tests.weather import Weather

pytestmark = pytest.mark.cc

MEBIBYTE = 1 << 20
# two_h100.csv: GPU 0 computes at 690 W for its first ten seconds, GPU 1 idles at 72 W
BUSY_WATTS, IDLE_WATTS = 690.0, 72.0


def test_energy_memory_and_power_of_each_gpu_agree_with_the_trace(tmp_path: Path) -> None:
    site = Site(tmp_path, environment=environment(TRACES / "two_h100.csv"))
    site.call("rooflight", "run", "--interval", "0.25", "--", "sleep", "3")
    report = site.report()
    seconds = report["job"]["elapsed_seconds"]
    assert report["job"]["gpus"] == 2
    assert usage(report, "gpu 0 energy")["total"] == pytest.approx(BUSY_WATTS * seconds, rel=0.02)
    assert usage(report, "gpu 1 energy")["total"] == pytest.approx(IDLE_WATTS * seconds, rel=0.02)
    assert usage(report, "gpu 0 power")["mean"] == pytest.approx(BUSY_WATTS)
    memory = usage(report, "gpu 0 memory")
    assert memory["peak"] == 61440 * MEBIBYTE
    assert memory["available"] == 81559 * MEBIBYTE
    assert usage(report, "gpu 0 tensor active")["mean"] == pytest.approx(0.835, rel=0.01)
    idle = [finding for finding in report["findings"] if finding["id"] == "idle-gpu"]
    assert len(idle) == 1
    assert "gpu 1 was held and used 0.0% of the time" in idle[0]["words"]


@pytest.mark.parametrize(
    ("trace", "visible", "gpu"),
    [
        ("four_a100.csv", "2", "2"),
        ("four_a100.csv", "GPU-22222222-0000-0000-0000-000000000001", "1"),
        ("mig_h100.csv", "MIG-33333333-0000-0000-0000-000000000002", "0.2"),
    ],
)
def test_only_visible_devices_belong_to_the_job(
    tmp_path: Path, trace: str, visible: str, gpu: str
) -> None:
    variables = {**environment(TRACES / trace), "CUDA_VISIBLE_DEVICES": visible}
    site = Site(tmp_path, environment=variables)
    site.call("rooflight", "run", "--interval", "0.25", "--", "sleep", "1")
    report = site.report()
    assert report["job"]["gpus"] == 1
    gpus = {
        line["what"].removesuffix(" memory")
        for line in report["nodes"][0]["usage"]
        if line["what"].endswith(" memory") and line["scope"] == "gpu"
    }
    assert gpus == {f"gpu {gpu}"}


def test_a_driver_that_hangs_costs_the_gpu_and_nothing_else(tmp_path: Path) -> None:
    hanging = environment(TRACES / "two_h100.csv", hang="nvmlDeviceGetPowerUsage")
    site = Site(tmp_path, agent="deadline_seconds = 0.05", environment=hanging)
    with Weather() as weather:
        done = site.complete("rooflight", "agent", "--interval", "0.1", "--for", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("probe gpu hangs") == 1
    with closing(sqlite3.connect(tmp_path / "state" / "rooflight.db")) as connection:
        ticks, longest = connection.execute(
            "SELECT count(*) + max(ticks_skipped_total), max(tick_seconds) FROM agent"
        ).fetchone()
        assert ticks >= 15
        assert longest < 0.15 + 3 * weather.worst
        assert connection.execute("SELECT count(*) FROM gpu").fetchone()[0] == 0

"""The benchmark of `jobinspect` itself: that it runs; its figures are for quiet machines."""

import subprocess
import sys

import pytest

from tests.slurm.bed import REPOSITORY
from tests.weather import PATIENCE

pytestmark = pytest.mark.influxd


@pytest.mark.usefixtures("influxd")  # left out where there is none
def test_the_benchmark_prints_a_time_for_each_command_and_its_verdict() -> None:
    small = ("--hosts", "2", "--gpus", "1", "--hours", "1", "--others", "0", "--runs", "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.jobinspect_scale", *small, "--profile"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    for words in ("--per-node", "--json", "rows of job_gpu_footprint", "2 hosts x 1 GPUs x 1 h"):
        assert words in done.stdout

"""The overhead benchmark itself: every program is measured, and the agent is far from dear."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.benchmarks import alternate, contenders, instructions, overhead, pcp, under_load
from tests.benchmarks.accounting import family
from tests.benchmarks.contenders import REPOSITORY
from tests.benchmarks.instructions import Load
from tests.benchmarks.tables import Figures, table

pytestmark = [pytest.mark.influxd, pytest.mark.cc]

# wide margins: other tests may have this machine's CPUs at the same time
HOST_SAMPLE_MS = 5.0
GPU_NODE_SAMPLE_MS = 30.0
RESIDENT_MIB = 60.0

# these do not depend on who else is there
HOST_SAMPLE_INSTRUCTIONS = 6e6
LEAST_INSTRUCTIONS = 1e5

LEAST_STRESS, MOST_IDLE = 0.02, 0.5
"""Of all CPUs: the other tests have theirs."""

GPU_NODES = (overhead.GPU_NODE, overhead.TREES)
OURS = (overhead.BASE, overhead.LOCAL, overhead.SHIPPING, *GPU_NODES)
OTHERS = (overhead.COLLECTD, overhead.EXPORTER, overhead.PCP)

Results = dict[str, list[Figures]]


@pytest.fixture(scope="module")
def results() -> Results:
    missing = [name for name in ("influxd", "cc") if not contenders.find(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        pcp.unpack()
    return overhead.run(overhead.QUICK, together=True)


def test_every_figure_is_there(results: Results) -> None:
    assert set(OURS) <= set(results)
    for name, (figures,) in results.items():
        assert figures.cpu > 0, name
        assert 0 < figures.proportional <= figures.resident, name
        assert figures.lines >= 3, name
        assert figures.size > 30 * figures.lines or name not in OURS, name
        assert figures.wakeups >= 1, name
    for name in OURS:
        late = results[name][0].late
        assert len(late) >= overhead.QUICK.samples, name
        assert min(late) >= 0, name
        assert results[name][0].skipped is not None, name


@pytest.mark.parametrize("name", OTHERS)
def test_other_programs_are_measured_beside(results: Results, name: str) -> None:
    if name not in results:
        pytest.skip(f"not installed: {name}")
    assert results[name][0].cpu > 0


def test_jobs_cost_something(results: Results) -> None:
    (host,) = results[overhead.BASE]
    for name in GPU_NODES:
        (node,) = results[name]
        assert node.lines > host.lines + 8 + 4 + 4, name  # GPUs, ports, jobs
        assert node.cpu > host.cpu, name


def test_budgets_hold_with_wide_margins(results: Results) -> None:
    (host,) = results[overhead.BASE]
    assert host.cpu <= HOST_SAMPLE_MS
    (gpu_node,) = results[overhead.GPU_NODE]
    assert gpu_node.cpu <= GPU_NODE_SAMPLE_MS
    for name in OURS:
        assert results[name][0].resident <= RESIDENT_MIB, name


def test_the_table_has_a_row_for_each_program_and_ratios(results: Results) -> None:
    text = table(results, overhead.BASE, {overhead.BASE: 1.8e6})
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    cells = {row.split(" | ")[0].removeprefix("| "): row.split(" | ") for row in rows}
    assert cells.keys() == results.keys()
    assert cells[overhead.BASE][2:4] == ["1.00", "1.80"]
    assert cells[overhead.GPU_NODE][3] == ""
    ratio = results[overhead.GPU_NODE][0].cpu / results[overhead.BASE][0].cpu
    assert float(cells[overhead.GPU_NODE][2]) == pytest.approx(ratio, abs=0.006)


def test_heading_tells_machine_date_and_versions() -> None:
    heading = overhead.heading()
    assert "CPUs, Linux" in heading
    assert "rooflight 0." in heading


def test_stress_ng_takes_the_cpus_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if not contenders.find("stress-ng"):
        pytest.skip("stress-ng is not installed")
    with under_load.stress(tmp_path) as stress:
        idle, begun = psutil.cpu_times().idle, time.monotonic()
        time.sleep(1.0)
        left = (psutil.cpu_times().idle - idle) / (time.monotonic() - begun) / (os.cpu_count() or 1)
        # where others take the CPUs as well, its own part is smaller
        assert left < MOST_IDLE
        assert stress.share() >= LEAST_STRESS
        workers = family(stress.process.pid)
    assert len(workers) > 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list(tmp_path.iterdir())


def test_instructions_of_a_sample_are_counted() -> None:
    if not instructions.available():
        pytest.skip("valgrind is not installed")
    (count,) = instructions.count([Load()], first_ticks=1, more_ticks=10, repeats=1).values()
    assert LEAST_INSTRUCTIONS <= count.mean <= HOST_SAMPLE_INSTRUCTIONS


def test_ticks_of_two_checkouts_are_measured_in_turn() -> None:
    here, there = alternate.measure([REPOSITORY, REPOSITORY], None, ticks=5, pause=0.01)
    assert len(here) == len(there) == 5
    assert all(0.05 < each < 50 for each in (*here, *there))
    assert "tick by tick" in alternate.words_for(here, there)

"""Each probe's second sample of a fixture machine, as line protocol.

`machines/<machine>/{proc,sys,cgroup,run}` is the machine; `machines/<machine>/later` lies over it
at the second sample, ten seconds later. `UPDATE_GOLDEN=1 pytest tests/golden` writes `expected/`
anew: read the difference, number by number, before it is committed. A new probe's golden file
begins as an empty file with its name.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.lineprotocol import Point, encode
from probes.probe import Context, Probe
from probes.registry import PROBES
from probes.sample import Sample, tags
from tests.golden.machine import SteppedClock, copy_machine, later_files

HERE = Path(__file__).parent
EXPECTED = sorted((HERE / "expected").glob("*/*.lp"))
PROBES_BY_NAME = {probe.name: probe for probe in PROBES}
STEP_SECONDS = 10.0


def second_sample(probe_class: type[Probe], machine: str, folder: Path) -> Sequence[Sample]:
    clock = SteppedClock()
    probe = probe_class(Context(roots=copy_machine(machine, folder), monotonic=clock))
    try:
        probe.sample()
        later_files(machine, folder)
        clock.now += STEP_SECONDS
        return probe.sample()
    finally:
        probe.close()


def lines(samples: Sequence[Sample], machine: str) -> str:
    points = (
        Point(
            sample.measurement,
            tuple(sorted(sample.tags + tags(cluster="golden", host=machine))),
            dict(sorted(sample.fields.items())),
            time_ms=0,
        )
        for sample in samples
    )
    return "".join(sorted(f"{encode(point)}\n" for point in points))


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_second_sample_is_as_expected(expected: Path, tmp_path: Path) -> None:
    machine = expected.parent.name
    samples = second_sample(PROBES_BY_NAME[expected.stem], machine, tmp_path / machine)
    now = lines(samples, machine)
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(now)
    assert now == expected.read_text()
    assert now

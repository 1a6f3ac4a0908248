"""Whatever a kernel file holds, a probe raises nothing odd and tells nothing impossible.

One file of the fixture machine is mutated, and the probes that have golden output are read. How
high a counter may be is not asked here: the agent's range check sees to that.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.catalogue import CATALOGUE
from probes.probe import Context, Probe, ProbeUnavailable
from probes.registry import PROBES
from probes.sample import Sample, Tags, Value
from tests.golden.machine import MACHINES, SteppedClock, copy_machine

MACHINE = "gpu_node"
SOURCES = {
    "cpu": ("proc/stat", "proc/loadavg", "sys/devices/system/cpu/**/*"),
    "memory": ("proc/meminfo", "proc/vmstat"),
    "pressure": ("proc/pressure/*",),
    "resctrl": ("sys/fs/resctrl/**/*",),
    "power": ("sys/class/powercap/**/*", "sys/class/hwmon/**/*"),
    "network": ("proc/net/dev", "sys/class/net/**/*"),
    "infiniband": ("sys/class/infiniband/**/*",),
    "blockdisk": ("proc/diskstats", "sys/block/**/*"),
    "filesystem": ("proc/self/mountstats", "proc/fs/**/*"),
}
CASES = [probe for probe in PROBES if probe.name in SOURCES]
GARBAGE = (
    b"",
    b"-1",
    b"-0.5",
    b"nan",
    b"inf",
    b"x",
    b"1_0",
    b"0x1f",
    b"\xff\xfe",
    b"\0",
    b"9" * 400,
)
NUMBER = re.compile(rb"\d+(?:\.\d+)?")

Values = dict[tuple[str, Tags, str], Value]


@st.composite
def mutations(draw: st.DrawFn, content: bytes) -> bytes:
    """Return the content cut off, overwritten, or with one number replaced by what is none."""
    kind = draw(st.sampled_from(("cut", "binary", "garbage")))
    numbers = list(NUMBER.finditer(content))
    if kind == "cut" or (kind == "garbage" and not numbers):
        return content[: draw(st.integers(0, len(content)))]
    if kind == "binary":
        return draw(st.binary(max_size=200))
    found = draw(st.sampled_from(numbers))
    return content[: found.start()] + draw(st.sampled_from(GARBAGE)) + content[found.end() :]


@st.composite
def digits(draw: st.DrawFn, content: bytes) -> bytes:
    """Return the content with one number replaced by another one."""
    numbers = list(NUMBER.finditer(content))
    if not numbers:
        return content
    found = draw(st.sampled_from(numbers))
    other = draw(st.integers(0, 2**70) | st.sampled_from((0, 2**31, 2**32, 2**63, 2**64 - 1)))
    return content[: found.start()] + b"%d" % other + content[found.end() :]


class FuzzedMachine:
    """A copy of the fixture machine, of which one probe's files are written for every sample.

    Attributes:
        first: content at the first sample, by path below the machine's top.
        later: content at the second sample.

    """

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        self._roots = copy_machine(MACHINE, folder)
        self._folder = folder
        found = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
        self._written = {str(path.relative_to(folder)): path.read_bytes() for path in found}
        self.first = dict(self._written)
        later = MACHINES / MACHINE / "later"
        self.later = {
            file: (later / file).read_bytes() if (later / file).exists() else content
            for file, content in self.first.items()
        }

    def samples(
        self, probe_class: type[Probe], first: dict[str, bytes], later: dict[str, bytes]
    ) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """Sample twice, ten seconds apart; both are empty where the source is absent or fails."""
        self._write(first)
        clock = SteppedClock()
        try:
            probe = probe_class(Context(roots=self._roots, monotonic=clock))
        except ProbeUnavailable:
            return [], []
        try:
            before = probe.sample()
            self._write(later)
            clock.now += 10.0
            return before, probe.sample()
        except OSError:
            return [], []
        finally:
            probe.close()

    def _write(self, contents: dict[str, bytes]) -> None:
        for file, content in contents.items():
            if self._written[file] != content:
                (self._folder / file).write_bytes(content)
                self._written[file] = content


def check(samples: Sequence[Sample]) -> Values:
    values: Values = {}
    for sample in samples:
        measurement = CATALOGUE[sample.measurement]
        assert tuple(name for name, _ in sample.tags) == tuple(sorted(measurement.tags))
        assert sample.fields
        for name, value in sample.fields.items():
            assert isinstance(value, float | str)
            if isinstance(value, float):
                assert math.isfinite(value)
                assert value >= measurement.fields[name].low
                assert not name.endswith("_ratio") or value <= measurement.fields[name].high
            values[sample.measurement, sample.tags, name] = value
    return values


@pytest.fixture(scope="module", params=CASES, ids=lambda probe: probe.name)
def fuzzed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[type[Probe], FuzzedMachine]:
    probe_class: type[Probe] = request.param
    folder = tmp_path_factory.mktemp("fuzz") / MACHINE
    return probe_class, FuzzedMachine(folder, SOURCES[probe_class.name])


QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # elsewhere every run tries other files
)


@QUICK
@given(data=st.data())
def test_what_cannot_be_read_is_absent_and_not_zero(
    fuzzed: tuple[type[Probe], FuzzedMachine], data: st.DataObject
) -> None:
    probe_class, machine = fuzzed
    clean = check(machine.samples(probe_class, machine.first, machine.later)[1])
    file = data.draw(st.sampled_from(sorted(machine.later)))
    odd = machine.later | {file: data.draw(mutations(machine.later[file]))}
    for key, value in check(machine.samples(probe_class, machine.first, odd)[1]).items():
        assert value != 0.0 or clean.get(key, 0.0) == 0.0


@QUICK
@given(data=st.data())
def test_odd_files_at_both_samples(
    fuzzed: tuple[type[Probe], FuzzedMachine], data: st.DataObject
) -> None:
    probe_class, machine = fuzzed
    file = data.draw(st.sampled_from(sorted(machine.first)))
    odd = [
        contents | {file: data.draw(mutations(contents[file]) | digits(contents[file]))}
        for contents in (machine.first, machine.later)
    ]
    for samples in machine.samples(probe_class, *odd):
        check(samples)

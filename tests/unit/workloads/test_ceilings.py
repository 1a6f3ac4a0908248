"""Ceilings: the best counts, the disk is measured and left as it was, the wait is bounded."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from probes.roots import Roots
from workloads import ceilings, diskceiling
from workloads.ceilings import MIB, Ceiling, Sweep, best_of, measure, median_rate, roofs, timed
from workloads.device import TORCH_DTYPES, device_dtypes
from workloads.diskceiling import SEGMENT, describe, free_bytes, measure_disk
from workloads.linkceiling import measure_all_reduce, measure_link

pytestmark = pytest.mark.workloads

CPU = torch.device("cpu")
SWEEP = Sweep(((64, 64, 64), (128, 64, 32)), 2 * MIB, repeats=3, binding="bound to 1 of 2 CPUs")


def ceiling(kind: str, per_second: float, dtype: str = "fp32") -> Ceiling:
    return Ceiling(kind, dtype, per_second, 0.0, 1, "any", 3)


def test_the_median_time_makes_the_rate_and_the_spread() -> None:
    found = median_rate("copy", "fp32", 600, "any", [1.0, 3.0, 2.0])
    assert (found.per_second, found.spread, found.repeats) == (300.0, 1.0, 3)


def test_every_kernel_is_measured_and_says_where_it_ran() -> None:
    found = measure(CPU, ("fp32", "bf16"), SWEEP)
    kinds = [(each.kind, each.dtype) for each in found]
    memory = [(kind, "fp32") for kind in ("copy", "triad", "update", "read")]
    assert kinds == [("matmul", "fp32"), ("matmul", "bf16"), *memory]
    assert all(each.per_second > 0 and each.repeats == 3 for each in found)
    assert found[-1].method == "read 2 MiB arrays, median of 3, bound to 1 of 2 CPUs"


def test_a_slow_kernel_is_repeated_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "PATIENCE", 0.02)
    assert len(timed(lambda: time.sleep(0.01), CPU, 50)) == ceilings.FEWEST_REPEATS
    assert len(timed(lambda: None, CPU, 5)) == 5


def test_of_several_rounds_the_best_counts() -> None:
    rounds = [[ceiling("copy", 1.0), ceiling("read", 5.0)], [ceiling("copy", 2.0)]]
    assert best_of(rounds) == [
        replace(ceiling("copy", 2.0), rounds=2),
        replace(ceiling("read", 5.0), rounds=2),
    ]


def test_roofs_are_the_best_of_each_sort_and_ranks_prefer_their_own_link() -> None:
    measured = [
        ceiling("matmul", 9.0),
        ceiling("copy", 2.0),
        ceiling("update", 3.0),
        ceiling("read", 4.0),
        ceiling("h2d", 5.0),
        ceiling("d2h", 7.0),
        ceiling("disk-read", 6.0),
        ceiling("disk-write", 8.0),
    ]
    found = roofs(measured)
    assert found.flops_per_second == {"fp32": 9.0}
    assert (found.bytes_per_second, found.read_bytes_per_second) == (3.0, 4.0)
    assert (found.link_bytes_per_second, found.io_bytes_per_second) == (5.0, 6.0)
    assert roofs([*measured, ceiling("all-reduce", 1.0)]).link_bytes_per_second == 1.0
    assert roofs([]).link_bytes_per_second is None


def test_a_cpu_has_no_link_and_computes_in_all_formats() -> None:
    assert measure_link(CPU, SWEEP) == []
    assert measure_all_reduce(CPU, SWEEP) == []
    assert device_dtypes(CPU) == tuple(TORCH_DTYPES)


def test_the_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    write, read = measure_disk(tmp_path, Roots(), most=4 * SEGMENT)
    assert (write.kind, read.kind) == ("disk-write", "disk-read")
    assert write.per_second > 1e6
    assert read.per_second > 1e6
    assert write.repeats == read.repeats == 3
    assert "4 MiB x 4, O_DIRECT" in write.size
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_where_o_direct_is_refused_the_result_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few file systems still refuse O_DIRECT; every one answers these flags with the same EINVAL.
    monkeypatch.setattr(diskceiling, "DIRECT", os.O_TMPFILE | os.O_CREAT)
    found = measure_disk(tmp_path, Roots(), most=3 * SEGMENT)
    assert [each.kind for each in found] == ["disk-write", "disk-read"]
    assert "O_DIRECT refused" in found[0].size
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_full_or_not_there_is_not_measured(tmp_path: Path) -> None:
    assert measure_disk(tmp_path, Roots(), most=2 * SEGMENT) == []
    assert measure_disk(tmp_path / "none", Roots()) == []
    assert free_bytes(Path("/proc")) == 0


def test_no_more_than_a_tenth_of_what_is_free_is_taken(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    assert free_bytes(tmp_path) == pytest.approx(space.f_bavail * space.f_frsize / 10, rel=0.05)


def test_the_file_system_is_named(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    line = f"36 35 98:0 / {tmp_path} rw,noatime - xfs /dev/sda1 rw\n"
    (tmp_path / "self/mountinfo").write_text(line)
    words = describe(tmp_path, Roots(proc=tmp_path), direct=True)
    assert words == f"4 MiB x 4, O_DIRECT, xfs {tmp_path}"

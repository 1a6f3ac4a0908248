"""What the kernel's files say of the CPU, and which devices are refused."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from probes.roots import Roots
from workloads.device import (
    available_bytes,
    binding,
    check_device,
    device_model,
    driver_version,
    last_level_cache_bytes,
    parse_cache_size,
    parse_cpu_list,
    parse_nvidia_version,
)
from workloads.setting import SettingError

pytestmark = pytest.mark.workloads
CPU = torch.device("cpu")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_caches_shared_by_several_cpus_count_once(tmp_path: Path) -> None:
    for cpu, shared in enumerate(("0-1", "0-1", "2-3", "2-3")):
        cache = tmp_path / f"devices/system/cpu/cpu{cpu}/cache/index3"
        write(cache / "size", "32768K\n")
        write(cache / "shared_cpu_list", f"{shared}\n")
    assert last_level_cache_bytes(Roots(sys=tmp_path)) == 2 * 32 * 1024 * 1024
    assert last_level_cache_bytes(Roots(sys=tmp_path / "none")) == 0


@pytest.mark.parametrize("text", ["", "32768", "-1K", "K", "9" * 40 + "K", "\x00"])
def test_a_broken_cache_size_is_none(text: str) -> None:
    assert parse_cache_size(text) == 0


def test_model_and_memory_are_read_from_proc(tmp_path: Path) -> None:
    write(tmp_path / "cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9354\n")
    write(tmp_path / "meminfo", "MemTotal: 9 kB\nMemAvailable:   2048 kB\n")
    roots = Roots(proc=tmp_path)
    assert device_model(CPU, roots) == "AMD EPYC 9354"
    assert available_bytes(CPU, roots) == 2048 * 1024
    assert device_model(CPU, Roots(proc=tmp_path / "none")) == "cpu"
    assert available_bytes(CPU, Roots(proc=tmp_path / "none")) is None


@pytest.mark.parametrize("device", ["", "gpu", "cuda:x", "cuda:-1", "cuda:99", "cuda:256", "cpu:0"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(SettingError):
        check_device(device)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n"
            "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0)\n",
            "570.86.10",
        ),
        ("GCC version:  gcc version 12.3.0 \n", ""),
        ("", ""),
    ],
)
def test_the_drivers_version_is_read_from_its_own_words(text: str, version: str) -> None:
    assert parse_nvidia_version(text) == version


def test_the_driver_of_a_cpu_is_the_kernel(tmp_path: Path) -> None:
    write(tmp_path / "sys/kernel/osrelease", "6.1.0-18-amd64\n")
    assert driver_version(CPU, Roots(proc=tmp_path)) == "6.1.0-18-amd64"
    assert driver_version(CPU, Roots(proc=tmp_path / "none")) == ""


def test_binding_names_cpus_and_numa_nodes(tmp_path: Path) -> None:
    for node, cpus in enumerate(("0-3,8", "4-7")):
        write(tmp_path / f"devices/system/node/node{node}/cpulist", f"{cpus}\n")
    assert binding(Roots(sys=tmp_path), {0, 8}).endswith("CPUs, NUMA node 0 of 2")
    assert binding(Roots(sys=tmp_path), {3, 4}).endswith("CPUs, NUMA node 0,1 of 2")
    assert binding(Roots(sys=tmp_path / "none"), {3, 4}).startswith("bound to 2 of ")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-2,5\n", {0, 1, 2, 5}), ("", set()), ("x,-1,3", {3}), ("5-2", set()), ("9" * 30, set())],
)
def test_cpu_lists_are_read_as_the_kernel_writes_them(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus

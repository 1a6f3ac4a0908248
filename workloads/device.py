"""The device that a workload runs on: its name, its memory, waiting for it."""

import functools
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch

from probes.parsing import read_text
from probes.roots import Roots
from workloads.hostmemory import available_host_bytes
from workloads.setting import SettingError

AMPERE = (8, 0)
"""First compute capability with bf16 arithmetic."""

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_device() -> str:
    """Return "cuda" where torch finds a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_dtype(device: str) -> str:
    """Return what the device computes fastest and trains well in; fp32 on a CPU, for comparison."""
    if not device.startswith("cuda"):
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= AMPERE else "fp16"


def device_dtypes(device: torch.device) -> tuple[str, ...]:
    """Return the number formats that the device has arithmetic in."""
    no_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) < AMPERE
    return tuple(dtype for dtype in TORCH_DTYPES if not (no_bf16 and dtype == "bf16"))


def check_device(device: str, dtype: str = "fp32") -> None:
    """Refuse with a `SettingError` a device that is not here, or lacks arithmetic in `dtype`."""
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device, re.ASCII):
        raise SettingError(f"unknown device {device!r}: cpu, cuda or cuda:N")
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:  # torch keeps an index in 8 bits, and wraps
        raise SettingError(f"device {device} is not here: torch finds {count} CUDA devices")
    if dtype == "bf16" and torch.cuda.get_device_capability(device) < AMPERE:
        raise SettingError(f"{torch.cuda.get_device_name(device)} has no bf16 arithmetic")


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until the device has finished its work."""
    if device.type == "cuda":
        return functools.partial(torch.cuda.synchronize, device)
    return _nothing


def device_model(device: torch.device, roots: Roots) -> str:
    """Return the device's model name: the driver's for a GPU, /proc/cpuinfo's for the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return parse_cpu_model(_read(roots.proc / "cpuinfo"))


def parse_cpu_model(cpuinfo: str) -> str:
    """Return the first "model name" of /proc/cpuinfo, "cpu" where there is none (arm64)."""
    found = re.search(r"^model name\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else "cpu"


def device_identity(device: torch.device) -> str:
    """Return what tells a device of this node from the others: a GPU's UUID, or "cpu"."""
    if device.type != "cuda":
        return device.type
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def driver_version(device: torch.device, roots: Roots) -> str:
    """Return the version of the GPU's kernel driver, the kernel's own for the CPU; "" if unknown.

    Source: /proc/driver/nvidia/version, /sys/module/amdgpu/version, /proc/sys/kernel/osrelease.
    """
    if device.type != "cuda":
        return _read(roots.proc / "sys/kernel/osrelease").strip()
    nvidia = parse_nvidia_version(_read(roots.proc / "driver/nvidia/version"))
    return nvidia or _read(roots.sys / "module/amdgpu/version").strip()


def parse_nvidia_version(text: str) -> str:
    """Return "550.54.15" from the driver's "NVRM version" line; "" where there is none."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", text, re.MULTILINE | re.ASCII)
    return found[1] if found else ""


def binding(roots: Roots, cpus: Collection[int] | None = None) -> str:
    """Say which CPUs this process may use, and on which NUMA nodes they are.

    Source: sched_getaffinity(2), /sys/devices/system/node/node*/cpulist.
    """
    bound = os.sched_getaffinity(0) if cpus is None else cpus
    nodes = numa_nodes(roots)
    used = sorted(node for node, holds in nodes.items() if holds & set(bound))
    words = f"bound to {len(bound)} of {os.cpu_count()} CPUs"
    return f"{words}, NUMA node {','.join(map(str, used))} of {len(nodes)}" if used else words


def numa_nodes(roots: Roots) -> Mapping[int, set[int]]:
    """Return the CPUs of each NUMA node; empty where sysfs does not say."""
    folders = roots.sys.glob("devices/system/node/node[0-9]*")
    return {int(node.name[4:]): parse_cpu_list(_read(node / "cpulist")) for node in folders}


def parse_cpu_list(text: str) -> set[int]:
    """Return the CPUs of the kernel's "0-3,8"; parts that are no range of CPUs are left out."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part, re.ASCII)
        if found:
            cpus.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return cpus


def last_level_cache_bytes(roots: Roots) -> int:
    """Return the size of all level-3 caches together; 0 where sysfs does not say."""
    caches = sorted(roots.sys.glob("devices/system/cpu/cpu[0-9]*/cache/index3"))
    sizes = {_read(cache / "shared_cpu_list"): _read(cache / "size") for cache in caches}
    return sum(parse_cache_size(size) for size in sizes.values())


def parse_cache_size(text: str) -> int:
    """Return bytes from sysfs' "32768K"; 0 for anything else."""
    found = re.fullmatch(r"(\d{1,12})K\s*", text, re.ASCII)
    return int(found[1]) * 1024 if found else 0


def available_bytes(device: torch.device, roots: Roots) -> int | None:
    """Return free memory of the device: the driver's word, or what this process can still have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_host_bytes(roots)


def _read(path: Path) -> str:
    return read_text(path) or ""


def _nothing() -> None:
    """Wait for nothing: the CPU is done when a call returns."""

"""Datasheets: found by driver name, and with the ridges that follow."""

import pytest

from workloads.hardware import DATASHEETS, find_peaks


@pytest.mark.parametrize(
    ("driver_name", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40 GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("NVIDIA A40", "A40"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2 32 GB"),
        ("Tesla V100-PCIE-16GB", "V100 PCIe 16 GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA B200", "B200"),
        ("AMD Instinct MI250X", "MI250X die"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_device_is_found_by_the_name_its_driver_gives(driver_name: str, name: str) -> None:
    peaks = find_peaks(driver_name)
    assert peaks is not None
    assert peaks.name == name


@pytest.mark.parametrize(
    "driver_name",
    [
        "",
        "AMD EPYC",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA L40",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA GB200",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    ],
)
def test_what_the_table_lacks_is_not_guessed(driver_name: str) -> None:
    assert find_peaks(driver_name) is None


@pytest.mark.parametrize(
    ("driver_name", "dtype", "ridge"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 153.0),
        ("NVIDIA A40", "fp16", 215.1),
        ("Tesla V100-SXM2-16GB", "fp16", 138.9),
        ("Tesla T4", "fp16", 203.1),
        ("NVIDIA H100 80GB HBM3", "bf16", 295.2),
        ("AMD Instinct MI250X", "bf16", 116.9),
    ],
)
def test_ridge_follows_from_the_peaks(driver_name: str, dtype: str, ridge: float) -> None:
    peaks = find_peaks(driver_name)
    assert peaks is not None
    assert peaks.ridge(dtype) == pytest.approx(ridge, rel=1e-3)


def test_v100_and_t4_have_no_bf16() -> None:
    for driver_name in ("Tesla V100-SXM2-16GB", "Tesla T4"):
        peaks = find_peaks(driver_name)
        assert peaks is not None
        assert peaks.ridge("bf16") is None


def test_every_row_is_sourced_and_plausible() -> None:
    for peaks in DATASHEETS:
        assert peaks.source
        assert 1e11 < peaks.bytes_per_second < 1e13
        assert peaks.flops_per_second["fp64"] < peaks.flops_per_second["fp16"]


def test_a_ceiling_is_held_against_the_peak_of_its_sort() -> None:
    peaks = find_peaks("NVIDIA A100-SXM4-80GB")
    assert peaks is not None
    assert peaks.peak("matmul", "bf16") == 312e12
    assert peaks.peak("matmul", "fp32") == 19.5e12
    assert peaks.peak("triad", "fp32") == peaks.peak("read", "fp32") == 2039e9
    assert peaks.peak("h2d", "byte") is peaks.peak("disk-read", "byte") is None


def test_only_published_shares_are_expected() -> None:
    peaks, unpublished = find_peaks("NVIDIA A100-SXM4-80GB"), find_peaks("Tesla T4")
    assert peaks is not None
    assert unpublished is not None
    assert peaks.attainable_ratio("matmul", "bf16") == 0.869
    assert peaks.attainable_ratio("matmul", "fp32") is None
    assert peaks.attainable_ratio("copy", "fp32") == 0.83
    assert unpublished.attainable_ratio("matmul", "fp16") is None
    assert all(0 < (share or 1) < 1.01 for peaks in DATASHEETS for share in peaks.attainable)

"""GPM, the GPU performance monitoring of Hopper and later: activity of pipes, memory and links.

A metric is computed between two samples of hardware counters. Keeping the sample of the tick
before makes it the exact mean over the whole interval, however long: no burst is missed.

Source: NVML, `nvmlGpmSampleGet` and `nvmlGpmMetricsGet`; nvml.h, `nvmlGpmMetricId_t`.
"""

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from types import ModuleType
from typing import NamedTuple

from probes.nvml import Device

SHORTEST_INTERVAL = 0.1
"""Seconds that must lie between two samples (nvml.h)."""

RATIOS = {
    1: "graphics_active_ratio",
    2: "sm_active_ratio",
    3: "sm_occupancy_ratio",
    4: "integer_active_ratio",
    5: "tensor_active_ratio",
    6: "dfma_active_ratio",
    7: "hmma_active_ratio",
    9: "imma_active_ratio",
    10: "dram_active_ratio",
    11: "fp64_active_ratio",
    12: "fp32_active_ratio",
    13: "fp16_active_ratio",
}
"""Our field by metric id; GPM gives percent."""

RATES = {
    20: "pcie_transmit_bytes_per_second",
    21: "pcie_receive_bytes_per_second",
    60: "nvlink_receive_bytes_per_second",
    61: "nvlink_transmit_bytes_per_second",
}
"""Our field by metric id; GPM gives MiB/s."""

ASKED = len(RATIOS) + len(RATES)

METRIC = Struct("IId24x")
"""`nvmlGpmMetric_t`: id, NVML's return, value, and three texts that are not for us. Unpacked at
once: half of the time of the binding's attributes."""

MEBI = 2.0**20
PERCENT_SLACK = 0.5
"""Rounding may carry GPM just over 100 %; more than this is nonsense."""


class Reading(NamedTuple):
    """Means over the interval between two samples.

    Attributes:
        seconds: length of the interval.
        fields: ratios (0..1) and rates (bytes per second) by our field name.

    """

    seconds: float
    fields: dict[str, float]


class Meter:
    """Reads one GPU, or MIG instance, from one call of `read` to the next.

    Args:
        device: the GPU, which is asked for samples.
        monotonic: clock in seconds.
        instance: id of the MIG GPU instance to sample, or None for the whole GPU.

    """

    def __init__(
        self, device: Device, monotonic: Callable[[], float], instance: int | None = None
    ) -> None:
        self._device = device
        self._monotonic = monotonic
        self._question: tuple[str, *tuple[int, ...]] = ("nvmlGpmSampleGet",)
        if instance is not None:
            self._question = ("nvmlGpmMigSampleGet", instance)
        self._older = device.nvml.nvmlGpmSampleAlloc()
        self._newer = device.nvml.nvmlGpmSampleAlloc()
        self._older_time = -math.inf
        self._request = _request(device.nvml)
        self._answers = memoryview(self._request.metrics).cast("B")[: ASKED * METRIC.size]

    def read(self) -> Reading | None:
        """Return the means since the last reading; None at first, too early, or on an error.

        Raises:
            GpuLost: NVML says so.

        """
        now = self._monotonic()
        seconds = now - self._older_time
        if seconds < SHORTEST_INTERVAL or not self._take_sample():
            return None
        computed = math.isfinite(seconds) and self._compute()
        self._older, self._newer = self._newer, self._older
        self._older_time = now
        return Reading(seconds, dict(self._fields())) if computed else None

    def close(self) -> None:
        """Free both samples."""
        self._device.nvml.nvmlGpmSampleFree(self._older)
        self._device.nvml.nvmlGpmSampleFree(self._newer)

    def _take_sample(self) -> bool:
        call, *arguments = self._question
        return self._device.ask(bool, call, *arguments, last=self._newer) is not None

    def _compute(self) -> bool:
        self._request.sample1, self._request.sample2 = self._older, self._newer
        try:
            self._device.nvml.nvmlGpmMetricsGet(self._request)
        except self._device.nvml.NVMLError:
            return False
        return True

    def _fields(self) -> Iterator[tuple[str, float]]:
        success = self._device.nvml.NVML_SUCCESS
        for identifier, code, told in METRIC.iter_unpack(self._answers):
            if code != success:
                continue
            if identifier in RATES:
                field, value = RATES[identifier], _rate(told)
            else:
                field, value = RATIOS[identifier], _ratio(told)
            if value is not None:
                yield field, value


def mean(readings: Sequence[Reading]) -> dict[str, float]:
    """Return the means over all readings; where one lacks a field, over the others."""
    if len(readings) == 1:
        return readings[0].fields
    sums: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for reading in readings:
        for name, value in reading.fields.items():
            sums[name] = sums.get(name, 0.0) + value * reading.seconds
            seconds[name] = seconds.get(name, 0.0) + reading.seconds
    return {name: total / seconds[name] for name, total in sums.items()}


def supported(device: Device) -> bool:
    """Tell whether the GPU has GPM; raises `GpuLost`."""
    return bool(device.ask(lambda answer: answer.isSupportedDevice, "nvmlGpmQueryDeviceSupport"))


def _request(nvml: ModuleType) -> ctypes.Structure:
    request: ctypes.Structure = nvml.c_nvmlGpmMetricsGet_t()
    request.version = nvml.NVML_GPM_METRICS_GET_VERSION
    request.numMetrics = ASKED
    for identifier, metric in zip((*RATIOS, *RATES), request.metrics, strict=False):
        metric.metricId = identifier
    return request


def _ratio(percent: float) -> float | None:
    """Return 0..1, or None for NaN and what is outside 0..100 % by more than rounding."""
    if not 0.0 <= percent <= 100.0 + PERCENT_SLACK:
        return None
    return min(percent / 100.0, 1.0)


def _rate(mebibytes_per_second: float) -> float | None:
    """Return bytes per second, or None for NaN, infinity and below 0."""
    if not 0.0 <= mebibytes_per_second < math.inf:
        return None
    return mebibytes_per_second * MEBI

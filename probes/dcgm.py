"""Activity of pipes, memory and links from a DCGM exporter, for GPUs that have no GPM.

Before Hopper only DCGM's profiling module, which needs root, can read these counters. Its exporter
gives them to anyone who asks by HTTP; each value is the mean over the exporter's own interval
(30 s unless it is told otherwise), whatever ours is.

Source: NVIDIA, "DCGM API Reference", field identifiers 1001 to 1016; dcgm-exporter, README.
"""

import math
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from probes.sample import Sample, Value
from probes.timedhttp import TimedResponse

TIMEOUT_SECONDS = 0.3
"""For connecting, and for the whole answer."""

RETRY_SECONDS = 30.0
"""An exporter that did not answer is left alone for so long: it must not cost NVML its deadline."""

LARGEST_PAGE = 4 << 20
BLANK_FROM = 2.0**46
"""DCGM's blanks, 2**47 upwards as real numbers and 2**63 - 16 upwards as integers (dcgm_structs.h),
lie above; no link carries so many bytes per second."""

RATIOS = {
    # its name of old, and its new one
    "GR_ENGINE_ACTIVE GR_ENGINE_UTIL_RATIO": "graphics_active_ratio",
    "SM_ACTIVE SM_UTIL_RATIO": "sm_active_ratio",
    "SM_OCCUPANCY SM_OCCUPANCY_RATIO": "sm_occupancy_ratio",
    "PIPE_TENSOR_ACTIVE TENSOR_UTIL_RATIO": "tensor_active_ratio",
    "DRAM_ACTIVE DRAM_UTIL_RATIO": "dram_active_ratio",
    "PIPE_FP64_ACTIVE FP64_UTIL_RATIO": "fp64_active_ratio",
    "PIPE_FP32_ACTIVE FP32_UTIL_RATIO": "fp32_active_ratio",
    "PIPE_FP16_ACTIVE FP16_UTIL_RATIO": "fp16_active_ratio",
    "PIPE_TENSOR_IMMA_ACTIVE IMMA_UTIL_RATIO": "imma_active_ratio",
    "PIPE_TENSOR_HMMA_ACTIVE HMMA_UTIL_RATIO": "hmma_active_ratio",
    "PIPE_TENSOR_DFMA_ACTIVE DFMA_UTIL_RATIO": "dfma_active_ratio",
    "PIPE_INT_ACTIVE INT_UTIL_RATIO": "integer_active_ratio",
}
RATES = {
    "PCIE_TX_BYTES": "pcie_transmit_bytes_per_second",
    "PCIE_RX_BYTES": "pcie_receive_bytes_per_second",
    "NVLINK_TX_BYTES": "nvlink_transmit_bytes_per_second",
    "NVLINK_RX_BYTES": "nvlink_receive_bytes_per_second",
}
FIELDS = {
    f"DCGM_FI_PROF_{name}": field
    for names, field in (*RATIOS.items(), *RATES.items())
    for name in names.split()
}
"""Our field by the exporter's name of it."""

WANTED = ("tensor_active_ratio", "dram_active_ratio", "fp32_active_ratio", "fp64_active_ratio")
"""Without these there is no sure label; the exporter's default table leaves the last two out."""

_LINE = re.compile(r"(DCGM_FI_PROF_\w+)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text: str) -> dict[str, dict[str, float]]:
    """Return our fields by UUID of whole GPUs; ratios 0..1, rates in bytes per second.

    Blanks, values outside their range, and the lines of MIG instances, which carry their parent's
    UUID, are left out.
    """
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, labels, number in _LINE.findall(text):
        field = FIELDS.get(name)
        names = dict(_LABEL.findall(labels))
        if field is None or names.get("GPU_I_ID") or "UUID" not in names:
            continue
        value = _value(number, 1.0 if field.endswith("_ratio") else BLANK_FROM)
        if value is not None:
            found[names["UUID"]][field] = value
    return dict(found)


class _Answer(TimedResponse):
    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - the library's own
        self._deadline = time.monotonic() + TIMEOUT_SECONDS
        super().__init__(*arguments, **named)

    def left(self) -> float:
        if (seconds := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return seconds


class _Connection(HTTPConnection):
    response_class = _Answer


class _TlsConnection(HTTPSConnection):
    response_class = _Answer


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Tls(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, req)


class DcgmExporter:
    """Asks an exporter for what NVML does not give.

    Args:
        url: of its metrics, such as http://localhost:9400/metrics; http or https.
        monotonic: clock in seconds.

    """

    def __init__(self, url: str, monotonic: Callable[[], float]) -> None:
        self._url = url
        self._monotonic = monotonic
        self._again_at = -math.inf
        self._trouble = ""
        # no proxy of the environment comes between this node and itself
        no_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(no_proxy, _Plain(), _Tls())

    def complete(self, samples: Iterable[Sample]) -> list[Sample]:
        """Return the `gpu` samples, those without GPM with the exporter's fields added.

        One request, and none if every GPU has GPM. An exporter that does not answer adds nothing.
        """
        known = list(samples)
        if all(sample.fields.get("source") == "gpm" for sample in known):
            return known
        told = self._ask()
        return [_completed(sample, told.get(dict(sample.tags)["uuid"], {})) for sample in known]

    def limits(self) -> list[str]:
        """Say what the exporter does not give."""
        return [f"DCGM exporter at {self._url} {self._trouble}"] if self._trouble else []

    def _ask(self) -> Mapping[str, Mapping[str, float]]:
        if self._monotonic() < self._again_at:
            return {}
        try:
            with self._opener.open(self._url, timeout=TIMEOUT_SECONDS) as answer:
                page = answer.read(LARGEST_PAGE).decode("utf-8", errors="replace")
        except (OSError, HTTPException, ValueError) as error:
            self._again_at = self._monotonic() + RETRY_SECONDS
            self._trouble = f"does not answer: {error}"
            return {}
        told = parse_metrics(page)
        self._trouble = _missing(told)
        return told


def _value(number: str, highest: float) -> float | None:
    try:
        value = float(number)
    except ValueError:
        return None
    return value if 0.0 <= value <= highest else None


def _completed(sample: Sample, told: Mapping[str, float]) -> Sample:
    if not told or sample.fields.get("source") == "gpm":
        return sample
    fields: dict[str, Value] = {**sample.fields, **told, "source": "dcgm"}
    return sample._replace(fields=fields)


def _missing(told: Mapping[str, Mapping[str, float]]) -> str:
    if not told:
        return "gives no profiling fields: add DCGM_FI_PROF_* to its table of counters"
    lacking = {name for fields in told.values() for name in WANTED if name not in fields}
    wanted = [name for name, field in FIELDS.items() if field in lacking and "ACTIVE" in name]
    return f"lacks {', '.join(wanted)}: add them to its table of counters" if wanted else ""

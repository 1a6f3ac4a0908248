"""A thin typed layer over NVML. What a device does not support is asked for only once.

Source: NVIDIA, "NVML API Reference Guide"; the binding is nvidia-ml-py (module `pynvml`).
"""

import ctypes
from collections.abc import Callable, Iterable
from contextlib import suppress
from struct import Struct
from types import ModuleType
from typing import TypeVar

from probes.probe import ProbeUnavailable

T = TypeVar("T")

FieldId = tuple[int, int]
"""Field and scope of `nvmlDeviceGetFieldValues`."""

ALL_LINKS = 0xFFFFFFFF
"""Scope of the NVLink fields that sums over the links (nvml.h)."""

FIELD_VALUE = Struct("IIqqII8s")
"""`nvmlFieldValue_t`: field, scope, time, latency, type of the value, NVML's return, value. Arrays
of it are unpacked at once: three quarters of the time of the binding's attributes."""

_VALUES = tuple(map(Struct, ("d", "I", "L", "Q", "q", "i", "H")))
"""How `nvmlValue_t` is read, by `nvmlValueType_t`: double, unsigned int, unsigned long, unsigned
long long, signed long long, signed int, unsigned short."""

_BLANKS = {1: 2**32 - 1, 2: 2**64 - 1, 3: 2**64 - 1}
"""NVML_VALUE_NOT_AVAILABLE, by type."""


MOST_EVENTS = 64
"""Xid events that are taken at one tick: a dying GPU may send them faster than we read."""


class GpuLost(Exception):
    """The GPU fell off the bus: nothing on it answers until it is reset."""


def start() -> tuple[ModuleType, int]:
    """Load the binding, initialize NVML and count the GPUs; pair with `nvmlShutdown`.

    Raises:
        ProbeUnavailable: there is no driver, or it refuses.

    """
    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # spares nodes without a GPU the import of pynvml
    except OSError:
        raise ProbeUnavailable("no NVIDIA driver: libnvidia-ml.so.1 not found") from None
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise ProbeUnavailable(f"NVIDIA driver does not answer: {error}") from None


class Device:
    """The handle of a GPU or MIG instance, and what it was found not to support.

    Attributes:
        nvml: the binding.
        handle: NVML's handle.

    """

    def __init__(self, nvml: ModuleType, handle: object) -> None:
        self.nvml = nvml
        self.handle = handle
        self._unsupported: set[object] = set()
        self._permanent = {
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        }

    def ask(
        self, take: Callable[..., T], call: str, *arguments: int, last: object = None
    ) -> T | None:
        """Return `take` of what the call gives for this device, or None.

        An error that will not go away is remembered, and the call not made again with the same
        arguments; `last`, a buffer or a list that comes after them, makes no difference.

        Raises:
            GpuLost: NVML says so.

        """
        question = (call, *arguments)
        if question in self._unsupported:
            return None
        try:
            function = getattr(self.nvml, call)
            if last is None:
                return take(function(self.handle, *arguments))
            return take(function(self.handle, *arguments, last))
        except self.nvml.NVMLError as error:
            self._judge(error.value, question)
            return None

    def number(self, call: str, *arguments: int) -> float | None:
        """Return the number that the call gives, or None; raises as `ask`."""
        return self.ask(float, call, *arguments)

    def field_values(self, wanted: Iterable[FieldId]) -> dict[FieldId, float]:
        """Return the fields that can be read, in one call of the driver.

        Raises:
            GpuLost: NVML says so.

        """
        asked = [field for field in wanted if field not in self._unsupported]
        call = "nvmlDeviceGetFieldValues"
        answers = self.ask(FIELD_VALUE.iter_unpack, call, last=asked) if asked else None
        values = {}
        for field, (*_, kind, code, union) in zip(asked, answers or (), strict=False):
            if code != self.nvml.NVML_SUCCESS:
                self._judge(code, field)
            elif (value := _value(kind, union)) is not None:
                values[field] = value
        return values

    def lacks(self, question: object) -> bool:
        """Tell whether a field id, or a call's name with its arguments, was found unsupported."""
        return question in self._unsupported

    def _judge(self, code: int, question: object) -> None:
        if code == self.nvml.NVML_ERROR_GPU_IS_LOST:
            raise GpuLost
        if code in self._permanent:
            self._unsupported.add(question)


class XidEvents:
    """Counts the critical Xid events of each GPU since it was first watched."""

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        self._counts: dict[int, int] = {}  # by the handle's address
        self._set: object | None = None
        with suppress(nvml.NVMLError):
            self._set = nvml.nvmlEventSetCreate()

    def watch(self, device: Device) -> None:
        """Begin to count, if the GPU tells of such events; raises `GpuLost`."""
        kind = self._nvml.nvmlEventTypeXidCriticalError
        call = "nvmlDeviceRegisterEvents"
        if self._set is not None and device.ask(lambda _: True, call, kind, last=self._set):
            self._counts[_address(device.handle)] = 0

    def collect(self) -> None:
        """Take the events that wait, without waiting for more."""
        for _ in range(MOST_EVENTS if self._counts else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
            except self._nvml.NVMLError:  # nearly always: Timeout, there is none
                return
            address = _address(event.device)
            self._counts[address] = self._counts.get(address, 0) + 1

    def count(self, device: Device) -> dict[str, float]:
        """Return the field, if the GPU is watched."""
        count = self._counts.get(_address(device.handle))
        return {} if count is None else {"xid_errors_total": float(count)}

    def close(self) -> None:
        """Give back the event set."""
        if self._set is not None:
            self._nvml.nvmlEventSetFree(self._set)


def _address(handle: object) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def _value(kind: int, union: bytes) -> float | None:
    """Return the number that `nvmlValue_t` holds; None if it is blank, or of a new type."""
    if kind >= len(_VALUES):
        return None
    (value,) = _VALUES[kind].unpack_from(union)
    return None if value == _BLANKS.get(kind) else float(value)

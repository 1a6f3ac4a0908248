"""NVIDIA GPUs and MIG instances, through NVML, and through GPM on Hopper and later.

With MIG on, the GPU's own sample (tag `gpu="0"`) carries what belongs to the board: power, energy,
temperature, clocks, links. Each instance has a sample of its own (`gpu="0.1"`): memory, processes
and GPM; NVML gives no utilization there.

Source: NVIDIA, "NVML API Reference Guide".
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from probes import gpm, nvml
from probes.gpu_device import NO_GPM, Gpu, Place, SeenGpu
from probes.nvml import Device, GpuLost
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample

if TYPE_CHECKING:
    from probes.dcgm import DcgmExporter

REFRESH_SECONDS = 60.0
"""How often MIG instances, and GPUs that did not answer, are looked for."""

GLANCE_SECONDS = 0.5
"""How often GPM is read between two samples, so that a label is of a moment and not of a mixture of
phases. Phases of 5 s: 97 % of the time labelled right; 93 % if it were read every 1.1 s. It costs
0.04 ms of CPU for each GPU."""

OFTEN_ENOUGH_SECONDS = 1.5
"""Between samples that follow each other so soon, no glance is needed."""

LOST = "lost: it fell off the bus; reset it or restart the node"


class GpuProbe(Probe):
    """Reads every GPU that the driver shows to this process.

    Attributes:
        seen: every GPU and MIG instance at the last sample, in NVML's order (that of PCI
            addresses), an instance after its GPU. It is replaced as a whole, never changed.

    """

    name = "gpu"
    own_thread = True

    def __init__(self, context: Context) -> None:
        self._monotonic = context.monotonic
        self._nvml, self._count = nvml.start()
        self.seen: tuple[SeenGpu, ...] = ()
        self._sample_time = -math.inf
        # of several samples: one that a job's start brings about may follow another at once
        self._intervals: deque[float] = deque([math.inf], maxlen=3)
        self._gpus: dict[str, Gpu] = {}
        self._unreachable: dict[str, str] = {}
        self._lost: list[Gpu] = []
        self._xids = nvml.XidEvents(self._nvml)
        self._dcgm = _exporter(context)
        self._refresh()
        if not self._gpus:
            self.close()
            raise ProbeUnavailable("; ".join(self.limits()) or "NVIDIA driver without a GPU")

    def sample(self) -> Sequence[Sample]:
        """Read all GPUs; a lost one is left out, and `limits` tells of it.

        Raises:
            OSError: no GPU answers.

        """
        now = self._monotonic()
        self._intervals.append(now - self._sample_time)
        self._sample_time = now
        if now - self._refresh_time >= REFRESH_SECONDS:
            self._refresh()
        self._xids.collect()
        samples, lost = [], []
        for gpu in self._gpus.values():
            try:
                samples.append(Sample("gpu", gpu.tags, gpu.read() | self._xids.count(gpu.device)))
            except GpuLost:
                gpu.forget()
                lost.append(gpu)
        self._lost = lost
        self.seen = tuple(self._all_seen())
        if not samples:
            raise OSError("no GPU answers: all are lost")
        return self._dcgm.complete(samples) if self._dcgm else samples

    def glance_seconds(self) -> float | None:
        """Return how often to `glance`: not at all without GPM, or if samples come often."""
        has_gpm = any(gpu.meter is not None for gpu in self._gpus.values())
        seldom = max(self._intervals) > OFTEN_ENOUGH_SECONDS
        return GLANCE_SECONDS if has_gpm and seldom else None

    def freshen(self) -> None:
        """Have the next sample read memory errors, too."""
        for gpu in self._gpus.values():
            gpu.freshen()

    def glance(self) -> None:
        """Read GPM of every GPU; the next sample tells what was seen, and who does not answer."""
        for gpu in self._gpus.values():
            with suppress(GpuLost):
                gpu.glance()

    def limits(self) -> Sequence[str]:
        """Say which GPUs do not answer, and what the others do not give."""
        lines = [f"GPU {index}: {reason}" for index, reason in self._unreachable.items()]
        indices: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for gpu in self._lost:
            indices[gpu.model, LOST].append(gpu.index)
        for gpu in self._gpus.values():
            for limit in gpu.limits():
                if self._dcgm is None or limit != NO_GPM:
                    indices[gpu.model, limit].append(gpu.index)
        lines += [f"GPU {', '.join(who)} ({model}): {it}" for (model, it), who in indices.items()]
        return [*lines, *self._dcgm.limits()] if self._dcgm else lines

    def close(self) -> None:
        """Free GPM's samples and the events, and shut NVML down."""
        for gpu in self._gpus.values():
            gpu.close()
        self._xids.close()
        self._nvml.nvmlShutdown()

    def _all_seen(self) -> Iterator[SeenGpu]:
        for index in map(str, range(self._count)):
            if index not in self._gpus:
                yield SeenGpu(index)
            for gpu in self._gpus.values():
                if gpu.index.partition(".")[0] == index:
                    yield gpu.seen()

    def _refresh(self) -> None:
        """Find GPUs and MIG instances; those known stay as they are, with their totals."""
        self._refresh_time = self._monotonic()
        self._unreachable = {}
        found: dict[str, Gpu] = {}
        for index in map(str, range(self._count)):
            gpu = self._gpus.get(index) or self._open(index)
            if gpu is not None:
                found[gpu.index] = gpu
                found.update((instance.index, instance) for instance in self._instances(gpu))
        for known in self._gpus.values():
            if found.get(known.index) is not known:
                known.close()
        self._gpus = found

    def _open(self, index: str) -> Gpu | None:
        try:
            device = Device(self._nvml, self._nvml.nvmlDeviceGetHandleByIndex(int(index)))
            meter = gpm.Meter(device, self._monotonic) if gpm.supported(device) else None
            minor = device.ask(int, "nvmlDeviceGetMinorNumber")
            gpu = Gpu(index, device, meter, Place(minor), self._monotonic)
            self._xids.watch(device)
        except GpuLost:
            self._unreachable[index] = LOST
        except self._nvml.NVMLError as error:
            self._unreachable[index] = f"does not answer: {error}"
        else:
            return gpu
        return None

    def _instances(self, gpu: Gpu) -> Iterator[Gpu]:
        """Yield the MIG instances of a GPU; one that is known by its UUID stays as it is."""
        try:
            for number, device in mig_devices(gpu.device):
                index = f"{gpu.index}.{number}"
                known = self._gpus.get(index)
                if known is None or known.uuid != device.ask(str, "nvmlDeviceGetUUID"):
                    known = self._open_instance(index, device, gpu)
                yield known
        except (GpuLost, self._nvml.NVMLError):
            return  # the next reading of the GPU itself will say so

    def _open_instance(self, index: str, device: Device, parent: Gpu) -> Gpu:
        instance = device.ask(int, "nvmlDeviceGetGpuInstanceId")
        compute = device.ask(int, "nvmlDeviceGetComputeInstanceId")
        meter = None
        if instance is not None and parent.meter is not None:
            meter = gpm.Meter(parent.device, self._monotonic, instance)
        both = None if instance is None or compute is None else (instance, compute)
        return Gpu(index, device, meter, Place(parent.place.minor, both), self._monotonic)


def _exporter(context: Context) -> "DcgmExporter | None":
    if not context.dcgm_url:
        return None
    from probes.dcgm import DcgmExporter  # brings an HTTP client, which other nodes are spared

    return DcgmExporter(context.dcgm_url, context.monotonic)


def mig_devices(device: Device) -> Iterator[tuple[int, Device]]:
    """Yield number and handle of each MIG instance of a GPU; none with MIG off.

    Raises:
        GpuLost: NVML says so.

    """
    modes = device.ask(tuple, "nvmlDeviceGetMigMode")
    if modes is None or modes[0] != device.nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for number in range(int(device.number("nvmlDeviceGetMaxMigDeviceCount") or 0)):
        handle = device.ask(lambda it: it, "nvmlDeviceGetMigDeviceHandleByIndex", number)
        if handle is not None:
            yield number, Device(device.nvml, handle)

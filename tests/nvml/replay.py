"""A GPU probe on a trace whose time stands still until a test moves it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from probes.gpu import GpuProbe
from probes.gpu_device import SeenGpu
from probes.probe import Context
from probes.sample import Value

Fields = Mapping[str, Value]


class Replay:
    """A probe on a trace whose time stands still until a test moves it."""

    def __init__(self, clock: Path) -> None:
        self._clock = clock
        self._now = 0.0
        self.move_to(0.0)
        self.probe = GpuProbe(Context(monotonic=lambda: self._now))
        self._open = True

    def move_to(self, seconds: float) -> None:
        self._now = seconds
        self._clock.write_text(str(seconds))

    def at(self, seconds: float) -> dict[str, Fields]:
        """Sample at a time; return the fields by GPU."""
        self.move_to(seconds)
        return {dict(sample.tags)["gpu"]: sample.fields for sample in self.probe.sample()}

    def seen(self, seconds: float) -> dict[str, SeenGpu]:
        """Sample at a time; return what tells whose the GPUs are."""
        self.move_to(seconds)
        self.probe.sample()
        return {gpu.index: gpu for gpu in self.probe.seen}

    def close(self) -> None:
        if self._open:
            self.probe.close()
        self._open = False


StartReplay = Callable[..., Replay]

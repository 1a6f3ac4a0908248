"""A look at this node by its own probes: no store, no agent, and nothing written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.daemon import runners
from agent.labels import gpuroofs
from agent.labels.bounds import Labeller
from agent.plausible import plausible
from agent.relay import Relay
from agent.runner import Runner, open_all, read_now
from agent.top.history import History
from agent.top.model import Frame
from agent.top.notices import HANGS
from agent.top.processes import Processes
from agent.top.readings import Growth, host_of
from probes.gpu import GpuProbe
from probes.gpu_device import SeenGpu
from probes.roots import Roots
from probes.sample import Sample


class Here:
    """Looks at this node with every probe that is not disabled.

    Args:
        config: which probes, and what they cannot find out by themselves.
        roots: where the kernel's files are; processes are always those of this machine.
        patience: seconds that sources which can hang are waited for at first; one that is later
            is there from then on.
        clock: both clocks.

    """

    def __init__(
        self, config: Config, roots: Roots, patience: float, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._host = config.host_name()
        self._deadline = config.agent.deadline_seconds
        self._runners = runners(config, roots)
        self._labeller = Labeller(gpuroofs.load(_roofs_file(config)))
        self._growth = Growth()
        self._processes = Processes()
        self._histories: dict[str, History] = {}
        self._stalled: dict[str, int] = {}
        self._last_ms = 0
        self._relay = Relay(self._deadline)
        open_all(self._runners, self._relay, self._clock.monotonic() + patience)

    def read(self) -> Frame:
        """Take a look; rates and bounds are those since the look before."""
        now, time_ms = self._clock.monotonic(), round(self._clock.time() * 1000)
        samples = self._sample(now + self._deadline)
        seen = self._seen()
        bounds = self._labeller.label(samples, time_ms, seen)
        self._remember(bounds, time_ms)
        histories = {index: kept.until(time_ms) for index, kept in self._histories.items()}
        host = host_of(self._host, self._growth.read([*samples, *bounds], now), histories)
        holders = {gpu.index: gpu.pids or () for gpu in seen}
        host = replace(host, processes=self._processes.read(now, holders))
        return Frame(time_ms, [host], limits=self._limits())

    def close(self) -> None:
        """Close the probes."""
        for runner in self._runners:
            runner.close()

    def _sample(self, deadline: float) -> list[Sample]:
        for runner in self._runners:
            runner.freshen()  # errors are told only when they are read, and shown at every look
        found = read_now(self._runners, self._relay, deadline)
        return [plausible(sample)[0] for _, samples in found for sample in samples]

    def _remember(self, bounds: Sequence[Sample], time_ms: int) -> None:
        for sample in bounds:
            kept = self._histories.setdefault(dict(sample.tags)["gpu"], History())
            kept.add(self._last_ms or time_ms, time_ms, str(sample.fields["bound"]))
        self._last_ms = time_ms

    def _seen(self) -> Sequence[SeenGpu]:
        """Return every GPU as it was at the last sample, with the processes that hold it."""
        for runner in self._runners:
            if isinstance(runner.probe, GpuProbe):
                return runner.probe.seen
        return ()

    def _limits(self) -> list[str]:
        """Say which probes hang now, why there is no GPU, and what GPUs do not tell."""
        words: list[str] = []
        for runner in self._runners:
            name, stalled = runner.health.name, runner.health.stalled
            if stalled > self._stalled.get(name, 0):
                words.append(f"probe {name} {HANGS}: its values are missing")
            self._stalled[name] = stalled
            if name == GpuProbe.name:
                words += self._gpu_limits(runner)
        return words

    def _gpu_limits(self, runner: Runner) -> list[str]:
        if runner.health.unavailable:
            return [f"no GPU: {runner.health.unavailable}"]
        return list(runner.limits())


def _roofs_file(config: Config) -> Path:
    return config.state_directory() / "gpu-roofs.json"

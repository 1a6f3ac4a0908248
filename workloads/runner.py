"""Run reference workloads between measurements of the device's ceilings, and label each phase."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from probes.roots import Roots
from workloads import ceilings as measuring
from workloads.ceilings import MIB, Ceiling, Sweep
from workloads.decode import run_decode
from workloads.device import (
    available_bytes,
    check_device,
    device_dtypes,
    device_model,
    synchronizer,
)
from workloads.diskceiling import MOST_BYTES, measure_disk
from workloads.finetuning import run_finetune
from workloads.hostmemory import available_host_bytes
from workloads.linkceiling import measure_link
from workloads.memory import required_bytes, required_host_bytes
from workloads.phase import Phase, Recorder
from workloads.prefill import run_prefill
from workloads.roofline import Label, label, scaled
from workloads.serving import run_serve
from workloads.setting import Progress, Setting, SettingError, check_names
from workloads.trace import range_marker
from workloads.training import run_train

Run = Callable[[Setting, Recorder, Progress], object]
"""Runs one workload and records its phases."""

RUNS: Mapping[str, Run] = {
    "train": run_train,
    "finetune": run_finetune,
    "prefill": run_prefill,
    "decode": run_decode,
    "serve": run_serve,
}


@dataclass(frozen=True, slots=True)
class LabelledPhase:
    """A recorded phase with its label."""

    phase: Phase
    label: Label


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run found.

    Attributes:
        setting: the options.
        model: name of the device.
        ceilings: best of all rounds; a round comes before and after every workload.
        phases: in the order they first ran, each labelled by the median of what was measured
            before, between the calls, and after its workload: a shared machine drifts by tens of
            percent within seconds, and roofs of another time would be those of another machine.
        finished: seconds since 1970.
        partial: true when the run was interrupted.

    """

    setting: Setting
    model: str
    ceilings: tuple[Ceiling, ...]
    phases: tuple[LabelledPhase, ...]
    finished: float
    partial: bool


Measure = Callable[[torch.device, Sequence[str], Sweep], list[Ceiling]]
"""Measures ceilings for some dtypes."""

AGAIN_SECONDS = 0.5
"""How long after a measurement of the ceilings the next pause between two calls has another."""

IO_BYTES = 256 * MIB
"""Size of the file that measures the disk for the labels of a run."""


class Runner:
    """Runs workloads of one setting; keeps what it has, so that an interrupt loses nothing.

    Where several processes share the work, `runs` are one's part, `measure` measures together, and
    `memory_share` is what falls on this device of the memory that a workload needs.

    Raises:
        SettingError: a device that is not here, or cannot compute in the wanted dtype.

    """

    def __init__(
        self,
        setting: Setting,
        *,
        progress: Progress,
        roots: Roots | None = None,
        sweep: Sweep | None = None,
        runs: Mapping[str, Run] | None = None,
        measure: Measure = measuring.measure,
        memory_share: float = 1.0,
        again_seconds: float = AGAIN_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        check_device(setting.device, setting.dtype)
        self._setting = setting
        self._device = torch.device(setting.device)
        self._progress = progress
        self._roots = roots or Roots()
        self._sweep = sweep or measuring.default_sweep(self._device, self._roots)
        self._runs = RUNS if runs is None else runs
        self._measure_all = measure
        self._memory_share = memory_share
        self._again_seconds = again_seconds
        self._measured = clock()
        self._clock = clock
        self._wall = wall
        self._stages = 1
        self._finished_stages = 0
        self._rounds: list[list[Ceiling]] = []
        self._between: list[list[list[Ceiling]]] = []
        self._outside: list[Ceiling] = []
        self._recorders: list[Recorder] = []

    def run(self, names: Sequence[str]) -> RunReport:
        """Run the named workloads; a report marked partial if the user interrupts.

        Raises:
            SettingError: a name that is unknown, or a size that does not fit.

        """
        self.check(names)
        self._stages = 2 * len(names) + 1
        try:
            self._measure()
            for name in names:
                self._run_one(name)
                self._measure()
            self._measure_outside()
        except KeyboardInterrupt:
            return self._report(partial=True)
        return self._report(partial=False)

    def ceilings(self) -> RunReport:
        """Measure the ceilings alone: for all dtypes, and those of the link and the disk too."""
        check_names(self._setting, ())
        self._stages = 2
        try:
            self._measure(device_dtypes(self._device))
            self._tell("ceilings: link and disk")
            self._outside = [*measure_link(self._device, self._sweep), *self._measure_disk()]
        except KeyboardInterrupt:
            return self._report(partial=True)
        return self._report(partial=False)

    def check(self, names: Sequence[str]) -> None:
        """Refuse with a `SettingError` a name that is unknown, or a size that does not fit."""
        check_names(self._setting, names)
        self._check_memory(names)

    def _run_one(self, name: str) -> None:
        recorder = Recorder(
            name,
            self._setting.dtype,
            synchronizer(self._device),
            clock=self._clock,
            wall=self._wall,
            mark=range_marker(self._device),
            between=self._measure_again,
        )
        self._recorders.append(recorder)
        self._between.append([])
        try:
            self._runs[name](self._setting, recorder, self._tell)
        except torch.OutOfMemoryError as full:
            words = str(full).partition(". ")[0]
            raise SettingError(f"{name} {self._setting.size} does not fit: {words}") from full
        self._finished_stages += 1

    def _tell(self, words: str, done: float = 0.0, /) -> None:
        """Pass on what begins, with the fraction of the whole run that is done."""
        self._progress(words, (self._finished_stages + done) / self._stages)

    def _measure(self, dtypes: Sequence[str] = ()) -> None:
        self._tell("ceilings: matrix product and memory")
        wanted = dtypes or (self._setting.dtype,)
        self._rounds.append(self._measure_all(self._device, wanted, self._sweep))
        self._finished_stages += 1
        self._measured = self._clock()

    def _measure_again(self) -> None:
        """Look at the ceilings between two calls, if the last look is some time ago."""
        if self._clock() - self._measured < self._again_seconds:
            return
        product = next(each for each in self._rounds[-1] if each.kind == measuring.MATMUL)
        sweep = measuring.quick(self._sweep, product)
        wanted = (self._setting.dtype,)
        self._between[-1].append(self._measure_all(self._device, wanted, sweep))
        self._measured = self._clock()

    def _measure_outside(self) -> None:
        """Measure the link to the host and the disk, if any phase has used them."""
        phases = [phase for recorder in self._recorders for phase in recorder.phases.values()]
        if any(phase.link_bytes for phase in phases):
            self._outside += measure_link(self._device, self._sweep)
        if any(phase.io_bytes for phase in phases):
            self._outside += self._measure_disk(IO_BYTES)

    def _measure_disk(self, most: int = MOST_BYTES) -> list[Ceiling]:
        """Measure the disk of $TMPDIR: batches and mapped weights are read from there."""
        return measure_disk(Path(tempfile.gettempdir()), self._roots, most)

    def _report(self, *, partial: bool) -> RunReport:
        labelled = (self._labelled(index) for index in range(len(self._recorders)))
        return RunReport(
            setting=self._setting,
            model=device_model(self._device, self._roots),
            ceilings=(*measuring.best_of(self._rounds), *self._outside),
            phases=tuple(itertools.chain.from_iterable(labelled)),
            finished=self._wall(),
            partial=partial,
        )

    def _labelled(self, index: int) -> list[LabelledPhase]:
        """Label the phases of one workload by what was measured around and within it."""
        around = [*self._rounds[index : index + 2], *self._between[index]]
        roofs = measuring.roofs([*measuring.median_of(around), *self._outside])
        phases = self._recorders[index].phases.values()
        return [LabelledPhase(phase, noted(label(phase.work, roofs), phase)) for phase in phases]

    def _check_memory(self, names: Iterable[str]) -> None:
        """Refuse what does not fit, before any work."""
        available = available_bytes(self._device, self._roots)
        ceilings = measuring.held_bytes(self._sweep)
        for name in names:
            needed = required_bytes(name, self._setting)
            total = needed.total * self._memory_share + ceilings
            if available is not None and total > available:
                sizes = f"{needed} and {scaled(ceilings, 'B')} to measure the ceilings"
                there = f"{scaled(available, 'B')} free"
                raise SettingError(f"{name} {self._setting.size} needs {sizes}; {there}")
            self._check_host_memory(name)

    def _check_host_memory(self, name: str) -> None:
        """Refuse weights that are to stay in the host's memory and do not fit there."""
        available = available_host_bytes(self._roots)
        needed = required_host_bytes(name, self._setting)
        if available is not None and needed > available:
            sizes = f"{scaled(needed, 'B')} of host memory; {scaled(available, 'B')} free"
            raise SettingError(f"{name} {self._setting.size} needs {sizes}")


def noted(plain: Label, phase: Phase) -> Label:
    """Add to a label's explanation what is noted of the phase."""
    notes = filter(None, (plain.explanation, phase.note))
    return replace(plain, explanation="; ".join(notes))

"""Run workloads for the command line, with progress. Imports torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.workload.options import writing
from agent.workload.progress import part, progress_bar
from workloads.runner import RUNS, Runner, RunReport
from workloads.setting import Progress, Setting, silent
from workloads.trace import write_trace


def make_runner(setting: Setting, progress: Progress = silent) -> Runner:
    """Return a runner on the real machine."""
    return Runner(setting, progress=progress)


def measure_here(setting: Setting) -> RunReport:
    """Measure the ceilings alone."""
    with progress_bar() as progress:
        return make_runner(setting, progress).ceilings()


def run_here(setting: Setting, names: Sequence[str], trace: str | None) -> RunReport:
    """Run workloads in this process; then a step of each again for a trace, if asked for."""
    with progress_bar() as progress:
        report = make_runner(setting, progress).run(names)
        if trace and not report.partial:
            with writing(trace) as path:
                write_trace(path, {name: RUNS[name] for name in names}, setting, progress)
    return report


def run_in_parallel(
    setting: Setting, names: Sequence[str], mode: str, ranks: int | None
) -> RunReport | None:
    """Run workloads on several ranks; None in all processes but the one that reports."""
    import torch

    from workloads.distributed import launch

    here = torch.cuda.device_count() if setting.device.startswith("cuda") else 2
    with progress_bar() as progress:
        return launch(setting, names, mode, ranks or here, progress)


class Runs:
    """Runs one workload with one setting after the other, `total` times under one progress."""

    def __init__(self, name: str, total: int, progress: Progress) -> None:
        self.interrupted = False
        self._name = name
        self._total = total
        self._progress = progress
        self._index = 0

    def __call__(self, setting: Setting) -> RunReport:
        """Run the workload with this setting.

        Raises:
            SettingError: it cannot be had here.

        """
        progress = part(self._progress, self._index, self._total)
        self._index += 1
        report = make_runner(setting, progress).run((self._name,))
        self.interrupted = report.partial
        return report


@contextmanager
def runs(name: str, total: int) -> Iterator[Runs]:
    """Give what runs one workload with a setting, `total` times under one progress bar."""
    with progress_bar() as progress:
        yield Runs(name, total, progress)

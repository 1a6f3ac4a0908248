"""Show on stderr what a workload does and how long to go; nothing when that is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from workloads.setting import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give what a run tells its progress to.

    The bar is drawn when something begins: a thread that redraws it would take time from what is
    measured.
    """
    console = Console(stderr=True)
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=3600,
    )
    task = bar.add_task("", total=1.0)

    def show(words: str, done: float = 0.0, /) -> None:
        bar.update(task, description=words, completed=done, refresh=True)

    with bar:
        yield show


def part(progress: Progress, index: int, count: int) -> Progress:
    """Return the progress of one of `count` runs."""

    def show(words: str, done: float = 0.0, /) -> None:
        progress(words, (index + done) / count)

    return show

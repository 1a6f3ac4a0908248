"""Processes that work together: joined by torchrun or srun, or started here on one machine."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from workloads.setting import Progress, SettingError, silent

Result = TypeVar("Result")
Work = Callable[..., Result]
"""(rank, progress, *arguments) -> result; importable by name, for it runs in new processes.

No tensors in the result: their memory would end with the process that made them.
"""

HERE = "127.0.0.1"
FIRST_PORT, PORTS = 15000, 15000
"""Below the range that Linux hands out by itself, which begins at 32768."""

LOOK_EVERY = 0.1
GRACE = 10.0
"""Seconds that interrupted ranks get to hand in what they have."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Which of the processes this is: `index` of `count`, and among those of its node."""

    index: int
    count: int
    local_index: int
    local_count: int

    def device(self, kind: str) -> str:
        """Return this rank's device; a task to which Slurm has bound one GPU sees only that."""
        if not kind.startswith("cuda"):
            return kind
        return f"cuda:{self.local_index % max(torch.cuda.device_count(), 1)}"


def rank_of(environment: Mapping[str, str]) -> Rank | None:
    """Return the rank that torchrun or srun has given this process; None if neither started it.

    A batch script itself has SLURM_PROCID too, but belongs to no step.
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Rank(*(int(environment[name]) for name in names))
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return None
    rank = Rank(
        int(environment["SLURM_PROCID"]),
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_LOCALID"]),
        tasks_on_first_node(environment.get("SLURM_STEP_TASKS_PER_NODE", "1")),
    )
    return rank if rank.count > 1 else None


def tasks_on_first_node(words: str) -> int:
    """Return the first number of Slurm's "4(x2),3": tasks on each of the first nodes."""
    found = re.match(r"\d{1,6}", words, re.ASCII)
    return int(found[0]) if found else 1


def rendezvous(environment: Mapping[str, str]) -> dict[str, str]:
    """Return where ranks that srun started meet: MASTER_ADDR and MASTER_PORT.

    Raises:
        SettingError: there are several nodes, and nobody has said on which the first rank is.

    """
    address = environment.get("MASTER_ADDR")
    if address is None and environment.get("SLURM_STEP_NUM_NODES", "1") != "1":
        first = "$(scontrol show hostnames | head -n 1)"
        raise SettingError(f"several nodes: export MASTER_ADDR={first} before srun")
    job = int(environment.get("SLURM_JOB_ID", "0"))
    port = environment.get("MASTER_PORT", str(FIRST_PORT + job % PORTS))
    return {"MASTER_ADDR": address or HERE, "MASTER_PORT": port}


@contextmanager
def joined(rank: Rank, kind: str) -> Iterator[None]:
    """Be one of the ranks that torchrun or srun started, on devices of a kind (cpu, cuda)."""
    if "RANK" not in os.environ:
        os.environ.update(rendezvous(os.environ))
    with _group(rank, kind, init_method="env://"):
        yield


@contextmanager
def _group(rank: Rank, kind: str, **meeting: Any) -> Iterator[None]:  # noqa: ANN401
    """Set up the process group: NCCL between GPUs, gloo between CPUs."""
    if kind.startswith("cuda"):
        device = torch.device(rank.device(kind))
        torch.cuda.set_device(device)
        meeting |= {"backend": "nccl", "device_id": device}
    else:
        meeting |= {"backend": "gloo"}
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // rank.local_count))
    dist.init_process_group(rank=rank.index, world_size=rank.count, **meeting)
    yield
    dist.destroy_process_group()


def spawn(
    work: Work[Result],
    count: int,
    kind: str,
    arguments: tuple[object, ...] = (),
    progress: Progress = silent,
) -> list[Result]:
    """Run `work(rank, progress, *arguments)` in `count` new processes; return what each returned.

    They meet on the loopback interface. The progress of the first is passed on. After Ctrl-C,
    results are what they handed in within `GRACE` seconds.

    Raises:
        KeyboardInterrupt: the first rank handed in nothing after Ctrl-C.

    """
    store = TCPStore(HERE, 0, is_master=True, wait_for_workers=False)
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    child = _Child(work, count, kind, store.port, queue, arguments)
    ranks = start_processes(child, nprocs=count, join=False)  # type: ignore[no-untyped-call]
    crew = _Crew(ranks, queue, progress)
    try:
        while not crew.listen():
            pass
    except KeyboardInterrupt:
        crew.stop()
        if 0 not in crew.results:
            raise
    return [crew.results[index] for index in sorted(crew.results)]


class _Crew:
    """The processes that `spawn` started, and what they have handed in."""

    def __init__(
        self,
        ranks: ProcessContext,
        queue: "SimpleQueue[Message]",
        progress: Progress,
    ) -> None:
        self.results: dict[int, Any] = {}
        self._ranks = ranks
        self._queue = queue
        self._progress = progress

    def listen(self) -> bool:
        """Take in what ranks say for a moment; true when all have ended."""
        ended = bool(self._ranks.join(timeout=LOOK_EVERY))
        while not self._queue.empty():
            message = self._queue.get()
            if isinstance(message, _Told):
                self._progress(message.words, message.done)
            else:
                self.results[message.index] = message.value
        return ended

    def stop(self) -> None:
        """Interrupt all ranks, and end those that have not ended soon."""
        for process in self._ranks.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + GRACE
        with suppress(ProcessException):
            while time.monotonic() < deadline and not self.listen():
                pass
        for process in self._ranks.processes:
            process.terminate()
            process.join()


@dataclass(frozen=True, slots=True)
class _Told:
    words: str
    done: float


@dataclass(frozen=True, slots=True)
class _Handed:
    index: int
    value: Any


Message = _Told | _Handed


@dataclass(frozen=True)
class _Child:
    """What each new process runs."""

    work: Work[Any]
    count: int
    kind: str
    port: int
    queue: "SimpleQueue[Message]"
    arguments: tuple[object, ...]

    def __call__(self, index: int) -> None:
        """Be rank `index`."""
        signal.signal(signal.SIGINT, _interrupt_once)
        if self.kind == "cpu":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        rank = Rank(index, self.count, index, self.count)
        store = TCPStore(HERE, self.port, is_master=False)
        with _group(rank, self.kind, store=store):
            result = self.work(rank, self._tell if index == 0 else silent, *self.arguments)
            self.queue.put(_Handed(index, result))

    def _tell(self, words: str, done: float = 0.0, /) -> None:
        self.queue.put(_Told(words, done))


def _interrupt_once(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt; a terminal and the parent may both send the signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt

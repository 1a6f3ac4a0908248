"""The view of this node: GPUs, what the node does, and its processes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from agent.inspect.units import show_seconds
from agent.top.gpurows import columns, gpu_row, heading, legend, memory_bar
from agent.top.keys import State
from agent.top.model import Disk, Flow, Frame, Host, Process, gpu_list
from agent.top.notices import DISK_FULL
from agent.top.paint import (
    Line,
    Piece,
    amount,
    bar,
    brief,
    cut,
    joined,
    left,
    left_tail,
    line,
    percent,
    right,
    width_of,
)

GPU_LABEL = 4
LABEL = 7
HALF = 39
PID, USER, GPUS, CPU, MEMORY, TIME, JOB = 7, 8, 5, 5, 7, 8, 7
PATH, FULL = 10, 10
STUCK = "D"


def title(host: Host) -> str:
    """Return the name of the node and what is in it."""
    whole = [gpu for gpu in host.gpus if "." not in gpu.index]
    models = Counter(gpu.model.removeprefix("NVIDIA ") for gpu in whole if gpu.model)
    parts = [f"{count} x {model}" for model, count in models.items()]
    if len(host.gpus) > len(whole):
        parts.append(f"{len(host.gpus) - len(whole)} MIG instances")
    if host.cpus is not None:
        parts.append(f"{host.cpus:.0f} cpus")
    return f"{host.name}   {', '.join(parts)}"


def gpu_block(frame: Frame, host: Host, width: int, *, signs: bool) -> list[Line]:
    """Return the table of GPUs, and what its signs mean; nothing on a node without."""
    if not host.gpus:
        return []
    shape = columns(width, GPU_LABEL)
    rows = [gpu_row(gpu, shape, frame.at_ms) for gpu in host.gpus]
    return [heading(shape, " GPU"), *rows, *([legend()] if signs else [])]


def host_block(host: Host, width: int) -> list[Line]:
    """Return everything else of the node, as many in a line as fit."""
    each = max(1, (width + 1) // (HALF + 1))
    size = max(HALF, (width + 1) // each - 1)
    parts = [part for make in _PARTS for part in make(host, size)]
    rows = [parts[start : start + each] for start in range(0, len(parts), each)]
    return [joined([_padded(part, size) for part in row], " ") for row in rows]


def process_heading(state: State, width: int, *, jobs: bool) -> Line:
    """Return the names of the columns; a star marks what the list is sorted by."""

    def name(order: str, text: str, size: int) -> str:
        return right(f"*{text}" if state.order == order else text, size)

    names = [
        name("name", "PID", PID),
        "USER".ljust(USER),
        "S",
        ("*GPU" if state.order == "gpu" else "GPU").ljust(GPUS),
        name("cpu", "CPU%", CPU),
        name("memory", "MEMORY", MEMORY),
        name("time", "TIME", TIME),
        *(["JOB".ljust(JOB)] if jobs else []),
        "COMMAND",
    ]
    return line(Piece(" ".join(names)[:width].ljust(width), "reverse"))


def process_row(process: Process, width: int, *, jobs: bool) -> Line:
    """Return the line of one process; `jobs` tells whether there is a column for them."""
    fixed = [
        right(str(process.pid), PID),
        left(process.user, USER),
        left(process.state, 1),
        left(_gpus(process), GPUS),
        right("-" if process.cpu is None else _cpu_percent(process.cpu), CPU),
        right(_memory_words(process.resident), MEMORY),
        right(_clock(process.seconds), TIME),
        *([left(process.job, JOB)] if jobs else []),
    ]
    text = " ".join(fixed) + " "
    style = "bad" if process.state == STUCK else "bold" if process.gpus else ""
    return line(Piece(text, style), Piece(left(process.command, max(0, width - len(text))), style))


def in_order(host: Host, state: State) -> list[Process]:
    """Return the processes as the user wants them sorted."""
    key = _KEYS[state.order]
    return sorted(host.processes, key=lambda each: (key(each), each.pid), reverse=state.inverted)


_KEYS: Mapping[str, Callable[[Process], tuple[float, ...]]] = {
    "cpu": lambda each: (-(each.cpu or 0.0), -each.resident),
    "memory": lambda each: (-each.resident,),
    "time": lambda each: (-each.seconds,),
    "gpu": lambda each: (-bool(each.gpus), -(each.cpu or 0.0)),
    "name": lambda each: (each.pid,),
}


def _cpu(host: Host, width: int) -> Iterator[Line]:
    yield _barred("cpu", bar(host.cpu, percent(host.cpu), width - LABEL - 2, "green"))


def _memory(host: Host, width: int) -> Iterator[Line]:
    yield _barred("memory", memory_bar(host.memory_used, host.memory_total, width - LABEL - 2))


def _load(host: Host, width: int) -> Iterator[Line]:
    if host.load is not None:
        core = "" if host.busiest_core is None else f", busiest core {host.busiest_core:.0%}"
        yield _told("load", f"{host.load:.2f} of {host.cpus or 0:.0f}{core}")


def _waits(host: Host, width: int) -> Iterator[Line]:
    if host.waits:
        names = {"io": "disk"}
        words = "  ".join(f"{names.get(name, name)} {share:.0%}" for name, share in host.waits)
        yield _told("waits", words)


def _power(host: Host, width: int) -> Iterator[Line]:
    watts = dict(host.watts)
    packages = sum(value for name, value in host.watts if name.startswith("package"))
    gpus = sum(gpu.watts or 0.0 for gpu in host.gpus if "." not in gpu.index)
    known = {"node": watts.get("node", 0.0), "cpu": packages, "gpu": gpus}
    words = "  ".join(f"{name} {amount(value, 'W')}" for name, value in known.items() if value)
    if words:
        yield _told("power", words)


def _flows(host: Host, width: int) -> Iterator[Line]:
    for name, flow in (("ib", host.infiniband), ("network", host.network), ("shared", host.files)):
        if flow is not None:
            yield _told(name, flow_words(flow))


def _disks(host: Host, width: int) -> Iterator[Line]:
    path = PATH + width - HALF
    for disk in host.disks:
        style = "bad" if disk.share >= DISK_FULL else "cyan"
        full = bar(disk.share, f"{disk.share:.0%}", FULL, style)
        yield joined([line(left_tail(disk.path, path)), full, line(_disk_words(disk))], " ")


_PARTS = (_cpu, _memory, _load, _waits, _power, _flows, _disks)


def flow_words(flow: Flow) -> str:
    """Return both directions in words."""
    return f"in {amount(flow.into, 'B/s')}  out {amount(flow.out, 'B/s')}"


def _disk_words(disk: Disk) -> str:
    if disk.moved is None:
        return f"of {amount(disk.total, 'B')}"
    return f"r {brief(disk.moved.into)} w {brief(disk.moved.out)}"


def _barred(name: str, what: Line) -> Line:
    return joined([line(name.ljust(LABEL)), what], " ")


def _told(name: str, words: str) -> Line:
    return line(f"{name.ljust(LABEL)} {words}")


def _padded(part: Line, width: int) -> Line:
    kept = cut(part, width)
    return (*kept, Piece(" " * (width - width_of(kept))))


def _gpus(process: Process) -> str:
    words = gpu_list(process.gpus)
    return words if len(words) <= GPUS else words[: GPUS - 1] + "+"


def _memory_words(resident: float) -> str:
    return amount(resident, "B").removesuffix("iB") if resident else "-"


def _cpu_percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.995 else f"{100 * share:.1f}"


def _clock(seconds: float) -> str:
    return show_seconds(round(seconds)) if seconds >= 60 else f"0:{seconds:02.0f}"

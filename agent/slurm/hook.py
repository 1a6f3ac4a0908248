"""What prolog and epilog run: tell the agent of a job's begin and end.

    python -I -S hook.py start|end

Slurm starts it before and after every job and waits for it, so it imports next to nothing: the
modules `json` and `socket` alone would take longer than all it does. It prints nothing, and a
failure of any kind costs the job its footprint, never its start.

The job's description comes from the environment (`man prolog_epilog`). Settings:

    ROOFLIGHT_SOCKET      the agent's socket, if it is not /run/rooflight/agent.sock
    ROOFLIGHT_OWN_AGENT   start an agent where none listens, which ends itself after so many seconds
                          without any job: 0 for one that the last job's epilog ends
    ROOFLIGHT_LOG         a file to which such an agent appends what it has to say
"""

import os
import sys
import time
from _socket import AF_UNIX, SOCK_DGRAM, socket  # the wrapper around it imports `enum`
from collections.abc import Mapping, Sequence

SYSTEM_SOCKET = "/run/rooflight/agent.sock"
REPLY_SECONDS = 0.5
"""How long a hook waits for the agent: at a job's start for its first sample."""

SEND_SECONDS = 0.4
"""How long it waits for room in the agent's queue; the kernel lets those who wait in in turn."""

COURIER_SECONDS = 60.0
"""How long an agent that was just started may take until it listens."""

FIRST_PAUSE_SECONDS = 1.0
"""From one start of an agent to the next, should it end at once; each pause is twice as long."""

TAKEN = b'"ok":true'
"""In an answer of the agent: it has done what it was told."""

MOST_DESCRIPTORS = 1 << 20

_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), 0x22, 0x5C)}

Value = str | int | float | Sequence[str]
Environment = Mapping[str, str]


def start_message(environment: Environment, now_ms: int) -> bytes:
    """Return `agent.messages.JobStart` as JSON; a job without SLURM_JOB_GPUS has no GPUs."""
    return _json(
        {
            "type": "job_start",
            "jobid": environment["SLURM_JOB_ID"],
            "start_ms": now_ms,
            "uid": _whole(environment.get("SLURM_JOB_UID", "")),
            "user": environment.get("SLURM_JOB_USER", ""),
            "account": environment.get("SLURM_JOB_ACCOUNT", ""),
            "partition": environment.get("SLURM_JOB_PARTITION", ""),
            "gpus": _gpus(environment),
            "cpus": _cpus(environment.get("SLURM_JOB_CPUS_PER_NODE", "")),
            "restart": _whole(environment.get("SLURM_JOB_RESTART_COUNT", "")),
            "source": "slurm",
            "node": environment.get("SLURMD_NODENAME", ""),
            "nodes": environment.get("SLURM_NODELIST", ""),
            "het_jobid": environment.get("SLURM_HET_JOB_ID", ""),
        }
    )


def end_message(environment: Environment) -> bytes:
    """Return `agent.messages.JobEnd` as JSON; Slurm gives the exit code as `code:signal`."""
    code, _, signal = environment.get("SLURM_JOB_EXIT_CODE2", "").partition(":")
    exit_code = 128 + _whole(signal) if _whole(signal) else _whole(code)
    jobid = environment["SLURM_JOB_ID"]
    return _json({"type": "job_end", "jobid": jobid, "exit_code": exit_code})


def tell(path: str, message: bytes, wait_seconds: float) -> bytes | None:
    """Send, and return the agent's answer, empty if there is none in time.

    Returns:
        None if no agent listens, or it ended before it answered.

    """
    connection = socket(AF_UNIX, SOCK_DGRAM)
    connection.settimeout(SEND_SECONDS)
    try:
        connection.bind("")  # Linux gives an abstract address to answer to
        _connect(connection, path)
        connection.send(message)
        return _answer(connection, wait_seconds) if wait_seconds else b""
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError:  # there is one, and it is too busy to answer
        return b""
    finally:
        connection.close()


def _connect(connection: socket, path: str) -> None:
    """Connect to root's own socket, which nobody else can flood, or else to everybody's."""
    try:
        connection.connect(f"{os.path.dirname(path) or '.'}/root.sock")  # noqa: PTH120 - as above
    except OSError:  # not there, or this is not root
        connection.connect(path)


def _answer(connection: socket, wait_seconds: float) -> bytes:
    deadline = time.monotonic() + wait_seconds
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(min(left, REPLY_SECONDS))
        try:
            return connection.recv(4096)
        except TimeoutError:
            connection.settimeout(0)
            connection.send(b"")  # the kernel does not tell of an agent's end, but refuses this
    return b""


def tell_later(path: str, message: bytes, environment: Environment, idle_seconds: str = "") -> None:
    """Leave behind a process that tells an agent as soon as it listens, and knows the job.

    With `idle_seconds` it starts the agent if there is none.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    _detach(environment.get("ROOFLIGHT_LOG") or os.devnull)
    _deliver(path, message, environment, idle_seconds)
    os._exit(0)


def _detach(log: str) -> None:
    """Let go of all that ties a process to the hook.

    Slurm kills the process group of a hook that has ended, and waits for all who hold its output.
    """
    os.chdir("/")
    os.closerange(0, MOST_DESCRIPTORS)
    for _ in range(3):
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), 2)
    except OSError:
        return  # a disk that is full, say: then nobody hears it


def _deliver(path: str, message: bytes, environment: Environment, idle_seconds: str) -> None:
    """Tell until an agent has done it; one that has it in its queue is not told again."""
    begun = time.monotonic()
    agent, may_start, pause = 0, begun, FIRST_PAUSE_SECONDS
    while (left := begun + COURIER_SECONDS - time.monotonic()) > 0:
        answer = tell(path, message, left)
        if TAKEN in (answer or b""):
            return
        if agent and os.waitpid(agent, os.WNOHANG)[0]:
            agent = 0
        if answer is None and idle_seconds and not agent and time.monotonic() >= may_start:
            agent = _start_agent(environment, idle_seconds)
            may_start, pause = time.monotonic() + pause, 2 * pause
        time.sleep(0.1 if answer is None else 1.0)


def _start_agent(environment: Environment, idle_seconds: str) -> int:
    program = f"{os.path.dirname(sys.executable)}/rooflight"  # noqa: PTH120 - pathlib takes 10 ms
    kept = {name: environment[name] for name in ("ROOFLIGHT_CONFIG",) if name in environment}
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept}
    return os.posix_spawn(program, [program, "agent", "--until-idle", idle_seconds], clean)


def main(verb: str, environment: Environment) -> None:
    """Tell the agent what Slurm says of the job."""
    path = environment.get("ROOFLIGHT_SOCKET") or SYSTEM_SOCKET
    idle_seconds = environment.get("ROOFLIGHT_OWN_AGENT", "")
    if verb == "start":
        message = start_message(environment, int(time.time() * 1000))
        if tell(path, message, REPLY_SECONDS) is None and idle_seconds:
            tell_later(path, message, environment, idle_seconds)
        return
    message = end_message(environment)
    if not idle_seconds:
        tell(path, message, 0.0)
    elif TAKEN not in (tell(path, message, REPLY_SECONDS) or b""):
        tell_later(path, message, environment)  # it may not know the job yet


def _json(fields: Mapping[str, Value]) -> bytes:
    text = ",".join(f"{_quoted(name)}:{_value(value)}" for name, value in fields.items())
    return f"{{{text}}}".encode(errors="replace")  # names need not be UTF-8


def _value(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    return f"[{','.join(map(_quoted, value))}]"


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'


def _gpus(environment: Environment) -> list[str]:
    """Return UUIDs where Slurm tells them (MIG instances), else positions in its list of GPUs.

    Both variables tell of the same GPUs in the same order. To a prolog CUDA's tells positions too:
    they begin anew from 0 only within a job that may see no other device.
    """
    positions = [word for word in environment.get("SLURM_JOB_GPUS", "").split(",") if word]
    names = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(names) != len(positions):
        return positions
    pairs = zip(positions, names)  # noqa: B905 - checked just above
    return [name if name.startswith(("GPU-", "MIG-")) else position for position, name in pairs]


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _cpus(text: str) -> float:
    """Return CPUs of this node from `4` or `4(x2)`; 0 where nodes differ (`4(x2),8`)."""
    return 0.0 if "," in text else float(_whole(text.partition("(")[0]))


if __name__ == "__main__":
    main(sys.argv[1], os.environ)

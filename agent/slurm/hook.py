"""What prolog and epilog run: tell the agent of a job's begin and end.

    python -I -S hook.py start|end

Slurm starts it before and after every job and waits for it, so it imports next to nothing: the
modules `json` and `socket` alone would take longer than all it does. It prints nothing, and a
failure of any kind costs the job its footprint, never its start.

The job's description comes from the environment (`man prolog_epilog`). Settings:

    ROOFLIGHT_SOCKET      the agent's socket, if it is not /run/rooflight/agent.sock
    ROOFLIGHT_OWN_AGENT   start an agent where none listens, which ends itself after so many seconds
                          without any job
"""

import os
import sys
import time
from _socket import AF_UNIX, SOCK_DGRAM, socket  # the wrapper around it imports `enum`
from collections.abc import Mapping, Sequence

SYSTEM_SOCKET = "/run/rooflight/agent.sock"
REPLY_SECONDS = 0.5
"""How long a job's start waits for its first sample."""

COURIER_SECONDS = 20.0
"""How long an agent that was just started may take until it listens."""

TAKEN = b'"ok":true'
"""In an answer of the agent: it has done what it was told."""

_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), 0x22, 0x5C)}

Value = str | int | float | Sequence[str]
Environment = Mapping[str, str]


def start_message(environment: Environment, now_ms: int) -> bytes:
    """Return `agent.messages.JobStart` as JSON; a job without SLURM_JOB_GPUS has no GPUs."""
    gpus = environment.get("SLURM_JOB_GPUS", "")
    return _json(
        {
            "type": "job_start",
            "jobid": environment["SLURM_JOB_ID"],
            "start_ms": now_ms,
            "uid": _whole(environment.get("SLURM_JOB_UID", "")),
            "user": environment.get("SLURM_JOB_USER", ""),
            "account": environment.get("SLURM_JOB_ACCOUNT", ""),
            "partition": environment.get("SLURM_JOB_PARTITION", ""),
            "gpus": [word for word in gpus.split(",") if word],
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
        None if no agent listens.

    """
    connection = socket(AF_UNIX, SOCK_DGRAM)
    connection.settimeout(wait_seconds or 0.1)
    try:
        connection.bind("")  # Linux gives an abstract address to answer to
        connection.connect(path)
        connection.send(message)
        return connection.recv(4096) if wait_seconds else b""
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError:  # there is one, and it is too busy to answer
        return b""
    finally:
        connection.close()


def tell_later(path: str, message: bytes, idle_seconds: str = "") -> None:
    """Leave behind a process that tells an agent as soon as it listens, and knows the job.

    With `idle_seconds` it starts the agent first. Slurm kills the process group of a hook that has
    ended, and waits for all who hold its output: what is left behind has a session of its own and
    no descriptor of ours.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 1024)
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
    if idle_seconds:
        _start_agent(idle_seconds)
    deadline = time.monotonic() + COURIER_SECONDS
    while time.monotonic() < deadline and TAKEN not in (tell(path, message, REPLY_SECONDS) or b""):
        time.sleep(0.1)
    os._exit(0)


def _start_agent(idle_seconds: str) -> None:
    program = f"{os.path.dirname(sys.executable)}/rooflight"  # noqa: PTH120 - pathlib takes 10 ms
    kept = {name: os.environ[name] for name in ("ROOFLIGHT_CONFIG",) if name in os.environ}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept}
    os.posix_spawn(program, [program, "agent", "--until-idle", idle_seconds], environment)


def main(verb: str, environment: Environment) -> None:
    """Tell the agent what Slurm says of the job."""
    path = environment.get("ROOFLIGHT_SOCKET") or SYSTEM_SOCKET
    idle_seconds = environment.get("ROOFLIGHT_OWN_AGENT", "")
    if verb == "end":
        message = end_message(environment)
        if tell(path, message, 0.0) is None and idle_seconds:  # it may be starting just now
            tell_later(path, message)
    else:
        message = start_message(environment, int(time.time() * 1000))
        if tell(path, message, REPLY_SECONDS) is None and idle_seconds:
            tell_later(path, message, idle_seconds)


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


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _cpus(text: str) -> float:
    """Return CPUs of this node from `4` or `4(x2)`; 0 where nodes differ (`4(x2),8`)."""
    return 0.0 if "," in text else float(_whole(text.partition("(")[0]))


if __name__ == "__main__":
    main(sys.argv[1], os.environ)

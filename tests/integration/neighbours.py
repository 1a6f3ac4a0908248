"""A real agent, and people on the same node who mean it no good.

    python -m tests.integration.neighbours    the figures of all attacks, as root

Attackers are processes of other users, with an interpreter of the system's and no code of ours.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.commands import NO_SLURM

OWNER, STRANGER = 54_321, 54_322
PYTHON = shutil.which("python3", path="/usr/bin:/bin")
HOOK = Path(__file__).parents[2] / "agent" / "slurm" / "hook.py"
BIN = Path(sys.executable).parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

BEGIN = "import json, os, socket, sys, time\npath, seconds = sys.argv[1], float(sys.argv[2])\n"

REFLECTION = """
for number in range(13):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        mine = os.path.join(sys.argv[3], f"mine{number}")
        own.bind(mine)
        os.rename(mine, mine + ".old")
        os.symlink(path, mine)
        own.setblocking(False)
        try:
            own.sendto(b"x", path)
        except OSError:
            pass
"""

FLOOD = """
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.setblocking(False)
end = time.monotonic() + seconds
sent, size = 0, int(sys.argv[3])
pause = float(sys.argv[4])
while time.monotonic() < end:
    for _ in range(100):
        try:
            own.sendto(b"x" * size, path)
            sent += 1
        except BlockingIOError:
            time.sleep(0)
        except OSError:
            time.sleep(0.01)
    if pause:
        time.sleep(pause)
print(sent)
"""

OWN = """
def best(path):
    own = os.path.join(os.path.dirname(path), "users", f"{os.getuid()}.sock")
    return own if os.path.exists(own) else path

def phase(name, jobid, **fields):
    tags = {"jobid": jobid, "workload": "user", "phase": name, "device": ""}
    fields = {"duration_seconds": 1.0, "calls_total": 1.0, **fields}
    point = {"measurement": "phase", "tags": tags, "fields": fields}
    return {**point, "time_ms": int(time.time() * 1000)}

def message(*points):
    return json.dumps({"type": "points", "points": points}).encode()
"""

LARGE_POINTS = """
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.setblocking(False)
end = time.monotonic() + seconds
sent = 0
while time.monotonic() < end:
    point = phase("prefill", sys.argv[3], bound="x" * 24_000, explanation=os.urandom(12_000).hex())
    try:
        own.sendto(message(point), best(path))
        sent += 1
    except OSError:
        pass
    time.sleep(0.02)
print(sent)
"""

LONG_NAMES = """
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.settimeout(0.05)
for number in range(210):
    name = f"{number:03d}" + "n" * 58_000
    try:
        own.sendto(message(phase(name, sys.argv[3])), best(path))
    except OSError:
        pass
"""

ONE_PHASE = """
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.settimeout(2)
own.bind("")
waits = []
end = time.monotonic() + seconds
while time.monotonic() < end:
    begun = time.monotonic()
    try:
        own.sendto(message(phase("mine", sys.argv[3])), best(path))
        waits.append(time.monotonic() - begun if json.loads(own.recv(9999))["ok"] else 9.0)
    except OSError:
        waits.append(9.0)
    time.sleep(0.1)
print(json.dumps(waits))
"""


@dataclass
class Agent:
    """A running agent.

    Attributes:
        folder: of its socket, which everybody may enter.
        process: itself.

    """

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.folder / "agent.sock"

    def cpu_seconds(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS_PER_SECOND

    def resident_mebibytes(self) -> float:
        statm = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(statm[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    def kept_bytes(self) -> int:
        files = (self.folder / "state").rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def hook(self, verb: str, jobid: str, uid: int = OWNER) -> float:
        """Run Slurm's hook as root; return the seconds that it took."""
        begun = time.monotonic()
        environment = {
            "SLURM_JOB_ID": jobid,
            "SLURM_JOB_UID": str(uid),
            "SLURM_JOB_USER": "somebody",
            "SLURM_JOB_CPUS_PER_NODE": "1",
            "ROOFLIGHT_SOCKET": str(self.socket),
        }
        command = [sys.executable, "-I", "-S", str(HOOK), verb]
        subprocess.run(command, env=environment, check=True, timeout=30)
        return time.monotonic() - begun

    def knows(self, jobid: str) -> bool:
        return (self.folder / "state" / "jobs" / f"{jobid}.json").exists()

    def attack(self, code: str, *arguments: str, seconds: float, uid: int) -> "Attack":
        assert PYTHON is not None
        command = [PYTHON, "-I", "-c", BEGIN + OWN + code, str(self.socket), str(seconds)]
        return Attack(
            subprocess.Popen(
                [*command, *arguments], user=uid, group=uid, extra_groups=[], cwd="/",
                stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip

    def cores(self, seconds: float) -> float:
        """Return the share of a core that the agent takes in so many seconds from now."""
        before = self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / seconds


@dataclass
class Attack:
    """An attacker at work."""

    process: subprocess.Popen[str]

    def result(self) -> str:
        printed, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return printed


@contextmanager
def agent(interval: float = 1.0) -> Iterator[Agent]:
    """Give an agent of root's in a folder that all may enter."""
    folder = Path(tempfile.mkdtemp(prefix="rooflight-neighbours-"))
    folder.chmod(0o755)
    config = folder / "rooflight.toml"
    config.write_text(
        f'store = "influx"\n[influx]\nurl = "http://127.0.0.1:9"\n[agent]\n'
        f'interval_seconds = {interval}\nstate_directory = "state"\nsocket = "agent.sock"\n'
        f"heartbeat_seconds = 0.5\n{NO_SLURM}\n"
    )
    with (folder / "log").open("wb") as log:
        command = [str(BIN / "rooflight"), "agent", "--config", str(config)]
        process = subprocess.Popen(command, stderr=log)
    running = Agent(folder, process)
    try:
        deadline = time.monotonic() + 30
        while not running.socket.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2.5 * interval)
        yield running
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writable_by(uid: int) -> Iterator[str]:
    """Give a folder of a user's own."""
    folder = tempfile.mkdtemp(prefix="rooflight-stranger-")
    os.chown(folder, uid, uid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prologs_heard(running: Agent, first: int, count: int = 20) -> tuple[int, float]:
    """Return how many prologs an agent heard, and the seconds of the slowest."""
    jobids = [str(first + number) for number in range(count)]
    slowest = max(running.hook("start", jobid) for jobid in jobids)
    heard = sum(running.knows(jobid) for jobid in jobids)
    for jobid in jobids:
        running.hook("end", jobid)
    return heard, slowest


def waits(running: Agent, jobid: str, seconds: float) -> list[float]:
    """Return how long the owner of a job waited for each answer, 9 s if there was none."""
    own = running.attack(ONE_PHASE, jobid, seconds=seconds, uid=OWNER)
    found: list[float] = json.loads(own.result())
    return found


def figures() -> Iterator[str]:
    """Yield a line for each attack."""
    with agent() as running, writable_by(STRANGER) as folder:
        quiet = running.cores(4)
        yield f"quiet: {quiet:.2%} of a core, {running.resident_mebibytes():.1f} MiB"
        running.attack(REFLECTION, folder, seconds=0, uid=STRANGER).result()
        cores = running.cores(3)
        heard, slowest = prologs_heard(running, 100)
        yield f"reflection: {heard} of 20 prologs, {slowest:.3f} s, {cores:.1%} of a core"
    for name, size, pause in (("flood", "1", "0"), ("flood of 50 kB", "50000", "0"),
                              ("paced flood", "1", "0.02")):  # fmt: skip
        with agent(interval=10.0 if pause != "0" else 1.0) as running:
            running.hook("start", "7")
            flood = running.attack(FLOOD, size, pause, seconds=14, uid=STRANGER)
            time.sleep(1)
            cores = running.cores(5)
            heard, slowest = prologs_heard(running, 100)
            own = waits(running, "7", 3.0)
            yield (
                f"{name}: {flood.result().strip()} sent, {cores:.1%} of a core, {heard} of 20"
                f" prologs, slowest {slowest:.3f} s, owner heard {sum(w < 9 for w in own)} of"
                f" {len(own)}, slowest {max(own):.3f} s"
            )
    with agent() as running:
        running.hook("start", "7")
        before, begun = running.kept_bytes(), time.monotonic()
        large = running.attack(LARGE_POINTS, "7", seconds=10, uid=OWNER)
        sent = large.result().strip()
        rate = (running.kept_bytes() - before) / (time.monotonic() - begun)
        yield f"48 kB points: {sent} sent, {rate:.0f} B/s kept: {rate * 8.64e-5:.1f} GB a day"
    with agent() as running:
        resident = running.resident_mebibytes()
        for number in range(50):
            jobid = str(1000 + number)
            running.hook("start", jobid)
            running.attack(LONG_NAMES, jobid, seconds=0, uid=OWNER).result()
            running.hook("end", jobid)
        time.sleep(2)
        yield f"long names, 50 jobs: {resident:.1f} -> {running.resident_mebibytes():.1f} MiB"


def main(arguments: Sequence[str]) -> None:
    for line in figures():
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

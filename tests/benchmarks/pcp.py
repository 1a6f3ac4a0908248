"""Performance Co-Pilot: pmcd with its agent for Linux, and pmlogger, which writes an archive.

    python -m tests.benchmarks.pcp      unpack it into .cache, where it is looked for

Debian's package cannot just be installed for a benchmark: its scripts start its services whatever
policy-rc.d says, and fail where there is no systemd. So it is unpacked and run from there; nothing
of this machine's own PCP is read, written or stopped.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.contenders import REPOSITORY, Contender, Output
from tests.integration.services import free_port

PACKAGES = ("pcp", "pcp-conf", "libpcp3", "libpcp-pmda3", "libpcp-archive1", "libsasl2-2")
ROOT = REPOSITORY / ".cache" / "pcp"
FETCH_SECONDS = 60.0
START_SECONDS = 10.0

OWN_FOLDERS = ("PCP_RUN_DIR", "PCP_LOG_DIR", "PCP_ARCHIVE_DIR", "PCP_TMP_DIR", "PCP_TMPFILE_DIR")
"""Of the settings in pcp.conf: those that name folders in which PCP writes."""

METRICS = (
    *(f"kernel.all.cpu.{name}" for name in ("user", "nice", "sys", "idle", "wait.total")),
    *(f"kernel.all.cpu.{name}" for name in ("irq.hard", "irq.soft", "steal")),
    "kernel.percpu.cpu.idle",
    *(f"kernel.all.{name}" for name in ("load", "runnable", "blocked", "pswitch", "sysfork")),
    "kernel.all.pressure",
    *(f"mem.util.{name}" for name in ("used", "free", "available", "cached", "bufmem", "slab")),
    *(f"mem.util.{name}" for name in ("anonpages", "dirty", "writeback", "shmem", "mlocked")),
    *(f"mem.util.{name}" for name in ("swapTotal", "swapFree")),
    *(f"mem.vmstat.{name}" for name in ("pswpin", "pswpout", "pgmajfault", "oom_kill")),
    *(f"network.interface.in.{name}" for name in ("bytes", "packets", "errors", "drops")),
    *(f"network.interface.out.{name}" for name in ("bytes", "packets", "errors", "drops")),
    *(f"disk.dev.{name}" for name in ("read", "write", "read_bytes", "write_bytes")),
    *(f"disk.dev.{name}" for name in ("read_rawactive", "write_rawactive", "avactive")),
    *(f"filesys.{name}" for name in ("used", "free", "usedfiles", "freefiles")),
)
"""What our host probes read, under PCP's names."""

_RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d+\s+\d+ metrics?$", re.MULTILINE)
_VALUE = re.compile(r"\bvalue ")


def unpack(root: Path = ROOT) -> None:
    """Fetch Debian's packages, if they are not there yet, and unpack them below `root`.

    Raises:
        OSError: there is no apt.
        subprocess.SubprocessError: it does not know them, or does not reach them.

    """
    if found(root):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        quietly(["apt-get", "-qq", "download", *PACKAGES], folder)
        for package in Path(folder).glob("*.deb"):
            quietly(["dpkg-deb", "--extract", str(package), "root"], folder)
        shutil.rmtree(root, ignore_errors=True)
        (Path(folder) / "root").rename(root)


def quietly(command: Sequence[str], folder: str) -> None:
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_SECONDS
    )


def found(root: Path = ROOT) -> bool:
    """Tell whether PCP lies there and runs: it may miss a library of this machine."""
    program = root / "usr/bin/pminfo"
    if not program.exists():
        return False
    asked = subprocess.run([program, "--version"], env=loading(root), capture_output=True)
    return asked.returncode == 0


def version(root: Path = ROOT) -> str:
    return settings((root / "etc/pcp.conf").read_text())["PCP_VERSION"]


def loading(root: Path) -> dict[str, str]:
    """Return what makes a program find the unpacked libraries and configuration."""
    folders = [root / "usr/lib", *(root / "usr/lib").glob("*-linux-gnu*")]
    return {
        "LD_LIBRARY_PATH": ":".join(map(str, folders)),
        "PCP_CONF": str(root / "etc/pcp.conf"),
    }


def settings(text: str) -> dict[str, str]:
    """Return the settings in the text of a pcp.conf."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, equals, value in lines if equals}


def own_settings(text: str, root: Path, folder: Path) -> str:
    """Return a pcp.conf for what was unpacked below `root` and writes into `folder` alone."""
    own = dict.fromkeys(OWN_FOLDERS, str(folder))
    moved = {
        name: str(root) + value if (root / value.lstrip("/")).exists() else value
        for name, value in settings(text).items()
        if value.startswith("/")
    }
    everything = {**settings(text), **moved, **own}
    return "".join(f"{name}={value}\n" for name, value in everything.items())


def archived(text: str) -> tuple[int, int]:
    """Return how many samples an archive has, as pmdumplog tells it, and how many values each.

    A short record at its begin and its end tells of pmlogger itself.
    """
    values = [len(_VALUE.findall(record)) for record in _RECORD.split(text)]
    most = max(values)
    return sum(2 * each > most for each in values), most


class Pcp(Contender):
    """pmcd with no agents but those that serve these metrics, and pmlogger."""

    def prepare(self) -> None:
        self._port = free_port()
        text = (ROOT / "etc/pcp.conf").read_text()
        (self.folder / "pcp.conf").write_text(own_settings(text, ROOT, self.folder))
        agents = {
            "pmcd": f"2 dso pmcd_init {ROOT}/usr/lib/pcp/pmdas/pmcd/pmda_pmcd.so",
            "linux": f"60 pipe binary {ROOT}/usr/lib/pcp/pmdas/linux/pmdalinux",
        }
        lines = [f"{name} {how}\n" for name, how in agents.items()]
        (self.folder / "pmcd.conf").write_text("".join(lines))
        wanted = "\n".join(METRICS)
        logged = f"log mandatory on {self.interval:g} sec {{\n{wanted}\n}}\n"
        (self.folder / "pmlogger.conf").write_text(logged)
        names = [f"{ROOT}/usr/lib/pcp/pmns/root_{name}" for name in agents]
        self._finish([f"{ROOT}/usr/lib/pcp/bin/pmnsmerge", *names, str(self.folder / "names")])

    @property
    def variables(self) -> Mapping[str, str]:
        here = {"PCP_CONF": str(self.folder / "pcp.conf")}
        return {**loading(ROOT), **here, "PMCD_LOCAL": "1", "PMLOGGER_LOCAL": "1"}

    @property
    def command(self) -> list[str]:
        files = ["-c", "pmcd.conf", "-n", "names", "-l", "pmcd.log", "-x", "pmcd.fatal"]
        reached = ["-A", "-p", str(self._port), "-s", str(self._socket)]
        return [f"{ROOT}/usr/lib/pcp/bin/pmcd", "-f", *files, *reached]

    @property
    def _socket(self) -> Path:
        return self.folder / "pmcd.socket"

    def launch(self) -> None:
        self.spawn(self.command, self.folder)
        self._await_pmcd()
        files = ["-c", "pmlogger.conf", "-l", "pmlogger.log"]
        host = f"unix://{self._socket}"
        self.spawn([f"{ROOT}/usr/bin/pmlogger", "-h", host, *files, "archive"], self.folder)

    def _await_pmcd(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            self.check()
            if time.monotonic() > deadline:
                log = (self.folder / "pmcd.log").read_text()
                raise RuntimeError(f"pmcd does not listen: {log}")
            time.sleep(0.05)

    def output(self) -> Output:
        self.stop()
        samples, values = archived(self._finish([f"{ROOT}/usr/bin/pmdumplog", "archive"]))
        return Output(values, (self.folder / "archive.0").stat().st_size / samples)

    def _finish(self, command: Sequence[str]) -> str:
        """Run a program of PCP's to its end and return what it printed."""
        done = subprocess.run(
            command,
            check=True,
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
        )
        return done.stdout


def main() -> None:
    try:
        unpack()
    except subprocess.CalledProcessError as error:
        sys.exit(f"PCP is left out: {error.stderr.strip()}")
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"PCP is left out: {error}")
    if not found():
        sys.exit("PCP is left out: it misses a library of this machine")


if __name__ == "__main__":
    main()

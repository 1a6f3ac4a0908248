"""Build the NVML replay library, and say how a process is made to load it."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE / "nvml_replay.c"
TRACES = HERE / "traces"
LIBRARY = "libnvidia-ml.so.1"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def build() -> Path:
    """Return the library, compiled at need into the cache folder of this user.

    The calling test is skipped where there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the NVML replay library")
    folder = _cache() / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = folder / LIBRARY
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _compile(compiler, library)
    return library


def environment(trace: Path, library: Path | None = None, **settings: str) -> dict[str, str]:
    """Return what makes a new process see the trace's GPUs.

    Args:
        trace: CSV file to replay.
        library: the replay library, if it is built already.
        settings: `clock`, `loop`, `hang`, `pids`: see README.md.

    """
    path = os.environ.get("LD_LIBRARY_PATH")
    folders = [str((library or build()).parent), *([path] if path else [])]
    return {
        "LD_LIBRARY_PATH": ":".join(folders),
        "NVML_REPLAY_TRACE": str(trace),
        **replay_settings(settings),
    }


def replay_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings under the names that the library knows."""
    return {f"NVML_REPLAY_{name.upper()}": value for name, value in settings.items()}


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "rooflight-tests"


def _compile(compiler: str, library: Path) -> None:
    # compiled aside and renamed: other test processes may want it at the same time
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        output = Path(folder) / LIBRARY
        soname = f"-Wl,-soname,{LIBRARY}"
        command = [compiler, *FLAGS, soname, "-o", str(output), str(SOURCE), "-lm"]
        subprocess.run(command, check=True)
        output.replace(library)

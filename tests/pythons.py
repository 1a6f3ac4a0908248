"""The Pythons that users may have, and the package that their programs import."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

API = Path(__file__).parents[1] / "agent" / "api"
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


def python(version: str) -> Path:
    """Return a Python of this version; the test is skipped where the machine has none."""
    installed = sorted(PYENV.glob(f"{version}.*/bin/python"))
    found = installed[-1] if installed else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"this machine has no Python {version}")
    return Path(found)


def run(
    interpreter: Path, environment: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    """Run a user's program that finds the package as a module file would have it."""
    return subprocess.run(
        [interpreter, *words],
        env={"PATH": os.defpath, "PYTHONPATH": str(API), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )

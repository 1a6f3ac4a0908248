"""Machines with systemd made by tests/machine.sh, with rooflight installed in them."""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.weather import PATIENCE

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests" / "machine.sh"
CACHE = Path(os.environ.get("ROOFLIGHT_CACHE", REPOSITORY / ".cache" / "machine"))
UNITS = REPOSITORY / "deploy" / "systemd"
HOME = "/opt/rooflight"
"""Where the virtual environment is inside."""

PACKAGES = ("agent", "agent/api/rooflight", "probes", "workloads", "dashboards", "deploy")
SECTION = "--- "


@dataclass(frozen=True)
class Told:
    """What a story said.

    Attributes:
        facts: its lines `name value`.
        sections: what followed each line `--- name`.

    """

    facts: Mapping[str, str]
    sections: Mapping[str, str]


def build() -> None:
    """Make the machine's root, if that has not been done."""
    subprocess.run([SCRIPT, "build"], check=True, timeout=900)


def install(folder: Path) -> dict[Path, str]:
    """Make the virtual environment of a node as the README has it made, and say what goes where.

    It is for the machine's Python, which need not be the one that runs the tests.
    """
    site = folder / "lib" / "python3.11" / "site-packages"
    for package in PACKAGES:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, site / Path(package).name, ignore=skipped)
    metadata = importlib.metadata.distribution("rooflight").read_text("METADATA")
    assert metadata, "rooflight is not installed here"
    _write(site / "rooflight.dist-info" / "METADATA", metadata)
    _write(site / "dependencies.pth", f"{HOME}/dependencies\n")
    _write(folder / "pyvenv.cfg", "home = /usr/bin\n")
    shutil.copytree(REPOSITORY / "agent" / "bin", folder / "bin")
    (folder / "bin" / "python").symlink_to("/usr/bin/python3")
    (folder / "dependencies").mkdir()
    subprocess.run([SCRIPT, "compile", site], check=True, timeout=PATIENCE)
    return {
        folder: HOME,
        CACHE / "site": f"{HOME}/dependencies",
        UNITS / "rooflight-agent.service": "/etc/systemd/system/rooflight-agent.service",
        UNITS / "rooflight.sysusers": "/etc/sysusers.d/rooflight.conf",
    }


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def run(kind: str, story: Path, placed: Mapping[Path, str], limit_seconds: int) -> Told:
    """Boot a machine (nspawn or qemu), run the story in it, and return what it said."""
    binds = [f"{source}:{target}" for source, target in placed.items()]
    done = subprocess.run(
        [SCRIPT, kind, story, *binds],
        env={**os.environ, "LIMIT": str(limit_seconds)},
        capture_output=True,
        text=True,
        timeout=limit_seconds + 30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines, *sections = f"\n{done.stdout}".split(f"\n{SECTION}")
    return Told(
        dict(line.split(" ", 1) for line in lines.splitlines() if " " in line),
        dict(section.split("\n", 1) for section in sections),
    )

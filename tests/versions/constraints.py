"""`make constraints`: settles the versions that a fresh clone installs, and says what is new.

constraints.txt gets the newest of everything that pyproject.toml allows, on each Python that is
tested; lowest.txt the oldest of what pyproject.toml names, and the newest of what that brings.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.versions.project import (
    BY_HAND,
    CONSTRAINTS,
    EDITABLE,
    LOWEST,
    PYTHONS,
    for_tests,
    lines,
    name_of,
    requirements,
)

Versions = Mapping[str, str]

HEAD = """\
# What a fresh clone installs, all of it: the newest that pyproject.toml allows on {pythons}.
# Made by `make constraints`, but for torch, whose line is changed by hand: see CONTRIBUTING.md.
"""
LOWEST_HEAD = """\
# The oldest that pyproject.toml allows, and the newest of what that brings, on Python {python}.
# Made by `make constraints`; `make lowest` runs unit and golden tests with it.
"""


def main() -> None:
    """Write both files."""
    pinned = [str(each) for each in lines(CONSTRAINTS) if name_of(each) == BY_HAND]
    everything = requirements(extras=["grafana", "workloads"], tools=True)
    asked = [str(each) for each in everything if name_of(each) != BY_HAND]
    wanted = [*asked, *brought_by_torch(), EDITABLE]
    newest = {python: resolve(python, wanted) for python in PYTHONS}
    update(CONSTRAINTS, HEAD.format(pythons=", ".join(PYTHONS)), [*pinned, *merged(newest)])
    oldest = resolve(PYTHONS[0], [*map(at_bound, for_tests()), EDITABLE])
    rows = [f"{name}=={version}" for name, version in oldest.items()]
    update(LOWEST, LOWEST_HEAD.format(python=PYTHONS[0]), rows)


def brought_by_torch() -> list[str]:
    """Return what the torch that is installed needs; its CUDA builds pin the rest themselves."""
    needed = importlib.metadata.requires(BY_HAND) or []
    theirs = ("nvidia-", "cuda-", "triton")
    plain = [text for text in needed if not text.startswith(theirs)]
    return [text for text in plain if "extra ==" not in text]


def at_bound(requirement: Requirement) -> str:
    """Return a requirement of exactly the oldest version that it allows."""
    (bound,) = (each.version for each in requirement.specifier if each.operator == ">=")
    return f"{requirement.name}=={bound}"


def resolve(python: str, wanted: Iterable[str]) -> Versions:
    """Return the version of all that pip would install on a Python, by name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        target = ["--target", folder, "--python-version", python, "--only-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        quiet = ["-qq", "--disable-pip-version-check", "--report", str(report)]
        subprocess.run([*command, *target, *quiet, *wanted], check=True)
        installed = json.loads(report.read_text())["install"]
    found = {canonicalize_name(each["metadata"]["name"]): each for each in installed}
    return {name: found[name]["metadata"]["version"] for name in sorted(found)}


def merged(newest: Mapping[str, Versions]) -> list[str]:
    """Return lines for all Pythons: a name has one line, or one for each of its versions."""
    result = []
    for name in sorted({name for versions in newest.values() for name in versions}):
        pythons: dict[str, list[str]] = {}
        for python, versions in newest.items():
            if name in versions:
                pythons.setdefault(versions[name], []).append(python)
        for version, where in pythons.items():
            marker = f" ; {in_words(where)}" if len(pythons) > 1 else ""
            result.append(f"{name}=={version}{marker}")
    return result


def in_words(pythons: Iterable[str]) -> str:
    """Return the marker of some Pythons; the newest stands for all later ones."""
    signs = dict.fromkeys(PYTHONS, "==") | {PYTHONS[-1]: ">="}
    return " or ".join(f'python_version {signs[python]} "{python}"' for python in pythons)


def update(file: Path, head: str, rows: Iterable[str]) -> None:
    """Write a file, and print what is new in it."""
    before = by_name(lines(file))
    text = head + "".join(f"{row}\n" for row in sorted(rows))
    file.write_text(text)
    after = by_name(lines(file))
    changes = [
        f"  {name} {before.get(name, 'new')} -> {after.get(name, 'gone')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    sys.stdout.write("\n".join([f"{file.name}:", *(changes or ["  nothing is new"])]) + "\n")


def by_name(found: Iterable[Requirement]) -> Versions:
    """Return versions by name; several as one text."""
    result: dict[str, str] = {}
    for each in found:
        where = f" ({told(each.marker)})" if each.marker else ""
        version = f"{str(each.specifier).removeprefix('==')}{where}"
        name = name_of(each)
        result[name] = f"{result[name]}, {version}" if name in result else version
    return result


def told(marker: Marker) -> str:
    """Return a marker as people read it."""
    return str(marker).replace("python_version", "Python").replace('"', "").replace("== ", "")


if __name__ == "__main__":
    main()

"""Runs unit and golden tests, without torch, on other versions than those of .venv.

python -m tests.versions lowest    with the oldest libraries that pyproject.toml allows
python -m tests.versions pythons   on each other Python of those supported that is on this machine
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.versions.project import (
    CONSTRAINTS,
    EDITABLE,
    LOWEST,
    PYTHONS,
    REPOSITORY,
    for_tests,
    name_of,
)

TESTS = ("tests/unit", "tests/golden")


def main(what: str) -> int:
    """Run the tests; returns 1 if any failed on any of them."""
    here = interpreters()
    if what == "lowest":
        oldest = PYTHONS[0]
        wanted = {oldest: here[oldest]} if oldest in here else {}
        arguments, missing = ["-r", str(LOWEST)], f"Python {oldest}"
    else:
        mine = "{}.{}".format(*sys.version_info[:2])
        wanted = {python: path for python, path in here.items() if python != mine}
        arguments = ["-c", str(CONSTRAINTS), *map(name_of, for_tests()), EDITABLE]
        missing = f"other Python of {', '.join(PYTHONS)}"
    if not wanted:
        say(f"no {missing} with venv and pip on this machine: its tests are left out")
    return max((run(what, python, wanted[python], arguments) for python in wanted), default=0)


def interpreters() -> dict[str, str]:
    """Return a path for each supported Python that can make virtual environments here."""
    found: dict[str, str] = {}
    for candidate in candidates():
        code = "import ensurepip, sys; print('{}.{}'.format(*sys.version_info[:2]))"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and version in PYTHONS:
            found.setdefault(version, candidate)
    return dict(sorted(found.items()))


def candidates() -> Iterator[str]:
    """Yield interpreters: the one that runs, those on PATH, and pyenv's, newest first."""
    yield sys._base_executable  # type: ignore[attr-defined]
    for python in PYTHONS:
        path = shutil.which(f"python{python}")
        if path:
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for python in PYTHONS:
        yield from map(str, sorted(pyenv.glob(f"{python}.*/bin/python"), reverse=True))


def run(what: str, python: str, path: str, arguments: Sequence[str]) -> int:
    """Run the tests in an environment of its own, made again only if its contents change."""
    begun = time.monotonic()
    home = REPOSITORY / ".cache" / f"{what}-{python}"
    prepare(home, path, arguments)
    say(f"unit and golden tests without torch, Python {python}, {what} libraries")
    # what needs torch is left out here by intention
    environment = {**os.environ, "ROOFLIGHT_REQUIRE_SERVICES": ""}
    command = [str(home / "bin" / "python"), "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *TESTS], cwd=REPOSITORY, env=environment, check=False)
    outcome = "FAILED" if done.returncode else "good"
    say(f"Python {python}: {outcome}, {time.monotonic() - begun:.0f} s")
    return min(done.returncode, 1)


def prepare(home: Path, path: str, arguments: Sequence[str]) -> None:
    """Make the virtual environment `home`, with rooflight in it as an editable install."""
    files = (REPOSITORY / "pyproject.toml", CONSTRAINTS, LOWEST)
    contents = path.encode() + b"".join(file.read_bytes() for file in files)
    stamp, digest = home / "contents", hashlib.sha256(contents).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    subprocess.run([path, "-m", "venv", "--clear", home], check=True)
    pip = [
        str(home / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, *arguments], cwd=REPOSITORY, check=True)
    own = ["--no-deps", "--no-build-isolation", "-e", "."]
    subprocess.run([*pip, *own], cwd=REPOSITORY, check=True)
    stamp.write_text(digest)


def say(text: str) -> None:
    """Print a line at once, between what the programs print."""
    sys.stdout.write(f"rooflight: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""rooflight where other users may run it: a checkout, and its Python, can be closed to them."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.integration.services import Missing

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("agent", "agent/api/rooflight", "probes", "workloads", "deploy")
PROGRAMS = {"rooflight": "agent.cli", "jobinspect": "agent.inspect.cli"}

LAUNCHER = """\
#!{python} -I
import sys

sys.path.insert(0, "{site}")
from {module} import main

sys.exit(main())
"""


def install(folder: Path) -> Path:
    """Copy rooflight and what it depends on, without torch, and return the folder of its programs.

    Once for each folder.

    Raises:
        Missing: there is no Python here that every user may run and that fits what was built.

    """
    if (folder / "bin").exists():
        return folder / "bin"
    python, site = shared_python(), folder / "site"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, site / Path(package).name, ignore=ignored)
    for distribution in dependencies("rooflight"):
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), site / file)
    (folder / "bin").mkdir()
    for program, module in PROGRAMS.items():
        text = LAUNCHER.format(python=python, site=site, module=module)
        (folder / "bin" / program).write_text(text)
        (folder / "bin" / program).chmod(0o755)
    return folder / "bin"


def shared_python() -> Path:
    """Return a Python of the version that runs the tests, for every user.

    Raises:
        Missing: there is none.

    """
    asked = "import sys; print(*sys.version_info[:2])"
    ours = " ".join(map(str, sys.version_info[:2]))
    for python in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        try:
            done = subprocess.run(
                [python, "-c", asked], cwd="/", user="nobody", capture_output=True, text=True
            )
        except OSError:
            continue
        if done.stdout.strip() == ours:
            return python
    raise Missing(f"no Python {ours} that other users may run")


def dependencies(name: str) -> Iterator[importlib.metadata.Distribution]:
    """Yield all distributions that one needs, without those of its extras."""
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = [name]
    while wanted:
        distribution = importlib.metadata.distribution(wanted.pop())
        for requirement in distribution.requires or ():
            needed = re.match(r"[\w.-]+", requirement)
            if needed and "extra ==" not in requirement and needed[0] not in found:
                try:
                    found[needed[0]] = importlib.metadata.distribution(needed[0])
                except importlib.metadata.PackageNotFoundError:  # for another Python or system
                    continue
                wanted.append(needed[0])
    yield from found.values()

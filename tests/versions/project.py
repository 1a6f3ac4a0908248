"""What pyproject.toml and constraints.txt say of versions."""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"
LOWEST = Path(__file__).with_name("lowest.txt")

PYTHONS = ("3.11", "3.12", "3.13")
"""Those that the tests run on."""

BY_HAND = "torch"
"""Its version in constraints.txt is changed by hand: each of its builds is gigabytes."""

TEST_TOOLS = {"hypothesis", "matplotlib", "pytest", "pytest-timeout", "pyyaml"}
"""What unit and golden tests import, of the group of developers' tools."""


EDITABLE = "editables"
"""What hatchling asks for in an editable install, and no file names."""


def requirements(*, extras: Iterable[str] = (), tools: bool = False) -> list[Requirement]:
    """Return what pyproject.toml asks for: of a node, of extras, of the build and of developers."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    texts: list[str] = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in extras:
        texts += project["project"]["optional-dependencies"][extra]
    if tools:
        texts += project["dependency-groups"]["dev"]
    return [Requirement(text) for text in texts]


def for_tests() -> list[Requirement]:
    """Return what unit and golden tests need without torch."""
    asked = requirements(extras=["workloads"], tools=True)
    tools = {name_of(each) for each in requirements(tools=True)} - {
        name_of(each) for each in requirements()
    }
    left_out = (tools - TEST_TOOLS) | {BY_HAND}
    return [each for each in asked if name_of(each) not in left_out]


def name_of(requirement: Requirement) -> str:
    """Return a requirement's name in the one spelling that can be compared."""
    return canonicalize_name(requirement.name)


def lines(file: Path) -> Iterator[Requirement]:
    """Yield the requirements in a file; none if it is not there."""
    text = file.read_text() if file.exists() else ""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield Requirement(line)

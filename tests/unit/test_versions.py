"""Which versions a fresh clone installs is written down, and so are the oldest that are tested."""

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.versions.constraints import at_bound, brought_by_torch, merged, update
from tests.versions.project import (
    CONSTRAINTS,
    LOWEST,
    for_tests,
    lines,
    name_of,
    requirements,
)


def everything_asked_for() -> list[Requirement]:
    return requirements(extras=["grafana", "workloads"], tools=True)


def test_all_that_a_fresh_clone_installs_has_its_version() -> None:
    """What is not here to be asked (an extra, a build back-end) is left to pip's resolution."""
    pinned, seen = {name_of(each) for each in lines(CONSTRAINTS)}, set[str]()
    if f"click=={importlib.metadata.version('click')}" not in map(str, lines(CONSTRAINTS)):
        pytest.skip("this environment was made of other versions (make lowest)")
    todo = everything_asked_for()
    while todo:
        name = name_of(todo.pop())
        if name not in seen:
            seen.add(name)
            todo += [each for each in map(Requirement, needed_by(name)) if applies(each)]
    assert seen <= pinned
    assert {"click", "reactivex", "pluggy"} <= seen


def installed() -> set[str]:
    names = (each.metadata["Name"] for each in importlib.metadata.distributions())
    return {canonicalize_name(name) for name in names if name}


def needed_by(name: str) -> list[str]:
    if name not in installed():
        return []
    return brought_by_torch() if name == "torch" else importlib.metadata.requires(name) or []


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_every_line_is_one_version_that_the_project_allows() -> None:
    versions = {name_of(each): each.specifier for each in lines(CONSTRAINTS)}
    for asked in everything_asked_for():
        (pin,) = versions[name_of(asked)]
        assert pin.operator == "=="
        assert asked.specifier.contains(pin.version), asked


def test_the_oldest_that_are_tested_are_the_bounds_of_the_project() -> None:
    tested = {name_of(each): str(each.specifier).removeprefix("==") for each in lines(LOWEST)}
    for asked in for_tests():
        bound = at_bound(asked).partition("==")[2]
        assert Version(tested[name_of(asked)]) == Version(bound), asked
    assert "torch" not in tested


def test_a_version_that_one_python_lacks_gets_a_line_of_its_own() -> None:
    newest = {
        "3.11": {"both": "2", "split": "1.9", "old-only": "3"},
        "3.12": {"both": "2", "split": "2.0"},
        "3.13": {"both": "2", "split": "2.0"},
    }
    assert merged(newest) == [
        "both==2",
        "old-only==3",
        'split==1.9 ; python_version == "3.11"',
        'split==2.0 ; python_version == "3.12" or python_version >= "3.13"',
    ]


def test_what_is_new_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "constraints.txt"
    update(file, "# head\n", ["one==1", "two==2"])
    capsys.readouterr()
    update(file, "# head\n", ["two==2.1", "three==3"])
    assert capsys.readouterr().out.splitlines() == [
        "constraints.txt:",
        "  one 1 -> gone",
        "  three new -> 3",
        "  two 2 -> 2.1",
    ]
    assert file.read_text() == "# head\nthree==3\ntwo==2.1\n"
    update(file, "# head\n", ["two==2.1", "three==3"])
    assert capsys.readouterr().out.splitlines()[1:] == ["  nothing is new"]

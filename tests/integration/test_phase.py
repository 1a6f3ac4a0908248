"""Phases that a program marks, in a real job with a real agent, as `jobinspect` shows them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import Site

PROGRAM = """
import os, sys, time
from rooflight import phase
with phase("load"):
    time.sleep(0.5)
for _ in range(2000):                   # far more often than anyone wants to be told
    with phase("step"):
        time.sleep(0.0002)
with phase("save"):                     # the last one: told when the program ends
    time.sleep(0.3)
if os.fork() == 0:                      # a child has phases of its own, and not its parent's
    with phase("child"):
        time.sleep(0.1)
    sys.exit()
os.wait()
"""

SILENT = """
import sys
from rooflight import phase
with phase("nobody hears"):
    pass
assert "torch" not in sys.modules
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def phases(site: Site) -> dict[str, dict[str, Any]]:
    return {each["phase"]: each for each in site.report()["phases"]}


def test_jobinspect_shows_what_a_program_marked(site: Site) -> None:
    site.call("rooflight", "run", "--interval", "0.2", "--", sys.executable, "-c", PROGRAM)
    found = phases(site)
    assert set(found) == {"load", "step", "save", "child"}
    assert found["load"]["duration_seconds"] == pytest.approx(0.5, abs=0.1)
    assert found["save"]["duration_seconds"] == pytest.approx(0.3, abs=0.1)
    assert found["child"]["duration_seconds"] == pytest.approx(0.1, abs=0.1)
    assert {name: each["calls"] for name, each in found.items()} == {
        "load": 1, "step": 2000, "save": 1, "child": 1,
    }  # fmt: skip
    assert {each["workload"] for each in found.values()} == {"user"}
    assert {each["bound"] for each in found.values()} == {"unknown"}
    text = site.call("jobinspect", "last")
    assert "load" in text
    assert "0.50" in text


def test_a_command_is_marked_as_a_phase_and_its_exit_code_passes(site: Site) -> None:
    script = "rooflight phase unpack -- sleep 0.4; rooflight phase test -- sh -c 'exit 3'"
    path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"
    done = site.complete("rooflight", "run", "--quiet", "--", "env", path, "sh", "-c", script)
    assert done.returncode == 3
    found = phases(site)
    assert found["unpack"]["duration_seconds"] == pytest.approx(0.4, abs=0.15)
    assert found["test"]["calls"] == 1


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-command"], 127, "rooflight: no-such-command: No such file or directory\n"),
        (["/"], 126, "rooflight: /: Permission denied\n"),
        (["echo", "--help"], 0, ""),
    ],
)
def test_exit_codes_of_phase_are_those_of_a_shell(
    site: Site, command: list[str], code: int, words: str
) -> None:
    done = site.complete("rooflight", "phase", "x", "--", *command)
    assert (done.returncode, done.stderr) == (code, words)


def test_without_an_agent_a_mark_does_nothing(site: Site) -> None:
    subprocess.run([sys.executable, "-c", SILENT], check=True, timeout=60, cwd=Path.cwd())


def test_a_signal_reaches_the_command(site: Site) -> None:
    process = site.start("rooflight", "phase", "nap", "--", "sh", "-c", "echo up; exec sleep 30")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(timeout=10) == 143
    process.communicate()


def test_a_mark_is_quick_to_import() -> None:
    """Less than 5 ms beyond the client, which any program that speaks to the agent needs."""
    code = (
        "import json, time, agent.client; begin = time.perf_counter(); import agent.phase;"
        "print(json.dumps(time.perf_counter() - begin))"
    )
    times = [
        json.loads(subprocess.check_output([sys.executable, "-c", code], timeout=60))
        for _ in range(5)
    ]
    assert min(times) < 0.005

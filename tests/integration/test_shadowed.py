"""The commands find their own packages, whatever PYTHONPATH and the working directory hold."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import pythons
from tests.integration.commands import BIN, Site
from tests.weather import wait_until

OURS = ("agent", "probes", "workloads", "dashboards", "deploy", "tests", "rooflight_x", "msgspec")
OF_PYTHON = ("typing", "re", "enum", "json", "click", "sitecustomize", "usercustomize")

SHADOW = """\
import sys
with open({trace!r}, "a") as file:
    file.write("{name} " + repr(sys.orig_argv) + "\\n")
WHOSE = "the user's"
"""

TRAIN = """\
import os, sys
import agent, rooflight
assert agent.WHOSE == "the user's"
assert os.environ["PYTHONPATH"].split(":")[0] == os.getcwd()
with rooflight.phase("train"):
    pass
print("trained")
"""

HELP = [
    line.split()
    for line in """\
rooflight
rooflight agent
rooflight check
rooflight config
rooflight config show
rooflight dashboards
rooflight dashboards build
rooflight dashboards check
rooflight dashboards publish
rooflight deploy
rooflight deploy render
rooflight job
rooflight job comment
rooflight job end
rooflight job start
rooflight phase
rooflight reader
rooflight run
rooflight store
rooflight store setup
rooflight top
rooflight workload
rooflight workload ceilings
rooflight workload compare
rooflight workload list
rooflight workload run
rooflight workload sweep
jobinspect
""".splitlines()
]


@pytest.fixture
def shadows(tmp_path: Path) -> Path:
    """A student's folder, in which every module says by whom it was imported."""
    folder = tmp_path / "study"
    folder.mkdir()
    trace = str(tmp_path / "trace")
    for name in (*OURS, *OF_PYTHON):
        text = SHADOW.format(trace=trace, name=name)
        (folder / f"{name}.py").write_text(text)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    (folder / "train.py").write_text(TRAIN)
    for name in ("python", "python3", "readlink"):
        (folder / name).write_text("#!/bin/sh\nexit 70\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def site(tmp_path: Path, shadows: Path) -> Iterator[Site]:
    """A student in that folder; in the end none of our commands may have imported from it."""
    variables = {
        "PATH": f"{shadows}:{os.environ['PATH']}",
        "PYTHONPATH": f"{shadows}:{pythons.API}",
        "PYTHONSTARTUP": str(shadows / "train.py"),
        "CDPATH": str(tmp_path),
    }
    yield Site(tmp_path, environment=variables, cwd=shadows)
    trace = tmp_path / "trace"
    lines = trace.read_text().splitlines() if trace.exists() else []
    assert [line for line in lines if "train.py" not in line] == []


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_every_command_knows_itself(site: Site, command: list[str]) -> None:
    told = site.call(*command, "--help")
    assert told.startswith(f"Usage: {' '.join(command)} ")


def test_no_command_is_forgotten_here(site: Site) -> None:
    """Each group's help names its commands; all of them are tried above."""
    for group in [words for words in HELP if len(words) < 3]:
        told = site.call(*group, "--help").partition("\nCommands:\n")[2]
        for name in re.findall(r"^  (\w[\w-]*)", told, re.MULTILINE):
            assert [*group, name] in HELP


@pytest.mark.parametrize(
    "variable", ["PYTHONHOME", "PYTHONSAFEPATH", "PYTHONINSPECT", "PYTHONPLATLIBDIR"]
)
def test_no_variable_of_python_matters(site: Site, variable: str) -> None:
    odd = replace(site, environment={**site.environment, variable: "/nonexistent"})
    assert odd.call("rooflight", "--version").startswith("rooflight, version ")
    assert odd.call("jobinspect", "--help").startswith("Usage: jobinspect ")


def test_a_job_s_program_has_its_own_agent_and_our_package(site: Site) -> None:
    told = site.call("rooflight", "run", "--interval", "0.2", "--", sys.executable, "train.py")
    assert told.startswith("trained\nJob      run-")
    assert [phase["phase"] for phase in site.report()["phases"]] == ["train"]
    assert site.call("jobinspect", "last").startswith("Job      run-")


def test_a_job_s_program_has_the_environment_that_it_was_given(
    site: Site, shadows: Path, tmp_path: Path
) -> None:
    """With exported functions of bash, whose names are none of a variable, and without ours."""
    odd = {
        "BASH_FUNC_module%%": "() {  echo hello;\n}",
        "a.b": "1",
        "python": "mine",
        "here": "",
        "BASH_ENV": str(tmp_path / "trace"),
        "PWD": str(shadows),
        "SHLVL": "3",
    }
    chosen = replace(site, environment={**site.environment, **odd})
    told = chosen.call("rooflight", "run", "--quiet", "--", "env", "-0")
    got = dict(line.split("=", 1) for line in told.split("\0") if line)
    added = {"ROOFLIGHT_SOCKET", "ROOFLIGHT_JOBID", "_"}
    given = chosen.variables()
    assert {name: text for name, text in got.items() if name not in added} == {
        name: text for name, text in given.items() if name not in added
    }


def test_real_work_is_done(site: Site, tmp_path: Path) -> None:
    assert re.search(r"^on +cpu ", site.call("rooflight", "check"), re.MULTILINE)
    assert 'cluster = "test"' in site.call("rooflight", "config", "show")
    assert "prefill" in site.call("rooflight", "workload", "list")
    assert site.call("rooflight", "store", "setup")
    site.call("rooflight", "dashboards", "build", "--to", str(tmp_path / "built"))
    assert json.loads((tmp_path / "built" / "dashboards" / "job.json").read_text())["title"]
    command = (sys.executable, "train.py")
    assert site.call("rooflight", "phase", "x", "--", *command) == "trained\n"
    rendered = ("--for", "slurm", "--into", str(tmp_path / "rendered"))
    assert "prolog.d" in site.call("rooflight", "deploy", "render", *rendered)


def test_a_link_to_a_command_is_followed(site: Site, tmp_path: Path) -> None:
    """As /usr/local/bin has it, by its full path, from its folder, and through a second link."""
    folder = tmp_path / "local bin"
    folder.mkdir()
    (folder / "first").symlink_to(os.path.relpath(BIN / "rooflight", folder))
    (folder / "rooflight").symlink_to("first")
    for words in ([str(folder / "rooflight")], ["./rooflight"], ["sh", "rooflight"]):
        done = subprocess.run(
            [*words, "--version"], env=site.variables(), cwd=folder, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("rooflight, version ")
    path = {**site.variables(), "PATH": f"{folder}:/nonexistent"}
    done = subprocess.run(
        ["rooflight", "--version"], env=path, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["rooflight", "jobinspect"])
def test_a_command_passes_its_words_and_has_the_python_beside_it(name: str, tmp_path: Path) -> None:
    """Without a Python there it says what to do, in one line."""
    folder = tmp_path / "an odd 'folder'" / "bin"
    folder.mkdir(parents=True)
    command = folder / name
    command.write_bytes((pythons.API.parent / "bin" / name).read_bytes())
    command.chmod(0o755)
    done = subprocess.run([command], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "install rooflight into a virtual environment of its own" in done.stderr
    (folder / "python").write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    (folder / "python").chmod(0o755)
    words = ["", "a b", "c\nd", "*", "$HOME", "--help"]
    expected = "".join(f"<{word}>" for word in ("-I", str(command), *words))
    for shell in ([], ["sh"]):
        done = subprocess.run([*shell, command, *words], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (expected, "")


def test_ps_knows_a_command_by_its_name(site: Site) -> None:
    with site.start("rooflight", "agent", "--interval", "0.1") as agent:
        try:
            process = Path(f"/proc/{agent.pid}")
            name = process / "comm"
            # while bash has the script, its name is that, too
            wait_until(lambda: b"\0-I\0" in (process / "cmdline").read_bytes())
            wait_until(lambda: name.read_text() == "rooflight\n")
            words = (process / "cmdline").read_bytes().split(b"\0")
            assert words[1:5] == [b"-I", os.fsencode((BIN / "rooflight").resolve()),
                                  b"agent", b"--interval"]  # fmt: skip
        finally:
            while not (site.folder / "state" / "agent.sock").exists():
                time.sleep(0.05)
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(timeout=60) == 0


@pytest.mark.workloads
def test_reference_phases_run_in_several_processes(site: Site) -> None:
    """Which start as this one: alone with our packages, torch and its own compiler among them."""
    setting = ("--size", "tiny", "--steps", "1", "--ranks", "2", "--parallel", "ddp")
    assert "train.forward" in site.call("rooflight", "workload", "run", "train", *setting)

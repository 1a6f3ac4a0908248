"""Phases that a program marks, in a real job with a real agent, as `jobinspect` shows them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.workload.phase_command import OF_THE_TERMINAL, PASSED_ON, Signals
from tests.integration.commands import BIN, Site

PROGRAM = """
import os, sys, time
from rooflight import phase
begun = time.monotonic()
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
print(time.monotonic() - begun)
"""

IGNORES = """
import signal, subprocess, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def phases(site: Site) -> dict[str, dict[str, Any]]:
    return {each["phase"]: each for each in site.report()["phases"]}


def test_jobinspect_shows_what_a_program_marked(site: Site) -> None:
    words = ("run", "--quiet", "--interval", "0.2", "--", sys.executable, "-c", PROGRAM)
    whole = float(site.call("rooflight", *words))
    found = phases(site)
    took = {name: each["duration_seconds"] for name, each in found.items()}
    assert set(took) == {"load", "step", "save", "child"}
    assert took["load"] >= 0.5
    assert took["save"] >= 0.3
    assert took["child"] >= 0.1
    assert took["load"] + took["step"] + took["save"] + took["child"] <= whole
    assert {name: each["calls"] for name, each in found.items()} == {
        "load": 1, "step": 2000, "save": 1, "child": 1,
    }  # fmt: skip
    assert {each["workload"] for each in found.values()} == {"user"}
    assert {each["bound"] for each in found.values()} == {"unknown"}
    text = site.call("jobinspect", "last")
    assert re.search(r"^load +[\d.]+ s ", text, re.MULTILINE)


def test_a_command_is_marked_as_a_phase_and_its_exit_code_passes(site: Site) -> None:
    script = "rooflight phase unpack -- sleep 0.4; rooflight phase test -- sh -c 'exit 3'"
    path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"
    done = site.complete("rooflight", "run", "--quiet", "--", "env", path, "sh", "-c", script)
    assert done.returncode == 3
    found = phases(site)
    assert 0.4 <= found["unpack"]["duration_seconds"] < 60
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_reaches_the_command(site: Site, number: signal.Signals) -> None:
    """Also one that comes as soon as there is a command."""
    process = site.start("rooflight", "phase", "nap", "--", "sh", "-c", "echo up; exec sleep 30")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    process.communicate()


def test_a_signal_before_there_is_a_command_is_not_lost() -> None:
    """It ends the command, and the phase is counted: this process is not ended alone."""
    before = {number: signal.getsignal(number) for number in (*PASSED_ON, *OF_THE_TERMINAL)}
    try:
        signals = Signals()
        os.kill(os.getpid(), signal.SIGTERM)
        with subprocess.Popen(["sleep", "60"]) as process:
            signals.pass_to(process)
            assert process.wait(timeout=60) == -signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # there is no command any more
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_the_terminal_sends_is_the_command_s_to_decide(site: Site) -> None:
    script = "trap 'echo mine; exit 5' INT; echo up; while :; do sleep 0.1; done"
    process = site.start("rooflight", "phase", "nap", "--", "sh", "-c", script, group=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "mine\n"
    assert process.returncode == 5


def test_what_was_ignored_stays_ignored_in_the_command(site: Site) -> None:
    command = [str(BIN / "rooflight"), "phase", "x", "--", "sh", "-c", "kill -HUP $$; echo lives"]
    done = subprocess.run(
        [sys.executable, "-c", IGNORES, *command],
        env=site.variables(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "lives\n")

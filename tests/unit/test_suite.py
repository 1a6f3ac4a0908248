"""The runner of `make test`, on small stages of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.suite import STAGES, Stage, chosen, expected_seconds, main, processes
from tests.verdict import Verdict, closing_line, counts_in, read
from tests.weather import PATIENCE

NAP = f"sleep 300.{os.getpid()}"
"""A command that no other run of these tests has."""

REPOSITORY = Path(__file__).parents[2]
MIXED = """\
import pytest, time
def test_right(): time.sleep(1.1)
def test_wrong(): assert 1 == 2
def test_also_wrong(): assert [] == {}
@pytest.mark.skip(reason="the reason")
def test_left_out(): pass
"""
INTERRUPTED = """\
import sys
from pathlib import Path
from tests import suite

folder, nap = sys.argv[1:]
suite.REST_SECONDS, suite.FAREWELL_SECONDS = 0.2, 1.0
tidy = f"trap 'touch {folder}/tidied; exit 1' INT; touch {folder}/up; {nap} & wait"
stubborn = f"trap '' INT; setsid {nap} & touch {folder}/too; exec {nap}"
commands = {"tidy": ("sh", "-c", tidy), "stubborn": ("sh", "-c", stubborn)}
stages = [suite.Stage(name, command, 1) for name, command in commands.items()]
sys.exit(suite.main(stages, Path(folder)))
"""
"""Two stages, of which one cleans up when it is told to end, and one does not end."""


def shell(name: str, words: str, needs: str = "") -> Stage:
    return Stage(name, ("sh", "-c", words), 1, needs)


@pytest.fixture
def mixed(tmp_path: Path) -> Stage:
    """Return a stage of pytest below a folder called `tests`, as ours are."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_mixed.py").write_text(MIXED)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    words = f"cd {tmp_path} && {sys.executable} -m pytest -q --durations=10 --durations-min=1 tests"
    return shell("mixed", words)


def test_a_red_stage_stops_no_other_and_everything_is_summed_up(
    mixed: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [
        mixed,
        shell("first", "echo said by first; exit 3"),
        shell("second", "test -s " + str(tmp_path / "first.log"), needs="first"),
    ]
    assert main(stages, tmp_path) == 1
    shown = capsys.readouterr().out
    plan, _, ends = shown.partition("A red stage stops no other one")
    assert "3 stages, 2 at a time" in plan
    assert "said by first" in ends
    assert "(stage 3 of 3)" in ends
    _, _, summary = ends.partition("Stages:")
    assert "tests/test_mixed.py::test_right" in ends.partition("The slowest tests:")[2]
    assert "left out in mixed: [1] tests/test_mixed.py:5: the reason" in ends
    for line in (
        "  tests/test_mixed.py::test_wrong - assert 1 == 2",
        "  tests/test_mixed.py::test_also_wrong - assert [] == {}",
        "  again: .venv/bin/python -m pytest tests/test_mixed.py::test_wrong tests/test_mixed.py::",
        "  sh -c 'echo said by first; exit 3' ended with exit code 3",
    ):
        assert line in summary
    assert " 2 failed, 1 passed, 1 skipped, 1 error in " in shown.splitlines()[-1]
    assert "second     green" in summary


def test_all_green_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([shell("one", "exit 0")], tmp_path) == 0
    assert "Red:" not in capsys.readouterr().out


def test_what_a_stage_leaves_running_is_ended_and_makes_it_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.suite.REST_SECONDS", 0.2)
    words = f"{NAP} & setsid {NAP} & exit 0"
    assert main([shell("careless", words)], tmp_path) == 1
    shown = capsys.readouterr().out
    assert shown.count(f"  left running: {NAP}") == 2
    assert NAP not in dict(processes()).values()


@pytest.mark.parametrize("ignored", [False, True], ids=["", "begun with &"])
def test_ctrl_c_lets_stages_clean_up_and_leaves_nothing_running(
    tmp_path: Path, *, ignored: bool
) -> None:
    (tmp_path / "run.py").write_text(INTERRUPTED)
    background = ["env", "--ignore-signal=INT"] if ignored else []
    process = subprocess.Popen(
        [*background, sys.executable, tmp_path / "run.py", tmp_path, NAP],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while not ((tmp_path / "up").exists() and (tmp_path / "too").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "nothing of them runs any more" in said
    assert (tmp_path / "tidied").exists()
    assert NAP not in dict(processes()).values()


def test_every_need_is_a_stage_that_begins_before() -> None:
    names = [stage.name for stage in STAGES]
    for number, stage in enumerate(STAGES):
        assert stage.needs in ("", *names[:number])


def test_the_plan_is_as_long_as_two_lanes_take() -> None:
    # a | c c c     b waits for a, c takes the other lane
    # b b
    stages = [shell("a", ""), Stage("b", (), 2, needs="a"), Stage("c", (), 4)]
    assert expected_seconds(stages) == 4
    assert expected_seconds([*stages, Stage("d", (), 2, needs="b")]) == 5


def test_some_stages_are_for_ci_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (Stage("always", (), 1), Stage("ci", (), 1, only_in_ci=True))
    monkeypatch.setattr("tests.suite.STAGES", stages)
    monkeypatch.setenv("CI", "false")
    assert [stage.name for stage in chosen([])] == ["always"]
    assert [stage.name for stage in chosen(["ci"])] == ["ci"]
    monkeypatch.setenv("CI", "true")
    assert [stage.name for stage in chosen([])] == ["always", "ci"]


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("3 passed in 0.12s", {"passed": 3}),
        (
            "===== 1 failed, 2 passed, 2 errors in 75.00s (0:01:15) =====",
            {"failed": 1, "passed": 2, "error": 2},
        ),
        ("no tests ran in 0.01s", {}),
        ("everything passed in time", {}),
    ],
)
def test_pytest_s_closing_line_is_read(line: str, counts: dict[str, int]) -> None:
    assert counts_in(f"....\n{line}\n") == counts


def test_the_closing_line_is_the_sum() -> None:
    verdicts = [verdict_of("2 passed, 5 deselected in 1.00s", 0), verdict_of("", 2)]
    verdicts.append(verdict_of("ERROR tests/x.py - SyntaxError\n1 failed, 1 error in 1.00s", 1))
    assert closing_line(verdicts, 61.5).strip("= ") == "1 failed, 2 passed, 2 errors in 61.50s"


def verdict_of(log: str, code: int) -> Verdict:
    return read("name", ("true",), code, 1.0, log, [])


def test_a_process_that_has_ended_is_none() -> None:
    child = subprocess.Popen(["true"])
    deadline = time.monotonic() + PATIENCE
    while child.pid in dict(processes()):  # it stays as a zombie until somebody asks for its code
        assert time.monotonic() < deadline
    assert child.wait() == 0

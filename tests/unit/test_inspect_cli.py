"""The command line of `jobinspect`: what it takes, and how it goes on watching."""

from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import CliRunner

import agent.inspect.cli
from agent.command import NOT_FOUND, UNREACHABLE, Fault
from agent.inspect.cli import main
from agent.stores.store import StoreUnreachable


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name one JOBID, or with --since"),
        (["7", "--since", "1h"], "Name one JOBID, or with --since"),
        (["--since", "1y"], "'1y' is no time span such as 30m, 12h or 7d"),
        (["--since", "h"], "'h' is no time span"),
        (["--since", ""], "'' is no time span"),
        (["--since", "-1h"], "'-1h' is no time span"),
        (["--since", "²h"], "'²h' is no time span"),
    ],
)
def test_usage_is_told_in_one_sentence(words: list[str], said: str) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("span", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("2w", 1209600)],
)
def test_time_spans(span: str, seconds: float) -> None:
    context, option = click.Context(main), main.params[0]
    assert agent.inspect.cli._seconds(context, option, span) == seconds


def rounds(*outcomes: bool | Exception) -> tuple[Callable[[], bool], Iterator[bool | Exception]]:
    """Return what stands for printing a report, and the outcomes that are left."""
    left = iter(outcomes)

    def print_once() -> bool:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return print_once, left


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.inspect.cli, "WATCH_SECONDS", 0.0)


def test_watching_goes_on_until_the_job_has_ended_though_the_store_was_away() -> None:
    away = Fault("the store does not answer: x", UNREACHABLE)
    print_once, left = rounds(True, StoreUnreachable("x: refused"), away, True, False, True)
    agent.inspect.cli._watch(print_once)
    assert list(left) == [True]


def test_watching_ends_with_an_error_that_does_not_pass() -> None:
    print_once, _ = rounds(True, Fault("no job 7", NOT_FOUND))
    with pytest.raises(Fault, match="no job 7"):
        agent.inspect.cli._watch(print_once)


def test_watching_ends_quietly_with_ctrl_c() -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    agent.inspect.cli._watch(interrupted)

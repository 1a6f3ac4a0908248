"""Reads that hang: the thread that is stuck is replaced, and the work goes on."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from agent.relay import Relay, Superseded

PATIENCE = 0.05
LONG = 20.0


class Source:
    """Blocks every reader until the gate is opened."""

    def __init__(self) -> None:
        self.hangs = False
        self.gate = threading.Event()
        self.reads = 0
        self.left = threading.Event()

    def read(self) -> str:
        self.reads += 1
        try:
            assert self.gate.wait(LONG)
        finally:
            self.left.set()
        return "late"


class Quick(Source):
    """Answers at once."""

    def read(self) -> str:
        self.reads += 1
        return "value"


@pytest.fixture
def dead() -> Iterator[Source]:
    source = Source()
    yield source
    source.gate.set()


def test_work_that_hangs_is_done_again_without_what_hangs(dead: Source) -> None:
    relay, quick, attempts = Relay(PATIENCE), Quick(), []

    def work() -> list[str]:
        attempts.append(threading.current_thread())
        with relay.timed():
            return [relay.read(each, each.read, "absent") for each in (quick, dead, quick)]

    assert relay.call(work) == ["value", "absent", "value"]
    assert len(set(attempts)) == 2
    assert dead.hangs
    assert relay.call(work) == ["value", "absent", "value"]
    assert dead.reads == 1


def test_a_source_that_answers_at_last_is_read_again(dead: Source) -> None:
    relay = Relay(PATIENCE)

    def work() -> str:
        with relay.timed():
            return relay.read(dead, dead.read, "absent")

    assert relay.call(work) == "absent"
    (stuck,) = [each for each in threading.enumerate() if each.name == "sampler"]
    dead.gate.set()
    stuck.join(LONG)
    assert not dead.hangs
    assert relay.call(work) == "late"


def test_the_thread_that_comes_back_does_nothing_more(dead: Source) -> None:
    relay, done = Relay(PATIENCE), []

    def work() -> None:
        with relay.timed():
            done.append(relay.read(dead, dead.read, "absent"))

    relay.call(work)
    dead.gate.set()
    assert dead.left.wait(LONG)
    for each in threading.enumerate():
        if each.name == "sampler":
            each.join(LONG)
    assert done == ["absent"]


def test_several_that_hang_are_left_out_one_after_another() -> None:
    relay, sources = Relay(PATIENCE), [Source(), Quick(), Source(), Source()]

    def work() -> list[str]:
        with relay.timed():
            return [relay.read(each, each.read, "absent") for each in sources]

    assert relay.call(work) == ["absent", "value", "absent", "absent"]
    for each in sources:
        each.gate.set()


def test_what_is_slow_but_reads_nothing_is_not_replaced() -> None:
    relay, attempts = Relay(PATIENCE), []

    def work() -> str:
        attempts.append(1)
        with relay.timed():
            threading.Event().wait(4 * PATIENCE)
        return "done"

    assert relay.call(work) == "done"
    assert attempts == [1]


def test_errors_and_results_reach_the_caller() -> None:
    relay, quick = Relay(PATIENCE), Quick()

    def fail() -> None:
        raise ZeroDivisionError("of the work")

    with pytest.raises(ZeroDivisionError, match="of the work"):
        relay.call(lambda: relay.read(quick, fail, None))
    assert relay.call(lambda: 7) == 7
    assert not issubclass(Superseded, Exception)  # no probe's handler may take it


def test_in_a_program_an_alarm_tells_of_the_hang_and_is_given_back() -> None:
    code = """
import signal, threading, time
from agent.relay import Relay
class Source:
    hangs = False
relay, source, polls = Relay(0.2), Source(), []
def work():
    with relay.timed():
        return relay.read(source, lambda: time.sleep(60), "absent")
begun = time.monotonic()
assert relay.call(work) == "absent"
assert 0.2 <= time.monotonic() - begun < 30
assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
print("over")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("over\n", 0), done.stderr
    assert "hangs, and is left out" in done.stderr


def test_a_signal_that_another_thread_gets_is_acted_upon_at_once() -> None:
    """As it may be for one that comes while the process is stopped: nobody would see it end."""
    code = """
import signal, threading, time
from agent.relay import Relay
relay, asked = Relay(60.0), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
def work():
    time.sleep(0.5)  # by now the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    return asked.wait(50)
print(relay.call(work))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_an_alarm_of_somebody_else_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    relay, dead = Relay(PATIENCE), Source()

    def work() -> str:
        with relay.timed():
            return relay.read(dead, dead.read, "absent")

    ours = signal.signal(signal.SIGALRM, lambda *_: None) if before == signal.SIG_DFL else None
    try:
        mine = signal.getsignal(signal.SIGALRM)
        assert relay.call(work) == "absent"
        assert signal.getsignal(signal.SIGALRM) == mine
    finally:
        if ours is not None:
            signal.signal(signal.SIGALRM, ours)
        dead.gate.set()

"""Keys of `rooflight top`: from bytes to names, and from names to what is chosen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.top.keys import INTERVALS, ORDERS, SEQUENCES, Reach, State, decode, press

LIST = Reach(lines=100, page=10)
KEYS = sorted({*SEQUENCES.values(), *ORDERS, *"qQh?gI +-=x", "escape"})


def after(*keys: str, state: State | None = None, reach: Reach = LIST) -> State:
    state = state or State()
    for key in keys:
        state = press(state, key, reach)
    return state


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"PM", ["P", "M"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b[H\x1bOF\x1b[1~\x1b[4~", ["home", "end", "home", "end"]),
        (b"\x1bOP\x1b[11~\x1b[[A", ["h", "h", "h"]),
        (b"\x1b[21~", ["q"]),
        (b"\x1b[17~", ["F6"]),
        # what is not known is no key, and neither are its parts
        (b"\x1b[1;5Aq", ["q"]),
        (b"\x1b[<0;10;5Mq", ["q"]),
        (b"\x1b[[Eq", ["q"]),
        (b"\x1bOSq", ["q"]),
        # Alt and a letter: the escape key, then the letter
        (b"\x1bq", ["q"]),
    ],
)
def test_bytes_become_keys(typed: bytes, keys: list[str]) -> None:
    assert decode(typed) == (keys, b"")


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_sequence_that_comes_in_two_parts_is_one_key(sequence: bytes) -> None:
    for cut in range(1, len(sequence)):
        keys, rest = decode(sequence[:cut])
        assert keys == []
        assert decode(rest + sequence[cut:]) == ([SEQUENCES[sequence]], b"")


@given(st.binary(max_size=40))
def test_whatever_is_typed_is_taken(typed: bytes) -> None:
    keys, rest = decode(typed)
    assert rest == b"" or rest.startswith(b"\x1b")
    assert all(keys)


@given(st.lists(st.sampled_from(KEYS)), st.integers(0, 300), st.integers(1, 60))
def test_the_list_never_leaves_the_screen(keys: list[str], lines: int, page: int) -> None:
    state = State(offset=7)
    for key in keys:
        before, state = state, press(state, key, Reach(lines, page))
        assert state.offset >= 0
        assert state.offset <= max(before.offset, lines - page, 0)
        assert state.interval in INTERVALS


def test_quitting() -> None:
    assert after("q").quitting
    assert after("Q").quitting
    assert not after("x").quitting


def test_sort_keys_are_those_of_htop() -> None:
    assert [after(key).order for key in "PMTNG"] == ["cpu", "memory", "time", "name", "gpu"]
    assert after("M", state=State(offset=50)).offset == 0
    assert after("F6").order == "memory"
    assert after(*["F6"] * len(ORDERS)).order == "cpu"
    assert after("I").inverted
    assert after("I", "I") == State()


def test_scrolling() -> None:
    assert after("down", "down", "up").offset == 1
    assert after("up").offset == 0
    assert after("page down").offset == 9
    assert after("end").offset == 90
    assert after("end", "down").offset == 90
    assert after("end", "page up").offset == 81
    assert after("end", "home").offset == 0
    # the list became shorter while the end of it was looked at
    assert after("up", state=State(offset=90), reach=Reach(50, 10)).offset == 39
    assert after("end", reach=Reach(5, 10)).offset == 0


def test_pausing_and_leaving_out_gpus() -> None:
    assert after(" ").paused
    assert not after(" ", " ").paused
    assert not after("g").gpus


def test_the_interval_goes_step_by_step_between_its_ends() -> None:
    assert after("+").interval == 2.0
    assert after("=").interval == 2.0
    assert after("-").interval == 0.5
    assert after("-", "-").interval == 0.5
    assert after(*"+" * 20).interval == 60.0
    # an interval of the command line need not be one of the steps
    assert after("+", state=State(interval=3.0)).interval == 5.0
    assert after("-", state=State(interval=3.0)).interval == 2.0
    assert after("+", state=State(interval=90.0)).interval == 90.0


@pytest.mark.parametrize("key", ["h", "?", "P", "escape", " ", "x"])
def test_any_key_leaves_the_help_and_does_nothing_else(key: str) -> None:
    for opening in ("h", "?"):
        assert after(opening).help
        assert after(opening, "down").help
        assert after(opening, "down", key) == State()


def test_the_help_can_be_left_for_good() -> None:
    assert after("h", "q").quitting


def test_a_key_that_means_nothing_changes_nothing() -> None:
    state = replace(State(), order="gpu", offset=3, inverted=True)
    assert press(state, "z", LIST) == state
    assert press(state, "escape", LIST) == state

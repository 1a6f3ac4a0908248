"""Whole screens of `rooflight top` as text; with UPDATE_GOLDEN=1 this file writes them anew.

Look at every screen that changed before it is committed: would an administrator at three in the
morning understand it at once?
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.top.keys import State
from agent.top.model import Disk, Frame, Host, Process, gpu_list
from agent.top.paint import Piece, bar, cut, left, left_tail, of_whole, text_of, width_of
from agent.top.screen import Screen, print_lines, render
from tests.unit.top_frames import (
    BUSY,
    EIGHT,
    FOUR_HOSTS,
    HELD,
    JOB,
    NODE,
    NOW,
    OTHERS,
    TRAINING,
    WELL,
    job,
    node,
)

SCREENS = Path(__file__).with_name("top_screens")
TEXT = State()
BY_NAME = State("name", interval=5.0)

GOLDEN: dict[str, tuple[Frame, State, int, int]] = {
    "node_80": (node(NODE), TEXT, 80, 24),
    "node_140": (node(NODE), TEXT, 140, 40),
    "node_without_gpu_80": (
        Frame(NOW, [WELL], limits=["no GPU: no NVIDIA driver: libnvidia-ml.so.1 not found"]),
        TEXT,
        80,
        24,
    ),
    "eight_gpus_80": (node(replace(NODE, gpus=EIGHT)), TEXT, 80, 24),
    "sorted_by_gpu_80": (node(NODE), State("gpu", paused=True), 80, 24),
    "job_80": (FOUR_HOSTS, BY_NAME, 80, 24),
    "job_140": (FOUR_HOSTS, BY_NAME, 140, 40),
    "job_hosts_80": (FOUR_HOSTS, replace(BY_NAME, gpus=False), 80, 24),
    "help_80": (node(NODE), State(help=True), 80, 24),
}


@pytest.fixture(autouse=True)
def _in_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def lines_of(screen: Screen) -> list[str]:
    return [text_of(each) for each in screen.lines]


def show(frame: Frame, state: State = TEXT, width: int = 80, height: int = 24) -> str:
    return "\n".join(lines_of(render(frame, state, width, height)))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_screen_is_as_it_was_looked_at(name: str) -> None:
    frame, state, width, height = GOLDEN[name]
    lines = lines_of(render(frame, state, width, height))
    assert len(lines) == height
    text = "".join(f"{each.rstrip()}\n" for each in lines)
    file = SCREENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


@given(
    st.sampled_from(sorted(GOLDEN)),
    st.integers(1, 250),
    st.integers(1, 70),
    st.integers(0, 200),
    st.booleans(),
)
def test_no_line_is_wider_and_no_screen_higher_than_the_terminal(
    name: str, width: int, height: int, offset: int, gpus: bool
) -> None:
    frame, state, _, _ = GOLDEN[name]
    screen = render(frame, replace(state, offset=offset, gpus=gpus), width, height)
    assert len(screen.lines) == height
    assert max(width_of(each) for each in screen.lines) <= width


HOSTILE = "\x1b[2J\x1b]0;owned\x07\n\r\tname\u202e\x9b31m\udcff"


@given(st.text() | st.just(HOSTILE))
def test_names_of_others_stay_text_and_in_their_place(name: str) -> None:
    stranger = Process(1, name, name, job=name, gpus=["0"])
    host = replace(
        NODE,
        name=name,
        gpus=[replace(BUSY, model=name)],
        processes=[stranger],
        disks=[Disk(name, 0.99, 1.0, 1.0)],
        fabric_errors=[name],
    )
    header = msgspec.structs.replace(
        JOB, jobid=name, name=name, user=name, state=name, start_ms=0, reason=name
    )
    own = Frame(NOW, [host], limits=[name], trouble=name)
    for frame in (own, replace(own, job=header)):
        for state in (TEXT, State(help=True)):
            for each in render(frame, state, 80, 40).lines:
                assert text_of(each).isprintable(), each
                assert width_of(each) <= 80
        assert all(text_of(each).isprintable() for each in print_lines(frame, TEXT, 80))


def test_the_gpus_of_eight_are_pinned_above_the_processes_on_a_small_terminal() -> None:
    frame = node(replace(NODE, gpus=EIGHT))
    top = lines_of(render(frame, TEXT, 80, 24))
    scrolled = lines_of(render(frame, State(offset=10), 80, 24))
    assert scrolled[2:16] == top[2:16]
    assert scrolled[17:] != top[17:]
    assert "4711" not in "\n".join(scrolled)


def test_everything_scrolls_where_there_is_no_room_for_processes() -> None:
    frame = node(replace(NODE, gpus=[replace(BUSY, index=str(index)) for index in range(16)]))
    screen = render(frame, TEXT, 80, 24)
    assert screen.reach.lines > 16 + len(OTHERS)
    seen = "\n".join(
        line
        for offset in range(0, screen.reach.last + 1, screen.reach.page)
        for line in lines_of(render(frame, State(offset=offset), 80, 24))
    )
    end = lines_of(render(frame, State(offset=10_000), 80, 24))
    assert "python train.py" in seen
    assert "job step 0" in "\n".join(end)
    assert f"of {screen.reach.lines}" in end[-1]


def test_a_paused_screen_says_so() -> None:
    assert "PAUSED" in show(node(NODE), State(paused=True))
    assert "every 2s" in show(node(NODE), State(interval=2.0))


def test_before_the_first_look_there_is_a_word_of_it() -> None:
    assert "first look" in lines_of(render(None, TEXT, 80, 24))[0]
    assert lines_of(render(None, State(help=True), 80, 24))[2].startswith("  q F10")


def test_a_store_that_is_away_is_named_and_the_last_look_stays() -> None:
    text = show(replace(FOUR_HOSTS, trouble="the store does not answer: 127.0.0.1: refused"))
    assert "!! the store does not answer: 127.0.0.1: refused; trying again" in text
    assert "gpu10" in text


def test_a_pending_job_tells_what_it_waits_for() -> None:
    header = msgspec.structs.replace(JOB, state="PENDING", start_ms=0, reason="Priority")
    assert "PENDING (Priority)" in show(Frame(NOW, [], header))


def processes(state: State) -> list[str]:
    lines = show(node(WELL), state, height=60).splitlines()
    listed = [line for line in lines if " alice " in line or " bob " in line or " root " in line]
    return [line.split()[0] for line in listed]


@pytest.mark.parametrize(
    ("order", "first"),
    [("cpu", "4711"), ("memory", "4711"), ("time", "4711"), ("gpu", "4711"), ("name", "88")],
)
def test_processes_are_sorted_as_asked(order: str, first: str) -> None:
    assert processes(State(order))[0] == first


def test_the_order_can_be_turned_round() -> None:
    assert processes(State("time"))[1:4] == ["5039", "5038", "5037"]
    assert processes(State("time", inverted=True))[:3] == ["5000", "88", "5001"]


@pytest.mark.parametrize(
    ("order", "first"),
    [("name", "gpu9"), ("cpu", "gpu9"), ("memory", "gpu9"), ("gpu", "gpu10"), ("time", "gpu10")],
)
def test_hosts_are_sorted_as_asked_and_by_number(order: str, first: str) -> None:
    hot = replace(FOUR_HOSTS.hosts[0], gpus=[replace(BUSY, celsius=80.0), BUSY])
    frame = job(FOUR_HOSTS.hosts[2], hot, *FOUR_HOSTS.hosts[1:2])
    lines = show(frame, State(order)).splitlines()
    hosts = [line.split()[0] for line in lines if line.startswith("gpu")]
    assert hosts[0] == first


def test_a_process_that_waits_for_a_dead_server_stands_out() -> None:
    screen = render(node(replace(WELL, processes=NODE.processes[:2])), TEXT, 80, 24)
    styles = {text_of(each).split()[0]: each[0].style for each in screen.lines if text_of(each)}
    assert (styles["88"], styles["4711"]) == ("bad", "bold")


def test_printed_frames_hold_every_gpu_and_the_busiest_processes() -> None:
    lines = [text_of(each) for each in print_lines(node(replace(NODE, gpus=EIGHT)), TEXT, 80)]
    assert sum("690/700W" in each for each in lines) == 8
    assert sum("job step" in each for each in lines) == 19
    hosts = [text_of(each) for each in print_lines(FOUR_HOSTS, BY_NAME, 80)]
    assert len([each for each in hosts if each.startswith("gpu")]) == 4


def test_many_notices_do_not_take_the_screen() -> None:
    full = [Disk(f"/disk{number}", 0.99, 1.0, 1.0) for number in range(9)]
    frame = node(replace(NODE, disks=full, gpus=[HELD]))
    lines = show(frame).splitlines()
    assert lines[3] == "!  and 8 more: h shows them all"
    told = show(frame, State(help=True), height=12)
    assert told.count("is 99% full") == 9
    assert "!  GPU 1: held, and idle for 5 minutes" in told
    end = render(frame, State(help=True, offset=1000), 80, 12)
    assert "unknown: no counters" in lines_of(end)[-1]


def test_bars_and_amounts() -> None:
    assert text_of(bar(0.5, "50%", 12)) == "[|||||  50%]"
    assert text_of(bar(1.4, "140%", 8)) == "[||140%]"
    assert text_of(bar(0.0, "0%", 6)) == "[  0%]"
    assert text_of(bar(None, "", 6)) == "[   -]"
    assert bar(0.9, "60.0/80.0G", 12, "cyan")[1] == Piece("60.0/80.0", "cyan")
    assert of_whole(60 * 2**30, 79.6 * 2**30) == "60.0/79.6G"
    assert of_whole(0.0, 512.0) == "0/512"
    assert of_whole(512 * 2**20, 1023.99 * 2**30) == "0.0/1.0T"


def test_wide_characters_take_two_cells() -> None:
    assert left("日本語", 5) == "日本 "
    assert left_tail("gpu-a100-node-0123", 11) == "..node-0123"
    assert width_of(cut([Piece("日本"), Piece("語語")], 5)) == 5


def test_gpus_are_listed_as_ranges() -> None:
    assert gpu_list(["0", "1", "2", "5", "10", "11"]) == "0-2,5,10-11"
    assert gpu_list(["1", "0.2", "0.10"]) == "1,0.2,0.10"
    held = replace(TRAINING, gpus=["0", "2", "4", "6"])
    assert " 0,2,+ " in show(node(replace(WELL, processes=[held])))


def test_a_node_of_which_nothing_is_known_has_a_screen() -> None:
    assert "gpu01" in show(node(Host("gpu01")))
    assert show(Frame(NOW))

"""What keys do, as transitions of a state: as in htop and nvtop where both agree.

Source of the sequences: XTerm Control Sequences, "PC-Style Function Keys"; console_codes(4).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds between two looks."""

SEQUENCES: Mapping[bytes, str] = {
    # as the terminal sends them, and in its application mode
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    # xterm, its application mode, and the Linux console or tmux
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    # F1 of xterm, of older terminals, and of the Linux console; F6; F10
    b"\x1bOP": "h",
    b"\x1b[11~": "h",
    b"\x1b[[A": "h",
    b"\x1b[17~": "F6",
    b"\x1b[21~": "q",
}

ORDERS: Mapping[str, str] = {"P": "cpu", "M": "memory", "T": "time", "G": "gpu", "N": "name"}
"""Sort keys, htop's where it has them."""

_ESCAPE = b"\x1b"


def decode(typed: bytes) -> tuple[list[str], bytes]:
    """Return the keys that bytes from a terminal mean, and what may be the beginning of one.

    A sequence that is not known is left out as a whole, so that its end is not taken for keys.
    """
    keys: list[str] = []
    while typed:
        if not typed.startswith(_ESCAPE):
            keys.append(chr(typed[0]))
            typed = typed[1:]
            continue
        length = _sequence_length(typed)
        if length is None:
            break
        known = SEQUENCES.get(typed[:length])
        keys += [known] if known else []
        typed = typed[length:]
    return keys, typed


def _sequence_length(typed: bytes) -> int | None:
    """Return the length of the escape sequence at the beginning; None if it goes on."""
    for sequence in SEQUENCES:
        if typed.startswith(sequence):
            return len(sequence)
    if len(typed) < 2:
        return None
    if typed[1:2] == b"O":
        return 3 if len(typed) >= 3 else None
    if typed[1:2] != b"[":
        return 1  # the escape key, and then another one
    if typed[2:3] == b"[":  # the Linux console's function keys
        return 4 if len(typed) >= 4 else None
    ends = (place for place in range(2, len(typed)) if 0x40 <= typed[place] <= 0x7E)
    return next((place + 1 for place in ends), None)


class Reach(NamedTuple):
    """How far the list on the screen goes: lines in all, and how many of them are shown."""

    lines: int = 0
    page: int = 1

    @property
    def last(self) -> int:
        """The furthest place that the list can be scrolled to."""
        return max(0, self.lines - self.page)


@dataclass(frozen=True, slots=True)
class State:
    """What the user chose.

    Attributes:
        order: what the list is sorted by, a value of `ORDERS`.
        inverted: whether the smallest come first.
        offset: lines of the list that are scrolled past.
        paused: whether the screen stands still.
        help: whether the help is shown.
        gpus: whether GPUs of a job's hosts are shown, or the hosts alone.
        interval: seconds between two looks.
        quitting: whether to end.

    """

    order: str = "cpu"
    inverted: bool = False
    offset: int = 0
    paused: bool = False
    help: bool = False
    gpus: bool = True
    interval: float = 1.0
    quitting: bool = False


def press(state: State, key: str, reach: Reach) -> State:
    """Return the state after a key; keys that mean nothing change nothing."""
    if key in ("q", "Q"):
        return replace(state, quitting=True)
    if key in _MOVES:
        return replace(state, offset=_moved(state.offset, key, reach))
    if state.help or key in ("h", "?"):  # any key leaves the help
        return replace(state, help=not state.help, offset=0)
    if key in ORDERS:
        return replace(state, order=ORDERS[key], offset=0)
    return _changed(state, key)


def _changed(state: State, key: str) -> State:
    match key:
        case "F6":
            orders = tuple(ORDERS.values())
            following = orders[(orders.index(state.order) + 1) % len(orders)]
            return replace(state, order=following, offset=0)
        case "I":
            return replace(state, inverted=not state.inverted)
        case " ":
            return replace(state, paused=not state.paused)
        case "g":
            return replace(state, gpus=not state.gpus, offset=0)
        case "+" | "=":
            return replace(state, interval=_step(state.interval, 1))
        case "-":
            return replace(state, interval=_step(state.interval, -1))
    return state


_MOVES = frozenset({"up", "down", "page up", "page down", "home", "end"})


def _moved(offset: int, key: str, reach: Reach) -> int:
    page = max(1, reach.page - 1)  # one line of the page before stays, to find one's place
    steps = {"up": -1, "down": 1, "page up": -page, "page down": page}
    wanted = {"home": 0, "end": reach.last}.get(key, min(offset, reach.last) + steps.get(key, 0))
    return min(max(0, wanted), reach.last)


def _step(interval: float, way: int) -> float:
    """Return the next longer or shorter interval; the last one stays."""
    beyond = [each for each in INTERVALS if (each - interval) * way > 0]
    return interval if not beyond else (min(beyond) if way > 0 else max(beyond))

"""A terminal as a screen: keys one by one, lines in place, and all as it was at the end.

Source: XTerm Control Sequences (ECMA-48 for cursor, erasing and colours); termios(3); "Terminal
Spec: Synchronized Output".
"""

import os
import select
import signal
import termios
import tty
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any

from agent.top.paint import PLAIN, Line

Size = tuple[int, int]
"""Columns and lines."""

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""Other screen, no cursor, no wrapping at the last column."""

BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
"""Around all changes of a frame: terminals that know it show them at once, others ignore it."""

EMPTY = "\x1b[2J"
LEAVE = f"{END}\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l"
RESET = "\x1b[0m"
USUAL_SIZE = (80, 24)

COLOURS: Mapping[str, str] = {
    "green": "32",
    "yellow": "33",
    "blue": "1;34",
    "magenta": "35",
    "cyan": "36",
    "good": "32",
    "warn": "33",
    "bad": "1;31",
}
ATTRIBUTES: Mapping[str, str] = {"bold": "1", "dim": "2", "reverse": "7", "title": "1;7"}
"""What NO_COLOR leaves as it is: it is not colour."""

MONOCHROME: Mapping[str, str] = {"bad": "1", "warn": "1", **ATTRIBUTES}
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def styles(*, colour: bool) -> Mapping[str, str]:
    """Return the terminal's code of each style."""
    return {**COLOURS, **ATTRIBUTES} if colour else MONOCHROME


def encode(pieces: Iterable[tuple[str, str]], codes: Mapping[str, str]) -> str:
    """Return a line with the terminal's codes for its styles."""
    parts = []
    for text, style in pieces:
        code = codes.get(style) if style != PLAIN else None
        parts.append(f"\x1b[{code}m{text}{RESET}" if code else text)
    return "".join(parts)


class Terminal:
    """The terminal, from `with` to its end, whatever ends it.

    Args:
        keys: file descriptor that keys come from.
        screen: file descriptor that the screen is written to.
        colour: whether to use colours.
        encoding: of the terminal.

    Attributes:
        changed: file descriptor that can be read when the screen must be painted anew.

    """

    def __init__(self, keys: int, screen: int, *, colour: bool, encoding: str = "utf-8") -> None:
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._keys = keys
        self._screen = screen
        self._codes = styles(colour=colour)
        self._encoding = encoding
        self._usual_mode = termios.tcgetattr(keys)
        self._shown: list[str] = []
        self._takings = 0
        self._painted: tuple[Size, int] | None = None
        self._ending = ExitStack()

    def __enter__(self) -> "Terminal":
        """Take the terminal."""
        reactions: dict[signal.Signals, Any] = {
            signal.SIGINT: signal.default_int_handler,  # even if whoever started us ignores it
            signal.SIGWINCH: self._resized,
            signal.SIGTSTP: self._stop,
            signal.SIGCONT: self._go_on,
            **dict.fromkeys(ENDINGS, self._end),
        }
        with ExitStack() as stack:  # whatever comes in between
            for number, react in reactions.items():
                stack.callback(signal.signal, number, signal.signal(number, react))
            stack.callback(self._give_back)
            self._take()
            self._ending = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back as it was."""
        self._ending.close()

    def size(self) -> Size:
        """Return columns and lines; the usual ones of a terminal that does not know its size."""
        columns, lines = os.get_terminal_size(self._screen)
        return columns or USUAL_SIZE[0], lines or USUAL_SIZE[1]

    def paint(self, lines: Sequence[Line], size: Size) -> None:
        """Show these lines; those that stand there already are not sent again.

        Args:
            lines: the whole screen.
            size: that they were made for. Of another size than the ones before, all are sent:
                what a terminal does with its text when its size changes is its own affair.

        """
        wanted = [encode(each, self._codes) for each in lines]
        now = (size, self._takings)  # a signal may take the terminal anew meanwhile
        anew = now != self._painted
        before = [""] * len(wanted) if anew else self._shown
        changes = [
            f"\x1b[{row};1H\x1b[2K{new}"
            for row, (old, new) in enumerate(zip(before, wanted, strict=True), start=1)
            if old != new
        ]
        self._shown, self._painted = wanted, now
        if changes or anew:
            self._write(f"{BEGIN}{EMPTY if anew else ''}{''.join(changes)}{END}")

    def _take(self) -> None:
        tty.setcbreak(self._keys, termios.TCSANOW)  # Ctrl-C and Ctrl-Z stay signals
        self._write(ENTER)
        self._takings += 1

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # it may be gone: a lost connection
            self._write(LEAVE)
            termios.tcsetattr(self._keys, termios.TCSANOW, self._usual_mode)

    def _write(self, text: str) -> None:
        left = text.encode(self._encoding, errors="replace")
        while left:
            try:
                left = left[os.write(self._screen, left) :]
            except BlockingIOError:  # somebody else on this terminal wants it so
                select.select([], [self._screen], [])

    def _resized(self, number: int, frame: FrameType | None) -> None:
        os.eventfd_write(self.changed, 1)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stop as Ctrl-Z asks, with the terminal as it was.

        Where nobody could ever continue us (no shell that controls jobs) the kernel does not stop
        us, and the view goes on at once.
        """
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        self._go_on(number, frame)

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()
        os.eventfd_write(self.changed, 1)

    def _end(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

"""A real pseudo-terminal with a program on it, and a strict screen that shows what it draws.

The screen knows the few sequences that `rooflight top` may send, and fails at any other: a name
that smuggles one to the terminal is found so, and a line that is too long as well.
"""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.cells import cell_len

from tests.weather import PATIENCE

MOVE = re.compile(r"\x1b\[(\d+);(\d+)H")
STYLE = re.compile(r"\x1b\[([\d;]*)m")
SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[^\[])")
MODES = {
    "\x1b[?1049h": ("other", True),
    "\x1b[?1049l": ("other", False),
    "\x1b[?25h": ("cursor", True),
    "\x1b[?25l": ("cursor", False),
    "\x1b[?7h": ("wrap", True),
    "\x1b[?7l": ("wrap", False),
    "\x1b[?2026h": ("changing", True),
    "\x1b[?2026l": ("changing", False),
}
AS_FOUND = {"other": False, "cursor": True, "wrap": True, "changing": False}


def _as_a_login_does() -> None:
    """Make the terminal ours, and no key be ignored, whatever the tests' parent ignores."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)


class Glass:
    """What a terminal of this size shows, from the first time that it is emptied: whole frames.

    Attributes:
        modes: other screen, visible cursor, wrapping, changes under way.
        styles: codes of all styles that were used.
        taken: how often the other screen was taken.

    """

    def __init__(self, columns: int, lines: int) -> None:
        self.modes = dict(AS_FOUND)
        self.styles: set[str] = set()
        self.taken = 0
        self._rest = ""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Take another size; what was sent for the old one counts no more."""
        self.columns, self.lines = columns, lines
        self._stale = True
        self._cells = [[" "] * columns for _ in range(lines)]
        self._shown = ""
        self._row = self._column = 0

    def text(self) -> str:
        return self._shown

    def feed(self, sent: str) -> None:
        left = self._rest + sent
        while left:
            if left[0] == "\x1b":
                found = SEQUENCE.match(left)
                following = left.find("\x1b", 1)
                if found:
                    self._obey(found[0])
                elif following < 0:
                    break  # the rest of it is on its way
                # a sequence that the program's end cut off is none
                left = left[found.end() if found else following :]
            else:
                self._print(left[0])
                left = left[1:]
        self._rest = left

    def _obey(self, sequence: str) -> None:
        if sequence == "\x1b[2J":
            self._stale = False
            self._cells = [[" "] * self.columns for _ in range(self.lines)]
        elif self._stale and sequence not in MODES:
            return
        elif sequence in MODES:
            name, value = MODES[sequence]
            self.modes[name] = value
            self.taken += sequence == "\x1b[?1049h"
            if name == "changing" and not value and not self._stale:
                self._shown = "\n".join("".join(row).rstrip() for row in self._cells)
        elif found := MOVE.fullmatch(sequence):
            self._row, self._column = int(found[1]) - 1, int(found[2]) - 1
        elif found := STYLE.fullmatch(sequence):
            self.styles.add(found[1])
        elif sequence == "\x1b[2K":
            self._cells[self._row] = [" "] * self.columns
        else:
            raise AssertionError(f"sent to the terminal: {sequence!r}")

    def _print(self, character: str) -> None:
        if self._stale or not self.modes["other"]:
            return  # what comes before and after is an ordinary stream
        assert character.isprintable(), f"sent to the terminal: {character!r}"
        width = cell_len(character)
        assert self._row < self.lines, "a line below the screen"
        assert self._column + width <= self.columns, f"line {self._row + 1} is too long"
        if width:
            self._cells[self._row][self._column : self._column + width] = [character, ""][:width]
        else:
            self._cells[self._row][self._column - 1] += character
        self._column += width


class PseudoTerminal:
    """A program on a terminal of its own, from `with` to its end.

    Attributes:
        glass: what is on the screen.
        sent: everything that the program sent.

    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.glass = Glass(columns, lines)
        self.sent = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._command = command
        self._environment = {**environment, "TERM": environment.get("TERM", "xterm")}

    def __enter__(self) -> "PseudoTerminal":
        self._ours, theirs = pty.openpty()
        self.mode = termios.tcgetattr(theirs)
        self._theirs = theirs  # kept open: its mode is looked at after the program's end
        self._tell_size()
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_as_a_login_does,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the size, which the kernel tells the program."""
        self.glass.resize(columns, lines)
        self._tell_size()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for(self, what: str | Callable[[str], object]) -> str:
        """Read until the screen shows a text, or is as wanted; return the screen."""
        shows = what if callable(what) else lambda text: what in text
        deadline = time.monotonic() + PATIENCE
        while not shows(self.glass.text()):
            told = f"{what}: {self.glass.text()}\n{self.sent[-3000:]!r}"
            assert time.monotonic() < deadline, f"waited in vain for {told}"
            assert self._read(0.2) or self.process.poll() is None, f"ended before {told}"
        return self.glass.text()

    def wait_for_end(self) -> int:
        """Read until the program ends; return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.glass.text()
            self._read(0.05)
        self._read_what_waits()
        return self.process.returncode

    def is_as_found(self) -> bool:
        """Tell whether the terminal is as it was before the program."""
        return self.glass.modes == AS_FOUND and termios.tcgetattr(self._theirs) == self.mode

    def _tell_size(self) -> None:
        size = struct.pack("HHHH", self.glass.lines, self.glass.columns, 0, 0)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, size)

    def _read_what_waits(self) -> None:
        while self._read(0.0):
            pass

    def _read(self, seconds: float) -> bool:
        """Take what the program sent; tell whether there was anything."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        sent = os.read(self._ours, 65536)
        self.sent += sent
        self.glass.feed(self._decoder.decode(sent))
        return bool(sent)

"""The live view: keys and looks come in, and the screen follows."""

import os
import selectors
from contextlib import suppress

from agent.top.feed import Feed
from agent.top.keys import Reach, State, decode, press
from agent.top.model import Frame
from agent.top.screen import render
from agent.top.terminal import Terminal

ESCAPE_SECONDS = 0.1
"""A sequence's bytes come together, even over a slow line; an escape key's comes alone."""

MOST_TYPED = 1024


class Live:
    """What is on the screen, and why.

    Args:
        feed: where looks come from.
        terminal: where they go.
        keys: file descriptor that keys come from.
        state: what is chosen at first.

    """

    def __init__(self, feed: Feed, terminal: Terminal, keys: int, state: State) -> None:
        self._feed = feed
        self._terminal = terminal
        self._keys = keys
        self._state = state
        self._frame: Frame | None = None
        self._reach = Reach()
        self._typed = b""

    def run(self) -> None:
        """Follow keys and looks until the user wants no more; raises what the source raised."""
        with selectors.DefaultSelector() as selector:
            for source in (self._keys, self._feed.ready, self._terminal.changed):
                selector.register(source, selectors.EVENT_READ)
            self._paint()
            while not self._state.quitting:
                found = selector.select(ESCAPE_SECONDS if self._typed else None)
                for key, _ in found:
                    self._react(key.fd)
                if not found:
                    self._escape()
                self._paint()

    def _react(self, descriptor: int) -> None:
        if descriptor == self._keys:
            self._read_keys()
            return
        with suppress(BlockingIOError):
            os.eventfd_read(descriptor)
        if descriptor == self._feed.ready and not self._state.paused:
            self._frame = self._feed.newest()

    def _read_keys(self) -> None:
        try:
            typed = os.read(self._keys, MOST_TYPED)
        except OSError:  # the terminal is gone
            typed = b""
        if not typed:
            self._press("q")
            return
        pressed, self._typed = decode(self._typed + typed)
        for key in pressed:
            self._press(key)

    def _escape(self) -> None:
        """Take what waits for its rest in vain as the escape key."""
        self._typed = b""
        self._press("escape")

    def _press(self, key: str) -> None:
        self._state = press(self._state, key, self._reach)
        self._feed.pace(self._state.interval)

    def _paint(self) -> None:
        try:
            size = self._terminal.size()
            screen = render(self._frame, self._state, *size)
            self._reach = screen.reach
            self._terminal.paint(screen.lines, size)
        except OSError:  # the terminal is gone
            self._press("q")

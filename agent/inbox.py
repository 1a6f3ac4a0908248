"""Hear what comes in by the agent's sockets, without letting any of them take all the time."""

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

from agent.clock import Clock
from agent.listener import AgentSocket, Listeners, Received
from agent.messages import Reply

MOST_AT_ONCE = 100
"""Messages of one socket that are handled before others are looked at."""

REST_SECONDS = 0.5
"""How long a socket is left alone that was read as often as it may be."""


class Host(Protocol):
    """The loop that the inbox is part of.

    Attributes:
        clock: both clocks.

    """

    clock: Clock

    def watch(self, source: AgentSocket, react: Callable[[], None]) -> None:
        """Call `react` whenever `source` can be read."""

    def forget(self, source: AgentSocket) -> None:
        """Watch a source no longer."""

    def serve(self, listener: AgentSocket) -> None:
        """Call `Inbox.serve`, unless the loop is being stopped."""

    def do(self, work: Callable[[], None]) -> None:
        """Do what is done again if this thread hangs in it."""


class Inbox:
    """Reads the agent's sockets.

    Args:
        host: the loop.
        handle: returns the answer to a message.

    """

    def __init__(self, host: Host, handle: Callable[[Received], Reply]) -> None:
        self._host = host
        self._handle = handle
        self._listeners: Listeners | None = None
        self._resting: list[tuple[float, AgentSocket]] = []

    def listen(self, listeners: Listeners) -> None:
        """Hear what comes in by these sockets."""
        self._listeners = listeners
        for each in listeners:
            self._watch(each)

    def serve(self, listener: AgentSocket, is_over: Callable[[], bool] = lambda: False) -> None:
        """Handle what lies in a socket, a bounded number of messages so that ticks stay on time.

        What a stopping loop leaves unread, its sender hears of when the socket closes. A socket
        that is flooded is left alone for a while, and whoever sends to it waits.
        """
        for _ in range(MOST_AT_ONCE):
            if is_over():
                return
            if listener.is_spent():
                self._rest(listener)
                return
            received = listener.receive()
            if received is None:
                return
            self._host.do(partial(self._reply, listener, received))

    def drain(self) -> None:
        """Handle what programs reported just before their end, also in a loop that was stopped."""
        for listener in self._listeners or ():
            self.serve(listener)

    def admit(self, uid: int) -> None:
        """Give the owner of a job a socket of his own, if he has none."""
        if self._listeners and (own := self._listeners.admit(uid)):
            self._watch(own)

    def hear_last_words(self, uid: int) -> None:
        """Take what a user's programs reported just before the end of his job."""
        if self._listeners and (own := self._listeners.of_user(uid)):
            self.serve(own)

    def dismiss(self, uid: int) -> None:
        """Close the socket of a user whose last job has ended."""
        if self._listeners and (own := self._listeners.dismiss(uid)):
            self._host.forget(own)
            self._resting = [each for each in self._resting if each[1] is not own]
            own.close()

    def listen_again(self) -> None:
        """Watch the sockets again that have rested."""
        if not self._resting:
            return
        now = self._host.clock.monotonic()
        for _, listener in [each for each in self._resting if each[0] <= now]:
            self._watch(listener)
        self._resting = [each for each in self._resting if each[0] > now]

    def pause_seconds(self) -> float:
        """Return how long the loop may wait until `listen_again` is due."""
        return REST_SECONDS if self._resting else math.inf

    def _reply(self, listener: AgentSocket, received: Received) -> None:
        listener.answer(received, self._handle(received))

    def _rest(self, listener: AgentSocket) -> None:
        self._host.forget(listener)
        if not any(each is listener for _, each in self._resting):
            self._resting.append((self._host.clock.monotonic() + REST_SECONDS, listener))

    def _watch(self, listener: AgentSocket) -> None:
        self._host.watch(listener, partial(self._host.serve, listener))

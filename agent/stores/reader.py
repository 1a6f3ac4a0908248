"""The store through rooflight-reader: for users who have no credential of the store's own.

Both sides speak JSON, a line for each question and each answer, over a unix socket. The reader
learns from the kernel who asks, and answers with what this user may see (`agent/privacy.py`).
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Literal

import msgspec

from agent.client import reachable
from agent.stores.store import Row, Select, StoreRefused, StoreUnreachable, Windows
from probes.catalogue import CATALOGUE, COMMON_TAGS, Database

PROTOCOL = "rooflight.reader/1"

TIMEOUT_SECONDS = 30.0
"""How long an answer may take: the reader itself waits for the store."""

MOST_WINDOWS = 10_000
LATEST_MS = 1 << 53
"""No time lies after it, or before its negative: databases count in 64 bits, of nanoseconds too."""

_IS_IT_THERE = "is rooflight-reader.socket started on this machine?"


class RowsQuestion(msgspec.Struct, frozen=True, tag="rows"):
    """What `Store.rows` is asked."""

    asked: Select
    protocol: str = PROTOCOL


class WindowsQuestion(msgspec.Struct, frozen=True, tag="windows"):
    """What `Store.windows` is asked."""

    asked: Windows
    protocol: str = PROTOCOL


Question = RowsQuestion | WindowsQuestion


class RowsAnswer(msgspec.Struct, frozen=True, tag="answer"):
    """The rows."""

    rows: list[Row]


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """Why there are none."""

    kind: Literal["unreachable", "refused"]
    words: str


Answer = RowsAnswer | Failure

_questions = msgspec.json.Decoder(Question)
_answers = msgspec.json.Decoder(Answer)


class ReaderStore:
    """Asks the reader that listens on a socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self._lines: IO[bytes] | None = None

    def write(self, database: Database, lines: bytes) -> None:
        """Refuse.

        Raises:
            StoreRefused: always.

        """
        raise StoreRefused(f"{self._path}: this way into the store is for reading only", keep=True)

    def rows(self, select: Select) -> Sequence[Row]:
        """Return the rows that match and that this user may see, oldest first.

        Raises:
            StoreUnreachable: no reader answers, or the store does not answer it.
            StoreRefused: the store or the reader said no.

        """
        return self._ask(RowsQuestion(select))

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Return a field over time, as far as this user may see it; see `Windows`.

        Raises:
            StoreUnreachable: no reader answers, or the store does not answer it.
            StoreRefused: the store or the reader said no.

        """
        return self._ask(WindowsQuestion(asked))

    def close(self) -> None:
        """Close the connection."""
        if self._lines:
            self._lines.close()
        if self._connection:
            self._connection.close()
        self._lines = self._connection = None

    def _ask(self, question: Question) -> Sequence[Row]:
        try:
            line = self._exchanged(msgspec.json.encode(question) + b"\n")
            answer = _answers.decode(line)
        except OSError as error:
            self.close()
            words = error.strerror or "no answer in time"
            raise StoreUnreachable(f"{self._path}: {words}: {_IS_IT_THERE}") from error
        except msgspec.DecodeError as error:
            self.close()
            words = f"not an answer of this version's reader: {error}"
            raise StoreRefused(f"{self._path}: {words}", keep=True) from error
        if isinstance(answer, RowsAnswer):
            return answer.rows
        if answer.kind == "unreachable":
            raise StoreUnreachable(answer.words)
        raise StoreRefused(answer.words, keep=True)

    def _exchanged(self, line: bytes) -> bytes:
        """Send a question and return the line that comes back.

        Raises:
            OSError: the reader is away, or went away.

        """
        if self._connection is None or self._lines is None:
            self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._connection.settimeout(TIMEOUT_SECONDS)
            with reachable(self._path) as address:
                self._connection.connect(address)
            self._lines = self._connection.makefile("rb")
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(line)
        # one that says no may have said it, and hung up, before it was asked
        answer = self._lines.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError(0, "the reader hung up")
        return answer


def decode(line: bytes) -> Question:
    """Return the question of a line: one that names what the catalogue knows, and nothing else.

    Raises:
        ValueError: it is not one; the words say why.

    """
    try:
        question: Question = _questions.decode(line)
    except RecursionError as error:
        raise ValueError("lists in lists in lists") from error
    if question.protocol != PROTOCOL:
        raise ValueError(f"this reader speaks {PROTOCOL}, not {question.protocol}")
    asked = question.asked
    measurement = CATALOGUE.get(asked.measurement)
    if measurement is None:
        raise ValueError("no such measurement")
    names = {*asked.where, *(asked.by if isinstance(asked, Windows) else ())}
    if not names <= {*COMMON_TAGS, *measurement.tags}:
        raise ValueError(f"{asked.measurement} has no such tag")
    times = [each for each in (asked.since_ms, asked.until_ms) if each is not None]
    if not all(-LATEST_MS <= each <= LATEST_MS for each in times):
        raise ValueError("no such time")
    if isinstance(asked, Windows):
        _check_windows(asked)
    elif asked.newest is not None and asked.newest < 1:
        raise ValueError("no rows at all")
    return question


def _check_windows(asked: Windows) -> None:
    if asked.field not in CATALOGUE[asked.measurement].fields:
        raise ValueError(f"{asked.measurement} has no such field")
    count = (asked.until_ms - asked.since_ms) / asked.every_ms if asked.every_ms > 0 else -1
    if not 0 <= count <= MOST_WINDOWS:
        raise ValueError(f"more than {MOST_WINDOWS} windows, or none")

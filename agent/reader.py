"""rooflight-reader: reads the store for users who have no credential of it.

Started by systemd when somebody asks (`deploy/systemd/rooflight-reader.socket`); it ends itself
when nobody has asked for a while. The kernel says who is at the other end (SO_PEERCRED, `man 7
unix`); nothing that the other end says about itself is believed.
"""

import logging
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import IO

import msgspec

from agent.client import reachable
from agent.config import Config, ConfigError, load
from agent.privacy import Asker, Privacy, as_seen_by, asker, group_id
from agent.stores.opening import open_for_reading
from agent.stores.reader import Answer, Failure, Question, RowsAnswer, WindowsQuestion, decode
from agent.stores.settings import SettingsError
from agent.stores.store import Row, Store, StoreRefused, StoreUnreachable

log = logging.getLogger("rooflight.reader")

LONGEST_QUESTION = 1 << 18
"""Bytes; a question may name some thousand hosts."""

MOST_CONNECTIONS = 64
MOST_OF_ONE_USER = 8
MOST_ROWS = 100_000

ROWS_IN_PIECE = 100

AT_ONCE = 4
"""Questions that are put to the store at one time, each of another user; the others wait."""

SWITCH_SECONDS = 0.0005
"""How long one user's thread may have Python to itself while another's waits (usual: 0.005)."""

SILENT_SECONDS = 30.0
"""How long a connection may say nothing, or not take its answer."""

WRONG_SECONDS = 10.0
"""How long a wrong configuration counts until it is read anew."""

NOT_SET_UP = "the reader is not set up right, its journal says why: journalctl -u rooflight-reader"

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_FIRST_PASSED = 3  # `man 3 sd_listen_fds`

OpenFor = Callable[[Asker], Store]
"""Opens the store as somebody may see it."""


class Reader:
    """Answers on a listening socket."""

    def __init__(self, listener: socket.socket, open_for: OpenFor) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._open_for = open_for
        self._lock = threading.Lock()
        self._by_user: Counter[int] = Counter()
        self._turns: dict[int, threading.Lock] = {}
        self._to_store = threading.Semaphore(AT_ONCE)

    def serve(self, idle_seconds: float, most_seconds: float = inf) -> None:
        """Answer until nobody has been there for so many seconds, or so long in all."""
        sys.setswitchinterval(SWITCH_SECONDS)
        end = time.monotonic() + most_seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._listener], [], [], min(idle_seconds, left))
            if ready:
                self._accept()
            elif not self._by_user.total():
                return

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # gone already
            return
        threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        """Answer all questions of one connection; each connection has a thread of its own."""
        with connection, self._counted(peer(connection)) as who:
            connection.settimeout(SILENT_SECONDS)
            try:
                if who is None:
                    connection.sendall(_line(Failure("unreachable", "too many ask at one time")))
                else:
                    self._answer_all(connection, who)
            except OSError as error:  # gone, silent, or deaf
                log.debug("a connection ended: %s", error)

    @contextmanager
    def _counted(self, uid: int) -> Iterator[Asker | None]:
        """Give who it is; None if there are too many already."""
        with self._lock:
            self._by_user[uid] += 1
            self._turns.setdefault(uid, threading.Lock())
            total, own = self._by_user.total(), self._by_user[uid]
        try:
            fits = total <= MOST_CONNECTIONS and own <= MOST_OF_ONE_USER
            yield asker(uid) if fits else None
        finally:
            with self._lock:
                self._by_user[uid] -= 1
                if not self._by_user[uid]:
                    del self._turns[uid]

    def _answer_all(self, connection: socket.socket, who: Asker) -> None:
        try:
            store = self._open_for(who)
        except (SettingsError, StoreRefused) as error:
            log.error("%s", error)
            connection.sendall(_line(Failure("unreachable", NOT_SET_UP)))
            return
        with connection.makefile("rb") as lines:
            try:
                while line := _question(lines):
                    # a user's questions wait for each other, even for a slow taker of an answer:
                    # so eight connections have the share, and the memory, of one
                    with self._turns[who.uid]:
                        connection.sendall(self._answer(store, line))
            finally:
                store.close()

    def _answer(self, store: Store, line: bytes) -> bytes:
        """Return the answer to a line, encoded."""
        try:
            question = decode(line)
        except ValueError as error:
            return _line(Failure("refused", f"the reader did not understand: {error}"))
        try:
            with self._to_store:
                rows = _rows(store, question)
                if len(rows) <= MOST_ROWS:
                    return _rows_line(rows)
        except StoreUnreachable as error:
            return _line(Failure("unreachable", str(error)))
        except StoreRefused as error:
            return _line(Failure("refused", str(error)))
        return _line(Failure("refused", f"more than {MOST_ROWS} rows: ask for less at a time"))


def _rows(store: Store, question: Question) -> Sequence[Row]:
    if isinstance(question, WindowsQuestion):
        return store.windows(question.asked)
    asked = question.asked
    return store.rows(replace(asked, newest=min(asked.newest or MOST_ROWS + 1, MOST_ROWS + 1)))


def peer(connection: socket.socket) -> int:
    """Return the user id of the process that connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def _question(lines: IO[bytes]) -> bytes:
    """Return the next line; empty at the end, and if it is too long to be one."""
    line = lines.readline(LONGEST_QUESTION)
    return line if line.endswith(b"\n") else b""


def _line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


def _rows_line(rows: Sequence[Row]) -> bytes:
    """Return the line of an answer, made piece by piece: others have their turn between."""
    encoded = (
        msgspec.json.encode(rows[at : at + ROWS_IN_PIECE])[1:-1]
        for at in range(0, len(rows), ROWS_IN_PIECE)
    )
    begin, end = _line(RowsAnswer([])).split(b"[]")
    return b"%b[%b]%b" % (begin, b",".join(encoded), end)


def run_reader(config_file: Path | None, idle_seconds: float) -> None:
    """Answer on the socket that systemd passes, or else on the configured one.

    With a socket passed, a mistake in the configuration is told to whoever asks: systemd would
    start a service that ends at once again and again, and then give up its socket.

    Raises:
        ConfigError: there is no socket to listen on, or nobody passed one and it is wrong.

    """
    passed = passed_socket(os.environ)
    try:
        config = load(config_file).config
        open_for = opener(config)
    except ConfigError as error:
        if passed is None:
            raise
        with passed:
            Reader(passed, refusing(SettingsError(str(error)))).serve(idle_seconds, WRONG_SECONDS)
            return
    with passed or own_socket(config) as listener:
        Reader(listener, open_for).serve(idle_seconds)


def opener(config: Config) -> OpenFor:
    """Return what opens the store for somebody.

    Raises:
        ConfigError: there is no such group of staff.

    """
    if config.inspect.staff_group and group_id(config.inspect.staff_group) is None:
        raise ConfigError(f"inspect.staff_group: no group {config.inspect.staff_group!r} here")
    privacy = Privacy(config)
    return lambda who: as_seen_by(who, open_for_reading(config), privacy)


def refusing(error: SettingsError) -> OpenFor:
    """Return what opens the store for nobody."""

    def open_for(who: Asker) -> Store:
        raise error

    return open_for


def passed_socket(environment: Mapping[str, str]) -> socket.socket | None:
    """Return the socket that systemd listens on for us; None if it started us without."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_PASSED)


def own_socket(config: Config) -> socket.socket:
    """Listen on the configured path, which every user may then connect to.

    Raises:
        ConfigError: none is configured, or it cannot be made.

    """
    if not config.inspect.reader:
        raise ConfigError("inspect.reader is not set: the path of the socket to listen on")
    path = Path(config.inspect.reader)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with reachable(str(path)) as address:
            listener.bind(address)
        path.chmod(0o666)
    except OSError as error:
        listener.close()
        raise ConfigError(f"inspect.reader: {path}: {error.strerror}") from error
    listener.listen(MOST_CONNECTIONS)
    return listener

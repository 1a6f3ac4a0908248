"""The reader on a real socket: what comes through it, and what it does not let in."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from agent.config import Config, ConfigError, InspectSection
from agent.lineprotocol import Point, encode
from agent.privacy import Asker
from agent.reader import MOST_OF_ONE_USER, Reader, own_socket, passed_socket, peer, run_reader
from agent.stores.local import LocalStore
from agent.stores.opening import open_for_asker
from agent.stores.reader import PROTOCOL, Failure, ReaderStore, RowsQuestion, decode
from agent.stores.settings import SettingsError
from agent.stores.store import Select, Store, StoreRefused, StoreUnreachable, Windows
from probes.catalogue import Database

JOB = Select("job", {"cluster": "c", "jobid": ["7"]})
CPU = Windows("cpu", "utilization_ratio", {"cluster": ["c"], "host": ["n1"]}, ("host",), 0, 9, 3)


class Running:
    """A reader that serves in a thread, and who asked it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "reader.sock"
        self.database = folder / "rooflight.db"
        self.askers: list[Asker] = []
        self.error: SettingsError | None = None
        self.listener = own_socket(Config(inspect=InspectSection(reader=str(self.path))))
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        """Serve again and again: a slow machine may come to its question late."""
        reader = Reader(self.listener, self.open_for)
        while not self.ending.is_set():
            reader.serve(0.1)

    def open_for(self, who: Asker) -> Store:
        self.askers.append(who)
        if self.error:
            raise self.error
        return LocalStore.read_only(self.database)

    def write(self, *points: Point) -> None:
        with closing(LocalStore(self.database, 1e6)) as store:
            for database in Database:
                lines = "".join(
                    f"{encode(point)}\n"
                    for point in points
                    if (point.measurement == "job") == (database is Database.JOBS)
                )
                store.write(database, lines.encode())

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(20)
        connection.connect(str(self.path))
        return connection

    def say(self, line: bytes) -> bytes:
        """Say a line and return the answer, empty if the reader hangs up."""
        with self.connect() as connection:
            try:
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
                return connection.makefile("rb").readline()
            except ConnectionError:
                return b""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.ending.set()
    running.thread.join(20)  # it ends by itself, all connections being closed
    assert not running.thread.is_alive()
    running.listener.close()


def tags(**more: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"cluster": "c", "host": "n1", **more}.items()))


def test_answers_come_through_as_they_are(reader: Running) -> None:
    name = 'zoë, "the" \\one\x7f<b>'
    reader.write(
        Point("job", tags(jobid="7"), {"user": name, "nodes_total": 2.0}, 5),
        Point("cpu", tags(), {"utilization_ratio": 0.25}, 2),
        Point("cpu", tags(), {"utilization_ratio": 1 / 3}, 6),
    )
    direct = LocalStore.read_only(reader.database)
    with closing(direct), closing(ReaderStore(str(reader.path))) as store:
        assert store.rows(JOB) == direct.rows(JOB) != []
        assert store.windows(CPU) == direct.windows(CPU) != []
        assert store.rows(Select("job", {"jobid": "8"})) == []
    assert [who.uid for who in reader.askers] == [os.geteuid()]


def test_a_store_s_failure_is_told_as_what_it_is(reader: Running) -> None:
    with closing(ReaderStore(str(reader.path))) as store:
        with pytest.raises(StoreUnreachable, match=r"rooflight\.db: unable to open"):
            store.rows(JOB)
        reader.database.write_bytes(b"no database at all, but long enough to be looked at" * 9)
        with pytest.raises(StoreRefused, match="not a database"):
            store.rows(JOB)
        with pytest.raises(StoreRefused, match="reading only"):
            store.write(Database.JOBS, b"")


def test_a_secret_that_the_reader_cannot_read_stays_its_own_affair(reader: Running) -> None:
    reader.error = SettingsError("/etc/secret: its mode 0644 opens a secret to others")
    with (
        closing(ReaderStore(str(reader.path))) as store,
        pytest.raises(StoreUnreachable, match=r"journalctl -u rooflight-reader$"),
    ):
        store.rows(JOB)


@pytest.mark.parametrize(
    "asked",
    [
        '{"measurement":"no such","where":{}}',
        '{"measurement":"job","where":{"user\\" OR 1=1 --":"x"}}',
        '{"measurement":"job","where":{"jobid":7}}',
        '{"measurement":"job","where":{},"newest":"all"}',
        '{"where":{}}',
        "7",
    ],
)
def test_a_question_that_is_none_is_refused(reader: Running, asked: str) -> None:
    line = f'{{"type":"rows","asked":{asked},"protocol":"{PROTOCOL}"}}\n'
    assert reader.say(line.encode()).startswith(b'{"type":"failure","kind":"refused"')


@pytest.mark.parametrize(
    "changes",
    [
        {"field": 'x" FROM cpu --'},
        {"by": ("host", 'x", (SELECT 1) --')},
        {"where": {'x" = 1 OR "host': ["n1"]}},
        {"every_ms": 0},
        {"every_ms": -1},
        {"every_ms": 1, "until_ms": 10**9},
        {"since_ms": 9, "until_ms": 0},
        {"measurement": "cpus"},
    ],
)
def test_windows_name_nothing_but_what_the_catalogue_knows(changes: dict[str, object]) -> None:
    good = msgspec.to_builtins(CPU)
    line = msgspec.json.encode({"type": "windows", "asked": {**good, **changes}})
    assert decode(msgspec.json.encode({"type": "windows", "asked": good})).asked == CPU
    with pytest.raises(ValueError, match=r"such|windows"):
        decode(line)


@pytest.mark.parametrize("line", [b"\n", b"GET / HTTP/1.1\n", b"\xff\xfe\n", b"{" * 1000 + b"\n"])
def test_what_is_no_question_is_refused(reader: Running, line: bytes) -> None:
    answer = msgspec.json.decode(reader.say(line), type=Failure)
    assert answer.kind == "refused"
    assert answer.words.startswith("the reader did not understand")


def test_another_version_is_told_which_one_is_spoken_here() -> None:
    line = msgspec.json.encode(RowsQuestion(JOB, "rooflight.reader/2"))
    with pytest.raises(ValueError, match=r"speaks rooflight\.reader/1, not rooflight\.reader/2"):
        decode(line)


def test_a_line_without_end_is_hung_up_on(reader: Running) -> None:
    assert reader.say(b'"' + b"x" * 1_000_000 + b"\n") == b""
    assert reader.say(b"") == b""
    assert reader.say(b'{"type":"rows"') == b""


def test_one_user_cannot_take_all_connections(reader: Running) -> None:
    held = [reader.connect() for _ in range(MOST_OF_ONE_USER)]
    for connection in held:  # an answer: the reader has counted it
        connection.sendall(b"\n")
        assert connection.recv(1000).endswith(b"}\n")
    with (
        closing(ReaderStore(str(reader.path))) as store,
        pytest.raises(StoreUnreachable, match="too many ask"),
    ):
        store.rows(JOB)
    for connection in held:
        connection.close()


def test_without_a_reader_the_socket_is_named(tmp_path: Path) -> None:
    path = tmp_path / "away.sock"
    config = Config(inspect=InspectSection(reader=str(path)))
    with closing(open_for_asker(config)) as store:
        with pytest.raises(StoreUnreachable, match=f"{path}: No such file .*reader.socket started"):
            store.rows(JOB)
        own_socket(config).close()  # a socket without anybody who listens
        with pytest.raises(StoreUnreachable, match=f"{path}: Connection refused"):
            store.windows(CPU)


def test_a_reader_that_hangs_up_is_one_that_is_away(tmp_path: Path) -> None:
    path = tmp_path / "short.sock"
    listener = own_socket(Config(inspect=InspectSection(reader=str(path))))
    hang_up = threading.Thread(target=lambda: listener.accept()[0].close())
    hang_up.start()
    with (
        closing(ReaderStore(str(path))) as store,
        closing(listener),
        pytest.raises(StoreUnreachable, match=str(path)),
    ):
        store.rows(JOB)
    hang_up.join()


def test_a_secret_that_a_user_cannot_read_fails_when_it_is_needed(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("x")
    secret.chmod(0o644)
    config = msgspec.convert(
        {"store": "influx", "influx": {"token_file": str(secret)}}, type=Config
    )
    with (
        closing(open_for_asker(config)) as store,
        pytest.raises(SettingsError, match="chmod 0600"),
    ):
        store.rows(JOB)


def test_the_peer_is_who_the_kernel_says() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert peer(ours) == os.geteuid()


def test_a_socket_that_systemd_passed_to_another_process_is_not_ours() -> None:
    assert passed_socket({}) is None
    assert passed_socket({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None
    assert passed_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) is None


def test_a_reader_ends_in_time_even_if_it_is_asked_all_the_time(reader: Running) -> None:
    reader.ending.set()
    reader.thread.join(20)
    limited = threading.Thread(
        target=Reader(reader.listener, reader.open_for).serve, args=(60, 0.5)
    )
    with reader.connect():
        limited.start()
        limited.join(20)
        assert not limited.is_alive()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"inspect\.reader is not set"),
        ('[inspect]\nstaff_group = "no-such-group"', r"no group 'no-such-group' here"),
        ('[inspect]\nreader = "no/such/folder.sock"', r"No such file or directory"),
        ("[inspekt]\n", r"unknown key 'inspekt'"),
    ],
)
def test_a_reader_that_is_wrongly_set_up_says_so(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "rooflight.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        run_reader(file, 1.0)

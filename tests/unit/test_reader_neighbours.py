"""The reader among users who take more than their share, and what nobody expects as a question."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Config, InspectSection
from agent.privacy import Asker
from agent.reader import AT_ONCE, MOST_OF_ONE_USER, MOST_ROWS, Reader, own_socket
from agent.stores.local import LocalStore
from agent.stores.reader import PROTOCOL, Failure, ReaderStore, RowsQuestion, decode
from agent.stores.store import Row, Select, Store, StoreRefused, StoreUnreachable, Windows
from probes.catalogue import Database

JOB = Select("job", {"cluster": "c"})
NEIGHBOUR = 60_001
"""A user id that nobody has; those after it are other neighbours."""

PYTHON = shutil.which("python3", path="/usr/bin:/bin")
CLIENT = """
import socket, sys, time
path, line, connections, mode = sys.argv[1:]
opened = []
for _ in range(int(connections)):
    opened.append(socket.socket(socket.AF_UNIX))
    opened[-1].connect(path)
    opened[-1].sendall(line.encode() + (b"" if mode == "half" else b"\\n"))
print("asked", flush=True)
while True:
    for each in opened:
        if mode == "takes":
            each.recv(1 << 20)
    time.sleep(0.01)
"""
"""Run by another user, who may not read this project: asks, and takes the answers or does not."""

neighbours = pytest.mark.skipif(
    os.geteuid() != 0 or PYTHON is None,
    reason="several users need root, and Python in /usr",
)


class Slow:
    """A store that answers neighbours only when it is let, and others at once; it counts."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked: list[int] = []
        self.at_once: dict[int, int] = {}
        self.most: dict[int, int] = {}
        self.guard = threading.Lock()
        self.rows: Sequence[Row] = [{"time_ms": 1.0, "jobid": "7"}]

    def of(self, who: Asker) -> Store:
        return _SlowFor(self, who.uid)


class _SlowFor:
    def __init__(self, slow: Slow, uid: int) -> None:
        self._slow, self._uid = slow, uid

    def write(self, database: Database, lines: bytes) -> None:
        raise StoreRefused("for reading", keep=True)

    def rows(self, select: Select) -> Sequence[Row]:
        slow, uid = self._slow, self._uid
        with slow.guard:
            slow.asked.append(uid)
            slow.at_once[uid] = slow.at_once.get(uid, 0) + 1
            slow.most[uid] = max(slow.most.get(uid, 0), slow.at_once[uid])
        if uid >= NEIGHBOUR:
            slow.let.wait(60)
        with slow.guard:
            slow.at_once[uid] -= 1
        return slow.rows

    def windows(self, asked: Windows) -> Sequence[Row]:
        return self.rows(JOB)

    def close(self) -> None:
        pass


class Site:
    """A reader on a socket that every user can reach, and its neighbours."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "reader.sock"
        self.slow = Slow()
        self._listener = own_socket(Config(inspect=InspectSection(reader=str(self.path))))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._clients: list[subprocess.Popen[bytes]] = []

    def _serve(self) -> None:
        reader = Reader(self._listener, self.slow.of)
        while not self._ending.is_set():
            reader.serve(0.1)

    def neighbour(self, uid: int, mode: str, line: bytes = b"", connections: int = 1) -> None:
        """Start a neighbour and wait until it has asked."""
        assert PYTHON
        command = [PYTHON, "-c", CLIENT, str(self.path)]
        asked = line or msgspec.json.encode(RowsQuestion(JOB))
        client = subprocess.Popen(
            [*command, asked.decode(), str(connections), mode],
            user=uid,
            group=uid,
            extra_groups=[],
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self._clients.append(client)
        assert client.stdout
        assert client.stdout.readline() == b"asked\n"

    def close(self) -> None:
        self.slow.let.set()
        for client in self._clients:
            client.kill()
            client.communicate()
        self._ending.set()
        self._thread.join(60)
        self._listener.close()


@pytest.fixture
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="rooflight-"))
    folder.chmod(0o755)
    site = Site(folder)
    yield site
    site.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A reader that does not serve: it is given questions by hand."""
    with socket.socket() as listener:
        yield Reader(listener, lambda who: _SlowFor(Slow(), who.uid))


def wait_until_asked(site: Site, count: int) -> None:
    for _ in range(1000):
        if len(site.slow.asked) >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"asked {site.slow.asked}")


@neighbours
@pytest.mark.timeout(60)
def test_all_connections_of_one_user_have_the_share_of_one(site: Site) -> None:
    site.neighbour(NEIGHBOUR, "takes", connections=MOST_OF_ONE_USER)
    wait_until_asked(site, 1)
    with closing(ReaderStore(str(site.path))) as store:
        assert store.rows(JOB) == site.slow.rows  # none of the neighbour's is answered yet
    assert site.slow.asked == [NEIGHBOUR, 0]
    site.slow.let.set()
    wait_until_asked(site, MOST_OF_ONE_USER + 1)
    assert site.slow.most == {NEIGHBOUR: 1, 0: 1}


@neighbours
@pytest.mark.timeout(60)
def test_users_who_take_no_answers_hold_up_themselves(site: Site) -> None:
    site.slow.let.set()
    site.slow.rows = [{"time_ms": 1.0, "name": "x" * 1000}] * 5000  # no socket holds so much
    for number in range(AT_ONCE + 1):
        site.neighbour(NEIGHBOUR + number, "deaf", connections=MOST_OF_ONE_USER)
    wait_until_asked(site, AT_ONCE + 1)
    with closing(ReaderStore(str(site.path))) as store:
        assert len(store.rows(JOB)) == 5000
    assert sorted(site.slow.asked) == [0, *range(NEIGHBOUR, NEIGHBOUR + AT_ONCE + 1)]


@neighbours
@pytest.mark.timeout(60)
def test_users_who_ask_by_halves_hold_up_nobody(site: Site) -> None:
    for number in range(AT_ONCE + 1):
        site.neighbour(NEIGHBOUR + number, "half", connections=MOST_OF_ONE_USER)
    with closing(ReaderStore(str(site.path))) as store:
        assert store.rows(JOB) == site.slow.rows
    assert site.slow.asked == [0]


def test_an_answer_in_pieces_is_an_answer(site: Site) -> None:
    rows: list[Row] = [{"time_ms": float(each), "jobid": str(each)} for each in range(1234)]
    with closing(ReaderStore(str(site.path))) as store:
        for count in (0, 1, 99, 100, 101, 1234):
            site.slow.rows = rows[:count]
            assert store.rows(JOB) == rows[:count]


def test_nobody_asks_for_more_rows_than_an_answer_holds(reader: Reader, site: Site) -> None:
    asked: list[Select] = []

    class Noting(_SlowFor):
        def rows(self, select: Select) -> Sequence[Row]:
            asked.append(select)
            return []

    for newest in (None, 1, 10**12):
        line = msgspec.json.encode(RowsQuestion(Select("job", {}, newest=newest)))
        reader._answer(Noting(site.slow, 0), line)
    assert [each.newest for each in asked] == [MOST_ROWS + 1, 1, MOST_ROWS + 1]


@pytest.mark.parametrize("unread", [False, True])
def test_a_reader_that_said_no_and_hung_up_before_it_was_asked_is_heard(unread: bool) -> None:
    """Whether it left something unread or not: the kernel then says reset, or broken pipe."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    store = ReaderStore("/nowhere")
    store._connection, store._lines = ours, ours.makefile("rb")
    if unread:
        ours.sendall(b"x")
    theirs.sendall(msgspec.json.encode(Failure("unreachable", "its journal says why")) + b"\n")
    theirs.close()
    with closing(store), pytest.raises(StoreUnreachable, match="its journal says why"):
        store.rows(JOB)


asked = st.fixed_dictionaries(
    {"measurement": st.sampled_from(["job", "cpu", "gpu", "x"]) | st.text()},
    optional={
        "where": st.dictionaries(
            st.sampled_from(["cluster", "host", "jobid", "gpu", "'"]),
            st.text() | st.lists(st.text(), max_size=3),
        ),
        "since_ms": st.integers() | st.floats() | st.none(),
        "until_ms": st.integers() | st.none(),
        "newest": st.integers() | st.none(),
        "field": st.sampled_from(["utilization_ratio", "user", "x"]),
        "by": st.lists(st.sampled_from(["host", "gpu", "x"])),
        "every_ms": st.integers(),
        "text": st.text(),
    },
)
lines = st.binary() | st.builds(
    lambda kind, asked: msgspec.json.encode({"type": kind, "asked": asked, "protocol": PROTOCOL}),
    st.sampled_from(["rows", "windows", "x"]),
    asked,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    path = tmp_path_factory.mktemp("fuzz") / "rooflight.db"
    with closing(LocalStore(path, 1e6)) as store:
        store.write(Database.JOBS, b'job,cluster=c,host=n,jobid=7 user="u" 5\n')
        store.write(Database.METRICS, b"cpu,cluster=c,host=n utilization_ratio=0.5 5\n")
    return LocalStore.read_only(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(line=lines)
def test_whatever_is_asked_is_answered(reader: Reader, database: LocalStore, line: bytes) -> None:
    answer = reader._answer(database, line)
    assert answer.endswith(b"}\n")
    assert answer.count(b"\n") == 1


@pytest.mark.parametrize(
    "asked",
    [
        b'{"type":"rows","x":' + b"[" * 100_000,
        b'{"type":"rows","asked":{"measurement":"job","where":{},"since_ms":%d}}' % 10**26,
        b'{"type":"rows","asked":{"measurement":"job","where":{},"newest":-5}}',
        b'{"type":"rows","asked":{"measurement":"job","where":{},"newest":0}}',
    ],
)
def test_questions_that_no_database_counts_are_none(asked: bytes) -> None:
    with pytest.raises(ValueError, match=r"such|lists|rows"):
        decode(asked)

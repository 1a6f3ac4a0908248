"""The InfluxDB store against a small server that answers as the documents of 2.x and 3.x say."""

import base64
import gzip
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from agent.check import _store_lines
from agent.config import Config
from agent.stores.connection import Reply
from agent.stores.influx import InfluxSettings, InfluxStore
from agent.stores.influxql import influxql
from agent.stores.rejection import named_lines
from agent.stores.settings import SettingsError
from agent.stores.setup import parse_hours, setup_influx, setup_store
from agent.stores.store import Select, StoreRefused, StoreUnreachable
from probes.catalogue import Database

METRICS = Database.METRICS
ORGANIZATION = "0123456789abcdef"
Answer = tuple[int, dict[str, str], object]


Dialect = Callable[[list[bytes], list[int]], tuple[bool, Answer]]
"""Lines of a batch and the places of the bad ones -> whether it stores the rest, and its words."""


def first_unparsed(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """2.x, lines that are none: nothing of the batch is stored."""
    message = f"unable to parse '{lines[bad[0]].decode()}': missing fields"
    return False, (400, {}, {"code": "invalid", "message": message})


def all_unparsed(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """2.x, all lines named (models.ParsePointsWithPrecision joins them)."""
    words = [f"unable to parse '{lines[place].decode()}': missing fields" for place in bad]
    return False, (400, {}, {"code": "invalid", "message": "\n".join(words)})


def conflict(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """2.x, a field of another type."""
    message = (
        "failure writing points to database: partial write: field type conflict: input field "
        '"v" on measurement "bad" is type float, already exists as type string '
        f"dropped={len(bad)}"
    )
    return True, (422, {}, {"code": "unprocessable entity", "message": message})


def too_old(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """2.x, points from before the time that the bucket keeps."""
    message = (
        "failure writing points to database: partial write: points beyond retention policy "
        f"dropped={len(bad)}"
    )
    return True, (422, {}, {"code": "unprocessable entity", "message": message})


def numbered(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """3.x: each bad line with its number and its reason."""
    data = [
        {
            "original_line": lines[place].decode()[:20],
            "line_number": place + 1,
            "error_message": "invalid column type for column 'v'",
        }
        for place in bad
    ]
    return True, (400, {}, {"error": "partial write of line protocol occurred", "data": data})


def unnamed(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """3.x on /api/v2/write: the reason, and no line."""
    told = {"code": "invalid", "message": "partial write of line protocol occurred"}
    return True, (400, {}, told)


def nothing_said(lines: list[bytes], bad: list[int]) -> tuple[bool, Answer]:
    """A whole batch refused, and no line named."""
    return False, (400, {}, {"code": "invalid", "message": "bad request"})


class Influx2(ThreadingHTTPServer):
    """Buckets, InfluxQL mappings and writes of InfluxDB 2.x; strict in what it takes.

    `answers` are given before anything else; of written lines, those of `bad` are refused in the
    words of `dialect`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: list[Answer] = []
        self.calls: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        self.buckets: dict[str, dict[str, Any]] = {}
        self.mappings: list[dict[str, Any]] = []
        self.lines: list[bytes] = []
        self.bad: set[bytes] = set()
        self.dialect: Dialect = first_unparsed

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        handler = {
            ("POST", "/api/v2/write"): self._write_v2,
            ("POST", "/write"): self._write_v1,
            ("GET", "/api/v2/buckets"): self._find_bucket,
            ("POST", "/api/v2/buckets"): self._make_bucket,
            ("GET", "/api/v2/orgs"): self._find_organization,
            ("GET", "/api/v2/dbrps"): self._find_mapping,
            ("POST", "/api/v2/dbrps"): self._make_mapping,
        }.get((method, path))
        if handler:
            return handler(query, body)
        if method == "PATCH" and path.startswith("/api/v2/buckets/"):
            return self._change_bucket(path.rsplit("/", 1)[1], body)
        return 404, {}, {"code": "not found", "message": "path not found"}

    def _write_v2(self, query: dict[str, str], body: bytes) -> Answer:
        assert query == {"org": "hpc", "bucket": query["bucket"], "precision": "ms"}
        if query["bucket"] not in self.buckets:
            message = f'bucket "{query["bucket"]}" not found'
            return 404, {}, {"code": "not found", "message": message}
        return self._take(gzip.decompress(body).splitlines())

    def _write_v1(self, query: dict[str, str], body: bytes) -> Answer:
        assert query == {"db": "rooflight", "precision": "ms"}
        return self._take(gzip.decompress(body).splitlines())

    def _take(self, lines: list[bytes]) -> Answer:
        bad = [place for place, line in enumerate(lines) if line in self.bad]
        stores_rest, answer = self.dialect(lines, bad) if bad else (True, (204, {}, None))
        if stores_rest:
            self.lines += [line for line in lines if line not in self.bad]
        return answer

    def _find_organization(self, query: dict[str, str], body: bytes) -> Answer:
        assert query == {"org": "hpc"}
        return 200, {}, {"orgs": [{"id": ORGANIZATION, "name": "hpc"}]}

    def _find_bucket(self, query: dict[str, str], body: bytes) -> Answer:
        assert set(query) == {"name", "org"}
        found = [each for each in self.buckets.values() if each["name"] == query["name"]]
        return 200, {}, {"buckets": found}

    def _make_bucket(self, query: dict[str, str], body: bytes) -> Answer:
        bucket = json.loads(body)
        assert set(bucket) - {"description", "rp"} == {"orgID", "name", "retentionRules"}
        assert bucket["orgID"] == ORGANIZATION
        if bucket["name"] in self.buckets:
            return 422, {}, {"code": "conflict", "message": "bucket already exists"}
        bucket["id"] = f"{len(self.buckets):016x}"
        self.buckets[bucket["name"]] = bucket
        return 201, {}, bucket

    def _change_bucket(self, identity: str, body: bytes) -> Answer:
        change = json.loads(body)
        (bucket,) = (each for each in self.buckets.values() if each["id"] == identity)
        bucket["retentionRules"] = change["retentionRules"]
        return 200, {}, bucket

    def _find_mapping(self, query: dict[str, str], body: bytes) -> Answer:
        assert query["orgID"] == ORGANIZATION
        found = [each for each in self.mappings if each["database"] == query["db"]]
        return 200, {}, {"content": found}

    def _make_mapping(self, query: dict[str, str], body: bytes) -> Answer:
        mapping = json.loads(body)
        assert set(mapping) == {"orgID", "bucketID", "database", "retention_policy", "default"}
        mapping["id"] = f"{len(self.mappings):016x}"
        self.mappings.append(mapping)
        return 201, {}, mapping


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Influx2

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.server.calls.append((self.command, address.path))
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        status, headers, told = self.server.answer(self.command, address.path, query, body)
        encoded = told if isinstance(told, bytes) else json.dumps(told).encode()
        encoded = encoded if told is not None else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PATCH = do_any

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Influx2]:
    with Influx2() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(server: Influx2, tmp_path: Path) -> InfluxSettings:
    token = tmp_path / "token"
    token.write_text("a-token\n")
    token.chmod(0o640)
    return InfluxSettings(
        url=server.url,
        api="v2",
        organization="hpc",
        token_file=str(token),
        retention_days=30,
        jobs_retention_days=0,
    )


@pytest.fixture
def store(settings: InfluxSettings) -> Iterator[InfluxStore]:
    setup_influx(settings)
    store = InfluxStore(settings)
    yield store
    store.close()


@pytest.fixture
def v1_store(server: Influx2) -> Iterator[InfluxStore]:
    store = InfluxStore(InfluxSettings(url=server.url))
    yield store
    store.close()


def test_setup_makes_buckets_and_their_influxql_names_once(
    server: Influx2, settings: InfluxSettings
) -> None:
    told = [
        "bucket rooflight: ready for writes and InfluxQL, points are kept for 30 days",
        "bucket rooflight_jobs: ready for writes and InfluxQL, points are kept for ever",
    ]
    config = Config(store="influx", influx=settings)
    assert setup_store(config) == told
    rules = {name: bucket["retentionRules"] for name, bucket in server.buckets.items()}
    assert rules == {
        "rooflight": [{"type": "expire", "everySeconds": 30 * 86_400}],
        "rooflight_jobs": [{"type": "expire", "everySeconds": 0}],
    }
    mapped = {each["database"]: each["bucketID"] for each in server.mappings}
    assert mapped == {name: bucket["id"] for name, bucket in server.buckets.items()}
    assert all(each["default"] and each["orgID"] == ORGANIZATION for each in server.mappings)
    assert set(server.authorizations) == {"Token a-token"}

    server.calls.clear()
    assert setup_store(config) == told
    assert {method for method, _ in server.calls} == {"GET"}


def test_setup_follows_a_changed_retention(server: Influx2, settings: InfluxSettings) -> None:
    setup_influx(settings)
    setup_influx(msgspec.structs.replace(settings, retention_days=7))
    assert server.buckets["rooflight"]["retentionRules"][0]["everySeconds"] == 7 * 86_400
    assert len(server.buckets) == len(server.mappings) == 2


def test_setup_makes_a_bucket_when_its_absence_is_a_404(
    server: Influx2, settings: InfluxSettings
) -> None:
    message = 'bucket "rooflight" not found'
    server.answers = [(404, {}, {"code": "not found", "message": message})]
    setup_influx(settings)
    assert set(server.buckets) == {"rooflight", "rooflight_jobs"}


def test_setup_tells_what_the_server_said(server: Influx2, settings: InfluxSettings) -> None:
    server.answers = [(401, {}, {"code": "unauthorized", "message": "unauthorized access"})]
    with pytest.raises(StoreRefused, match=r"unauthorized access.*token_file"):
        setup_influx(settings)
    gone = msgspec.structs.replace(settings, url="http://127.0.0.1:1")
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:1"):
        setup_influx(gone)


def some_lines(bad: set[int]) -> list[bytes]:
    return [
        b"%s,host=n v=%d.0 %d" % (b"bad" if number in bad else b"cpu", number, 1000 + number)
        for number in range(200)
    ]


@pytest.mark.parametrize(
    ("dialect", "requests"),
    [(all_unparsed, 2), (first_unparsed, 3), (conflict, 2), (numbered, 2), (unnamed, 50)],
)
def test_bad_lines_do_not_cost_their_neighbours(
    server: Influx2,
    store: InfluxStore,
    v1_store: InfluxStore,
    dialect: Dialect,
    requests: int,
) -> None:
    """Named lines are set aside; where none is named they are searched for."""
    lines = some_lines({77, 150})
    server.bad, server.dialect = {lines[77], lines[150]}, dialect
    for each in (store, v1_store):
        server.calls.clear()
        server.lines.clear()
        with pytest.raises(StoreRefused) as refused:
            each.write(METRICS, b"\n".join(lines) + b"\n")
        assert not refused.value.keep
        found = b"".join(rejected.lines for rejected in refused.value.rejected)
        assert set(found.splitlines()) == server.bad
        assert refused.value.points_lost == 2
        assert set(server.lines) == set(lines) - server.bad
        assert len(server.calls) <= requests


def test_points_that_are_too_old_are_the_oldest(server: Influx2, store: InfluxStore) -> None:
    lines = some_lines(set())[::-1]
    server.bad, server.dialect = set(lines[-3:]), too_old
    server.calls.clear()
    with pytest.raises(StoreRefused, match="beyond retention policy") as refused:
        store.write(METRICS, b"\n".join(lines) + b"\n")
    assert set(refused.value.rejected[0].lines.splitlines()) == server.bad
    assert len(server.calls) == 2


def test_the_words_of_3x_have_the_reason(server: Influx2, v1_store: InfluxStore) -> None:
    lines = some_lines({5})
    server.bad, server.dialect = {lines[5]}, numbered
    with pytest.raises(StoreRefused) as refused:
        v1_store.write(METRICS, b"\n".join(lines) + b"\n")
    (rejected,) = refused.value.rejected
    assert rejected.words == (
        "partial write of line protocol occurred: invalid column type for column 'v'"
    )
    assert rejected.lines == lines[5] + b"\n"


def test_many_bad_lines_do_not_cost_their_neighbours(server: Influx2, store: InfluxStore) -> None:
    """However many they are, and though none is named: there is no end before all are found."""
    bad = set(range(0, 200, 3))
    lines = some_lines(bad)
    server.bad, server.dialect = {lines[place] for place in bad}, nothing_said
    with pytest.raises(StoreRefused) as refused:
        store.write(METRICS, b"\n".join(lines) + b"\n")
    assert refused.value.points_lost == len(bad)
    assert len(server.calls) > 200
    assert set(server.lines) == set(lines) - server.bad


def test_the_search_for_bad_lines_ends(server: Influx2, store: InfluxStore) -> None:
    lines = [b"bad %d" % number for number in range(5000)]
    server.bad = set(lines)
    server.calls.clear()
    with pytest.raises(StoreRefused) as refused:
        store.write(METRICS, b"\n".join(lines) + b"\n")
    assert refused.value.points_lost == 5000
    assert len(server.calls) <= 220


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"error": "unable to parse 'no such line': missing fields"}, set()),
        ({"error": "partial write: unable to parse 'a': missing fields dropped=0"}, {0}),
        ({"error": "partial write: max-values-per-tag limit exceeded dropped=2"}, set()),
        ({"error": "points beyond retention policy dropped=1"}, set()),  # "a" has no time
        ({"error": "x", "data": [{"line_number": 9, "original_line": "a"}]}, set()),
        ({"error": "x", "data": [{"line_number": 3, "original_line": "a"}]}, set()),
        ({"error": "x", "data": [{"line_number": 1, "original_line": "a"}]}, {0}),
        (
            {"error": 'input field "v" on measurement "m" is type float, x dropped=2'},
            {2, 3},
        ),
        ({"error": 'input field "v" on measurement "m" is type string, x dropped=1'}, {4}),
        ({"error": 'input field "v" on measurement "m" is type string, x dropped=2'}, set()),
        ({"error": 'input field "v" on measurement "m" is type float, x dropped=3'}, set()),
    ],
)
def test_lines_are_named_only_without_doubt(body: dict[str, object], named: set[int]) -> None:
    lines = [b"a", b"mm v=1 1", b"m,t=1 v=1 1", b"m u=1,v=1.5e+3 1", b'm,v=1 v="a" 1']
    reply = Reply(400, json.dumps(body).encode())
    assert named_lines(reply, lines) == named


def test_a_limit_that_no_line_fits_is_for_the_admin_to_mend(
    server: Influx2, v1_store: InfluxStore
) -> None:
    server.answers = [(413, {}, {"error": "too large"})] * 20
    with pytest.raises(StoreRefused, match=r"413 for a single line.*max-body-size") as refused:
        v1_store.write(METRICS, b"\n".join(some_lines(set())) + b"\n")
    assert refused.value.keep
    assert len(server.calls) == 8  # 200, 100, 50 lines ...: not every line is tried


def test_all_pieces_of_what_was_too_large_are_sent(server: Influx2, store: InfluxStore) -> None:
    server.answers = [(413, {}, {"error": "too large"})] * 3
    store.write(METRICS, b"\n".join(some_lines(set())) + b"\n")
    assert server.lines == some_lines(set())


@pytest.mark.parametrize("status", [401, 403])
def test_a_new_token_is_read_without_a_restart(
    server: Influx2, settings: InfluxSettings, store: InfluxStore, status: int
) -> None:
    server.answers = [(status, {}, {"code": "unauthorized", "message": "unauthorized access"})]
    with pytest.raises(StoreRefused, match="unauthorized access") as refused:
        store.write(METRICS, b"cpu v=1.0 1\n")
    assert refused.value.keep
    token = Path(settings.token_file)
    token.unlink()
    with pytest.raises(StoreRefused, match=str(token)) as refused:
        store.write(METRICS, b"cpu v=1.0 1\n")
    assert refused.value.keep
    token.write_text("another\n")
    token.chmod(0o600)
    store.write(METRICS, b"cpu v=1.0 1\n")
    assert server.authorizations[-1] == "Token another"


def test_an_error_page_that_is_not_utf8_is_an_outage(server: Influx2, store: InfluxStore) -> None:
    server.answers = [(502, {}, "Fehler: Zur\u00fcckgewiesen".encode("latin-1"))]
    with pytest.raises(StoreUnreachable, match=r"502: Fehler: Zur.ckgewiesen"):
        store.write(METRICS, b"cpu v=1.0 1\n")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_tried_again_when_it_likes(
    server: Influx2, store: InfluxStore, v1_store: InfluxStore, status: int
) -> None:
    for each in (store, v1_store):
        server.answers = [(status, {"Retry-After": "17"}, {"message": "too much"})]
        with pytest.raises(StoreUnreachable, match="too much") as busy:
            each.write(METRICS, b"cpu v=1.0 1\n")
        assert busy.value.retry_after == 17


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2026 07:28:00 GMT", "-3", "nan", "1e9"])
def test_an_odd_retry_after_is_left_alone(
    server: Influx2, v1_store: InfluxStore, header: str
) -> None:
    server.answers = [(503, {"Retry-After": header}, None)]
    with pytest.raises(StoreUnreachable) as busy:
        v1_store.write(METRICS, b"cpu v=1.0 1\n")
    assert busy.value.retry_after == 0


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "token_file"), (403, "right"), (404, "store setup"), (302, "url")]
)
def test_what_an_admin_can_mend_says_how(
    server: Influx2, store: InfluxStore, v1_store: InfluxStore, status: int, remedy: str
) -> None:
    for each in (store, v1_store):
        server.answers = [(status, {}, {"code": "no", "message": "the server's words"})]
        with pytest.raises(StoreRefused, match=f"the server's words.*{remedy}") as refused:
            each.write(METRICS, b"cpu v=1.0 1\n")
        assert refused.value.keep


def test_a_server_that_is_not_there_is_unreachable() -> None:
    for api in ("v1", "v2"):
        store = InfluxStore(
            msgspec.convert({"url": "http://127.0.0.1:1", "api": api}, InfluxSettings)
        )
        with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:1"):
            store.write(METRICS, b"cpu v=1.0 1\n")
        with pytest.raises(StoreUnreachable):
            store.rows(Select("cpu", {}))
        store.close()


def test_reads_give_the_token_as_password(server: Influx2, store: InfluxStore) -> None:
    series = {"name": "cpu", "columns": ["time", "host", "user_seconds"], "values": [[2, "n", 1]]}
    server.answers = [(200, {}, {"results": [{"statement_id": 0, "series": [series]}]})]
    (row,) = store.rows(Select("cpu", {}))
    assert row == {"time_ms": 2.0, "host": "n", "user_seconds": 1.0}
    assert isinstance(row["user_seconds"], float)
    kind, secret = server.authorizations[-1].split()
    assert (kind, base64.b64decode(secret)) == ("Basic", b"rooflight:a-token")


@pytest.mark.parametrize(
    ("status", "told", "words"),
    [
        (200, {"results": [{"error": "database not found: x"}]}, "database not found"),
        (400, {"error": "error parsing query"}, "error parsing query"),
        (200, ["what"], "not an answer of InfluxDB"),
        (401, {"message": "unauthorized"}, "unauthorized"),
    ],
)
def test_a_query_that_fails_says_why(
    server: Influx2, v1_store: InfluxStore, status: int, told: object, words: str
) -> None:
    server.answers = [(status, {}, told)]
    with pytest.raises(StoreRefused, match=words):
        v1_store.rows(Select("cpu", {}))


def test_the_query_quotes_names_and_values() -> None:
    select = Select("cpu", {'ho"st': "n'1"}, since_ms=1, until_ms=2, newest=3)
    assert influxql(select) == (
        r"""SELECT * FROM "cpu" WHERE "ho\"st" = 'n\'1' AND time >= 1ms AND time <= 2ms"""
        " ORDER BY time DESC LIMIT 3"
    )
    assert influxql(Select("cpu", {})) == 'SELECT * FROM "cpu" ORDER BY time DESC'


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o777])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "password"
    secret.write_text("geheim")
    secret.chmod(mode)
    with pytest.raises(SettingsError, match=re.escape(f"chmod 0600 {secret}")):
        InfluxStore(InfluxSettings(username="u", password_file=str(secret)))


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_secret_for_owner_and_group_is_taken(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "password"
    secret.write_text(" geheim \n")
    secret.chmod(mode)
    settings = InfluxSettings(username="u", password_file=str(secret))
    assert settings.credentials() == "u:geheim"


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        InfluxSettings(token_file=str(tmp_path / "nowhere")).credentials()


def test_secrets_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFLIGHT_INFLUX_TOKEN", "t")
    monkeypatch.setenv("ROOFLIGHT_INFLUX_PASSWORD", "p")
    assert InfluxSettings().credentials() == "rooflight:t"
    monkeypatch.delenv("ROOFLIGHT_INFLUX_TOKEN")
    assert InfluxSettings(username="u").credentials() == "u:p"


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("http://influx.example.org:8086", True),
        ("http://10.0.0.1:8086", True),
        ("http://localhost.example.org", True),
        ("http://[2001:db8::1]:8086", True),
        ("HTTP://influx", True),
        ("https://influx.example.org", False),
        ("http://localhost:8086", False),
        ("http://LOCALHOST", False),
        ("http://127.1.2.3:8086/path", False),
        ("http://[::1]:8086", False),
    ],
)
def test_a_secret_that_goes_over_the_network_in_plain_text_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, url: str, exposed: bool
) -> None:
    settings = InfluxSettings(url=url, username="u")
    monkeypatch.setenv("ROOFLIGHT_INFLUX_PASSWORD", "p")
    assert ("can read the password: use https" in settings.exposed()) == exposed
    monkeypatch.setenv("ROOFLIGHT_INFLUX_TOKEN", "t")
    assert ("can read the token: use https" in settings.exposed()) == exposed
    monkeypatch.delenv("ROOFLIGHT_INFLUX_TOKEN")
    monkeypatch.delenv("ROOFLIGHT_INFLUX_PASSWORD")
    assert InfluxSettings(url=url).exposed() == ""


def test_the_agent_warns_of_it_once_and_check_says_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ROOFLIGHT_INFLUX_TOKEN", "t")
    settings = InfluxSettings(url="http://192.0.2.1:9", timeout_seconds=0.05)
    store = InfluxStore(settings)
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            store.write(METRICS, b"cpu v=1.0 1\n")
    (said,) = (record.getMessage() for record in caplog.records if "https" in record.getMessage())
    assert said == settings.exposed()
    *_, line = _store_lines(Config(store="influx", influx=settings))
    assert line.words == said


@pytest.mark.parametrize(
    "wrong", [{"url": "127.0.0.1:8086"}, {"api": "v3"}, {"databse": "x"}, {"timeout_seconds": 0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, InfluxSettings)


@pytest.mark.parametrize(("text", "hours"), [("720h0m0s", 720), ("0s", 0), ("1h0m0s", 1)])
def test_durations_of_1x(text: str, hours: int) -> None:
    assert parse_hours(text) == hours


def test_setup_makes_the_local_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "rooflight.db"
    config = msgspec.convert({"local": {"path": str(path)}}, Config)
    assert setup_store(config) == [f"{path}: ready, measurements are kept for 14 days"]
    assert path.exists()


def test_importing_the_store_loads_no_http_client() -> None:
    program = (
        "import sys, agent.stores.influx; print(*{'urllib3', 'influxdb_client'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert told.stdout == b"\n"

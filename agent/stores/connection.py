"""The way to an InfluxDB server: requests out, replies in, and what a reply means.

Source: InfluxData, "InfluxDB 1.x HTTP API", "InfluxDB v2 API", "InfluxDB 3 HTTP API".
"""

import base64
import gzip
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

import msgspec

from agent.printable import printable
from agent.stores.influxql import Answer
from agent.stores.settings import InfluxSettings
from agent.stores.store import StoreRefused, StoreUnreachable

if TYPE_CHECKING:
    from influxdb_client import InfluxDBClient
    from influxdb_client.client.exceptions import InfluxDBError
    from urllib3 import BaseHTTPResponse

# Imported where they are used: urllib3 costs 14 MiB of memory, which a command line with another
# store need not pay, and influxdb_client costs 30 MiB. An agent that may have 45 MiB in all posts
# v1 writes and reads through urllib3, and imports influxdb_client for v2 writes and setup only.

DENIED = (401, 403)
TOO_LARGE = 413
LONGEST_WORDS = 500

LONGEST_REPLY = 1 << 16
"""Bytes of an answer to a write; what comes after them is not read."""

LARGEST_ANSWER = 64 << 20
"""Bytes of an answer to a query."""

PATIENCE = 3
"""How many times as long as a write a query may take: its answer may be large."""

_NO_CONTENT, _PERHAPS_DELIVERED = 204, (200, 201)  # 3.x has used all three
_BUSY = (0, 408, 429, 500, 502, 503, 504)  # 0: influxdb_client could not agree on TLS
_BAD_DATA = (400, TOO_LARGE, 422)
_REMEDIES = {
    401: "check influx.username and its password_file, or the token_file",
    403: "give the user or token the right to read and write both databases",
    404: "run 'rooflight store setup', or check influx.api and the databases' names",
}


class Reply(NamedTuple):
    """What the server answered.

    Attributes:
        status: HTTP status.
        body: as it came.
        retry_after: seconds it asked to be left alone, or 0.
        url: of the server.
        kind: what it says that the body is, such as application/json.
        goal: where it sends us instead.

    """

    status: int
    body: bytes
    retry_after: float = 0.0
    url: str = ""
    kind: str = ""
    goal: str = ""

    def head(self) -> str:
        """Return who answered what."""
        return f"{self.url}: HTTP {self.status}" if self.url else f"HTTP {self.status}"

    def told(self) -> str:
        """Return who answered what, and in which words."""
        return ": ".join(filter(None, (self.head(), self.words())))

    def words(self) -> str:
        """Return the server's message, not too long, with 3.x's reason for the first line."""
        reasons = [each.error_message for each in self.refused_lines()]
        words = ": ".join([self.message(), *reasons[:1]])
        # a proxy may have answered with a page, and anybody with what commands a terminal
        return printable(" ".join(words.split()))[:LONGEST_WORDS]

    def delivered(self) -> bool:
        """Tell whether a database says that it has all lines.

        Raises:
            StoreRefused: this is no answer of InfluxDB's to a write (keep=True).

        """
        if self.status not in _PERHAPS_DELIVERED:
            return self.status == _NO_CONTENT
        if not self.body.strip() and "html" not in self.kind:
            return True
        try:
            told = msgspec.json.decode(self.body, type=dict[str, object])
        except msgspec.DecodeError as error:
            words = f"{self.head()} with {self.kind or 'words of another kind'}, which is not"
            raise StoreRefused(f"{words} InfluxDB: check influx.url", keep=True) from error
        if "error" in told or "code" in told:
            raise StoreRefused(f"{self.head()}, and yet an error: {self.words()}", keep=True)
        return True

    def message(self) -> str:
        """Return the server's message: `error` in 1.x, `message` in 2.x, either in 3.x."""
        try:
            told = msgspec.json.decode(self.body, type=dict[str, object])
        except msgspec.DecodeError:
            return self.body.decode(errors="replace").strip()
        return str(told.get("error") or told.get("message") or told)

    def refused_lines(self) -> "list[RefusedLine]":
        """Return the lines that a reply of 3.x names; nothing for other versions."""
        try:
            return msgspec.json.decode(self.body, type=_PartialWrite).data
        except msgspec.DecodeError:
            return []


class RefusedLine(msgspec.Struct):
    """A line that 3.x did not take."""

    line_number: int
    original_line: str = ""
    error_message: str = ""


class _PartialWrite(msgspec.Struct):
    data: list[RefusedLine]


class InfluxConnection:
    """One server, as the settings' user; keeps its connection open.

    Raises:
        SettingsError: see `InfluxSettings.credentials`.

    """

    def __init__(self, settings: InfluxSettings) -> None:
        import urllib3

        from agent.stores.exchange import bounded

        self._settings = settings
        self._url = settings.url.rstrip("/")
        self._headers = dict[str, str]()
        if credentials := settings.credentials():
            encoded = base64.b64encode(credentials.encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"
        pool = urllib3.PoolManager(
            num_pools=1,
            retries=False,
            timeout=settings.timeout_seconds,
            ca_certs=settings.ca_file or None,
        )
        self._pool = bounded(pool)
        self._client: InfluxDBClient | None = None

    def write(self, database: str, lines: bytes) -> Reply:
        """Send lines to a database (2.x: bucket), times in milliseconds.

        Raises:
            StoreUnreachable: there is no answer.
            SettingsError: see `open_client`.

        """
        if self._settings.api == "v2":
            self._client = self._client or open_client(self._settings)
        with bounds(self._settings.timeout_seconds, LONGEST_REPLY, self._url):
            if self._client:
                return _post_v2(self._client, self._settings, database, lines)
            return self._send("POST", "/write", {"db": database, "precision": "ms"}, lines)

    def request(self, method: str, path: str, parameters: Mapping[str, str]) -> Reply:
        """Send a query and return the answer.

        Raises:
            StoreUnreachable: there is no answer.
            StoreRefused: it is too large.

        """
        with bounds(PATIENCE * self._settings.timeout_seconds, LARGEST_ANSWER, self._url):
            reply = self._send(method, path, parameters)
        if len(reply.body) > LARGEST_ANSWER:
            words = f"{reply.head()} with more than {LARGEST_ANSWER >> 20} MiB: ask for less"
            raise StoreRefused(words, keep=True)
        return reply

    def _send(
        self, method: str, path: str, parameters: Mapping[str, str], lines: bytes | None = None
    ) -> Reply:
        """Send a request, with lines as its gzipped body, and return the answer.

        Raises:
            HTTPError: there is no answer.

        """
        headers, body = self._headers, None
        if lines is not None:
            # level 1 is a third of the time of the default and 10 % larger
            headers, body = {**headers, "Content-Encoding": "gzip"}, gzip.compress(lines, 1)
        target = f"{self._url}{path}?{urlencode(parameters)}"
        # a redirection goes to somebody whom our credentials do not concern
        answer = self._pool.request(method, target, body=body, headers=headers, redirect=False)
        return read_reply(answer, self._url)

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()
        if self._client:
            self._client.close()


def open_client(settings: InfluxSettings) -> "InfluxDBClient":
    """Return influxdb_client's client for these settings.

    Raises:
        SettingsError: the token file cannot be read, or others may read it.

    """
    from influxdb_client import InfluxDBClient

    from agent.stores.exchange import bounded

    client = InfluxDBClient(
        settings.url,
        settings.token() or None,
        timeout=int(settings.timeout_seconds * 1000),
        enable_gzip=True,
        org=settings.organization or "-",  # 3.x ignores it, but the client wants one
        ssl_ca_cert=settings.ca_file or None,
        retries=False,
    )
    bounded(client.api_client.rest_client.pool_manager)
    return client


def _post_v2(
    client: "InfluxDBClient", settings: InfluxSettings, bucket: str, lines: bytes
) -> Reply:
    from influxdb_client.rest import ApiException

    query = [("org", settings.organization or "-"), ("bucket", bucket), ("precision", "ms")]
    headers = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json"}
    try:
        # the client's WriteApi has threads, an endless queue and drops data after three minutes;
        # its transport has none of them
        answer = client.api_client.call_api(
            *("/api/v2/write", "POST", {}, query, headers),
            body=lines,
            urlopen_kw={"redirect": False},
            _return_http_data_only=True,
            _preload_content=False,  # it would want UTF-8 of every proxy's error page
        )
    except ApiException as error:
        if error.response is None:
            return reply_of(error)
        answer = error.response
    answer.release_conn()
    return read_reply(answer, settings.url)


@contextmanager
def bounds(seconds: float, most_bytes: int, url: str) -> Iterator[None]:
    """Bound what is asked meanwhile, and say of its failures who did not answer, and why.

    Raises:
        StoreUnreachable: there is no whole answer, or none in time.

    """
    from urllib3.exceptions import HTTPError

    from agent.stores.exchange import Exchange

    with Exchange(seconds, most_bytes) as exchange:
        try:
            yield
        except HTTPError as error:
            words = f"no whole answer in {seconds:g} s" if exchange.late else reason(error)
            raise StoreUnreachable(f"{url}: {printable(words)}") from error


def read_reply(answer: "BaseHTTPResponse", url: str) -> Reply:
    """Return what came."""
    headers = answer.headers
    return Reply(
        answer.status,
        answer.data,
        parse_seconds(headers.get("Retry-After")),
        url,
        printable(headers.get("Content-Type", "").partition(";")[0].strip()[:40]),
        printable(headers.get("Location", "")[:200]),
    )


def reply_of(error: "InfluxDBError") -> Reply:
    """Return what the server answered when influxdb_client raised an error."""
    answer = error.response
    if answer is None:  # it could not agree on TLS, or found no such organization
        return Reply(0, str(error.message or error).encode())
    retry_after = parse_seconds(answer.getheader("Retry-After"))
    return Reply(answer.status, str(answer.data).encode(), retry_after)


_BARE = re.compile(r"^\w+\(['\"]?|['\"]?,?\)$")
"""What surrounds the words of an exception: its name, parentheses and quotes."""


def reason(error: Exception) -> str:
    """Return urllib3's words without its objects, whose addresses differ each time."""
    if error.args and isinstance(error.args[-1], Exception):  # ("Connection broken: ...", why)
        why = error.args[-1]
        return f"the answer broke off: {getattr(why, 'strerror', '') or _BARE.sub('', repr(why))}"
    return re.sub(r"^(<[^>]*>|\w+\([^)]*\)): ", "", str(error))


def parse_seconds(text: str | None) -> float:
    """Return the seconds of a Retry-After header; 0 if there is none or it is a date."""
    return float(text) if text and re.fullmatch(r"\d{1,9}", text) else 0.0


def refuse_unless_bad_data(reply: Reply) -> None:
    """Raise what the reply means, unless it says that the lines themselves are bad.

    Raises:
        StoreUnreachable: the server is busy.
        StoreRefused: an admin must act (keep=True).

    """
    if reply.status in _BUSY or reply.status > 504:
        raise StoreUnreachable(reply.told(), reply.retry_after)
    if 300 <= reply.status < 400:
        words = f"{reply.told()} (it points to {reply.goal or 'nowhere'})"
        raise StoreRefused(f"{words}, which is not followed: check influx.url", keep=True)
    if reply.status not in _BAD_DATA:
        remedy = _REMEDIES.get(reply.status, "check influx.url")
        raise StoreRefused(f"{reply.told()}; {remedy}", keep=True)


def read_answer(reply: Reply) -> Answer:
    """Return the answer to a query.

    Raises:
        StoreUnreachable: the server is busy.
        StoreRefused: the query failed, or this is no InfluxDB.

    """
    if reply.status != 200:
        refuse_unless_bad_data(reply)
    try:
        answer = msgspec.json.decode(reply.body, type=Answer)
    except msgspec.DecodeError as error:
        words = f"{reply.head()} with {reply.kind or 'no kind'}, not an answer of InfluxDB"
        raise StoreRefused(f"{words}: check influx.url: {error}", keep=True) from error
    complaint = answer.complaint()
    if complaint or reply.status != 200:
        raise StoreRefused(printable(complaint) or reply.words(), keep=True)
    return answer

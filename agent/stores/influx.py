"""InfluxDB 1.x, 2.x and 3.x as a store: line protocol in, InfluxQL out.

Writes go to `/write` (api = "v1": every version, but 2.x needs DBRP mappings) or to
`/api/v2/write` (api = "v2": 1.8 and later). Reads go to `/query`, which all versions serve.
Source: InfluxData, "InfluxDB 1.x HTTP API", "InfluxDB v2 API", "InfluxQL reference".
"""

import logging
from collections.abc import Sequence

from agent.stores.connection import (
    DENIED,
    TOO_LARGE,
    InfluxConnection,
    Reply,
    read_answer,
    refuse_unless_bad_data,
)
from agent.stores.influxql import Answer, influxql, parse_rows, parse_windows, windows_influxql
from agent.stores.rejection import sort_out
from agent.stores.settings import InfluxSettings, SettingsError
from agent.stores.store import Rejected, Row, Select, StoreRefused, Windows
from probes.catalogue import CATALOGUE, Database

__all__ = ["InfluxConnection", "InfluxSettings", "InfluxStore"]

log = logging.getLogger("rooflight.store")

MOST_REFUSALS = 200
"""Refusals in a row, of parts of one batch: then the server takes nothing, and all is given up."""

SHORT_LINE = 1024
"""Bytes of a line that no sound server calls too large: its limit is wrong, and not the line."""


class InfluxStore:
    """A server with one database for measurements and one for jobs.

    Raises:
        SettingsError: a secret is missing or open to others.

    """

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._names = settings.names()
        self._connection: InfluxConnection | None = InfluxConnection(settings)
        self._exposed = settings.exposed()

    def write(self, database: Database, lines: bytes) -> None:
        """Write lines; a batch that is too large, or has bad lines, is cut until those are found.

        Raises:
            StoreUnreachable: the server is away or overloaded.
            StoreRefused: keep=True for what an admin can mend; keep=False when the bad lines are
                named and all others written.

        """
        if self._exposed:  # an agent says it once; who only reads is not told every time
            log.warning("%s", self._exposed)
            self._exposed = ""
        rejected: list[Rejected] = []
        batches: list[Sequence[bytes]] = [lines.removesuffix(b"\n").split(b"\n")]
        refusals = 0
        while batches:
            batch = batches.pop()
            reply = self._post(self._names[database], joined(batch))
            if reply.delivered():
                refusals = 0
                continue
            refuse_unless_bad_data(reply)
            refuse_if_limit_is_wrong(reply, batch)
            refusals += reply.status != TOO_LARGE
            bad, again = sort_out(reply, batch, give_up=refusals >= MOST_REFUSALS)
            rejected += [Rejected(reply.words(), joined(bad))] if bad else []
            batches += reversed(again)
        if rejected:
            raise StoreRefused(rejected[0].words, keep=False, rejected=rejected)

    def rows(self, select: Select) -> Sequence[Row]:
        """Return the rows that match, oldest first.

        Raises:
            StoreUnreachable: the server does not answer.
            StoreRefused: the server said no.

        """
        return parse_rows(self._answer(select.measurement, influxql(select)))

    def windows(self, asked: Windows) -> Sequence[Row]:
        """Return a field over time, see `Windows`.

        Raises:
            StoreUnreachable: the server does not answer.
            StoreRefused: the server said no.

        """
        answers = [self._answer(asked.measurement, query) for query in windows_influxql(asked)]
        return parse_windows(answers, asked.every_ms)

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _answer(self, measurement: str, query: str) -> Answer:
        database = self._names[CATALOGUE[measurement].database]
        parameters = {"db": database, "epoch": "ms", "q": query}
        return read_answer(self._connected().request("GET", "/query", parameters))

    def _post(self, database: str, lines: bytes) -> Reply:
        try:
            reply = self._connected().write(database, lines)
        except SettingsError as error:  # the file of a secret was there when the agent began
            raise StoreRefused(str(error), keep=True) from error
        if reply.status in DENIED:
            self.close()  # the next attempt reads the secrets again: an admin may have mended them
        return reply

    def _connected(self) -> InfluxConnection:
        self._connection = self._connection or InfluxConnection(self._settings)
        return self._connection


def joined(lines: Sequence[bytes]) -> bytes:
    """Return lines as one text, each with its line end."""
    return b"".join(line + b"\n" for line in lines)


def refuse_if_limit_is_wrong(reply: Reply, lines: Sequence[bytes]) -> None:
    """Raise if even a single short line is too large for the server, or for a proxy before it.

    Raises:
        StoreRefused: an admin must act (keep=True).

    """
    if reply.status == TOO_LARGE and len(lines) == 1 and len(lines[0]) < SHORT_LINE:
        raise StoreRefused(
            f"HTTP 413 for a single line of {len(lines[0])} bytes: {reply.words()}; raise the "
            "limit of the server (max-body-size) or of the proxy before it",
            keep=True,
        )

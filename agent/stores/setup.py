"""`rooflight store setup`: make what the store needs, and say what was done.

May be run again: what is there already is left as it is, or brought to the settings' retention.
Source: InfluxData, "Manage your database using InfluxQL" (1.x), "InfluxDB v2 API": buckets, dbrps.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import Config
from agent.stores.connection import (
    LARGEST_ANSWER,
    InfluxConnection,
    bounds,
    open_client,
    read_answer,
    refuse_unless_bad_data,
    reply_of,
)
from agent.stores.influxql import identifier, parse_rows
from agent.stores.local import LocalStore
from agent.stores.settings import InfluxSettings
from agent.stores.store import Row, StoreRefused, StoreUnreachable
from probes.catalogue import Database

if TYPE_CHECKING:
    from influxdb_client import Bucket, BucketRetentionRules, BucketsApi, InfluxDBClient

Ask = Callable[[str], list[Row]]
"""Runs one InfluxQL statement and returns its rows."""

REQUESTS = 10
"""Requests for two buckets of 2.x, at the most."""

POLICY = "autogen"
"""The default retention policy of 1.x, which 2.x knows in its InfluxQL mappings only."""


def setup_store(config: Config) -> list[str]:
    """Make the configured store ready; return a line for each thing that is now so.

    Raises:
        SettingsError: a secret is missing or open to others.
        StoreUnreachable: the store does not answer.
        StoreRefused: the store said no.

    """
    if config.store == "influx":
        return setup_influx(config.influx)
    if config.store == "local":
        return setup_local(config.local_path(), config.local.retention_days)
    return ["standard output needs no setup"]


def setup_local(path: Path, retention_days: float) -> list[str]:
    """Make the embedded store's file.

    Raises:
        StoreUnreachable, StoreRefused: see `LocalStore.prepare`.

    """
    store = LocalStore(path, retention_days)
    store.prepare()
    store.close()
    return [f"{path}: ready, measurements are kept for {retention_days:g} days"]


def setup_influx(settings: InfluxSettings) -> list[str]:
    """Make both databases (2.x: buckets with their InfluxQL names).

    Raises:
        SettingsError, StoreUnreachable, StoreRefused: see `setup_store`.

    """
    names = settings.names()
    wanted = [
        (names[Database.METRICS], settings.retention_days),
        (names[Database.JOBS], settings.jobs_retention_days),
    ]
    if settings.api == "v2":
        return _setup_buckets(settings, wanted)
    connection = InfluxConnection(settings)

    def ask(statement: str) -> list[Row]:
        reply = connection.request("POST", "/query", {"q": statement})
        return parse_rows(read_answer(reply))

    try:
        return [_setup_database(ask, name, days) for name, days in wanted]
    finally:
        connection.close()


def _setup_database(ask: Ask, name: str, days: float) -> str:
    database = identifier(name)
    ask(f"CREATE DATABASE {database}")  # says nothing if it is there
    policies = ask(f"SHOW RETENTION POLICIES ON {database}")
    current = next((row for row in policies if row.get("default") is True), None)
    if current is None:
        raise StoreRefused(f"database {name} has no default retention policy", keep=True)
    hours = _hours(days)
    if parse_hours(str(current["duration"])) != hours:
        policy = identifier(str(current["name"]))
        duration = f"DURATION {hours}h" if hours else "DURATION INF"
        shard = f"SHARD DURATION {_shard_hours(hours)}h"
        ask(f"ALTER RETENTION POLICY {policy} ON {database} {duration} {shard} DEFAULT")
    return f"database {name}: ready, {_kept(days)}"


def _shard_hours(hours: int) -> int:
    """Return the time span of a shard: data and its series index are dropped by the shard."""
    if 0 < hours < 48:
        return 1
    return 24 if 0 < hours <= 24 * 180 else 24 * 7


def parse_hours(duration: str) -> int:
    """Return the hours of a duration as 1.x shows it: `720h0m0s`, or `0s` for ever."""
    match = re.match(r"(\d+)h", duration)
    return int(match[1]) if match else 0


def _hours(days: float) -> int:
    # InfluxDB keeps nothing for less than an hour
    return max(1, round(days * 24)) if days else 0


def _kept(days: float) -> str:
    return f"points are kept for {days:g} days" if days else "points are kept for ever"


def _setup_buckets(settings: InfluxSettings, wanted: list[tuple[str, float]]) -> list[str]:
    client = open_client(settings)
    try:
        with _explained(settings):
            organization = settings.organization
            return [_setup_bucket(client, organization, name, days) for name, days in wanted]
    finally:
        client.close()


@contextmanager
def _explained(settings: InfluxSettings) -> Iterator[None]:
    """Turn the errors of influxdb_client into ours."""
    from influxdb_client.client.exceptions import InfluxDBError

    with bounds(REQUESTS * settings.timeout_seconds, LARGEST_ANSWER, settings.url):
        try:
            yield
        except InfluxDBError as error:
            reply = reply_of(error)
            refuse_unless_bad_data(reply)
            raise StoreRefused(f"HTTP {reply.status}: {reply.words()}", keep=True) from error
        except UnicodeDecodeError as error:  # the client wants UTF-8 of every proxy's error page
            raise StoreUnreachable(f"{settings.url}: the answer is not UTF-8") from error


def _setup_bucket(client: "InfluxDBClient", organization: str, name: str, days: float) -> str:
    from influxdb_client import BucketRetentionRules

    rule = BucketRetentionRules(type="expire", every_seconds=_hours(days) * 3600)
    buckets = client.buckets_api()
    bucket = _found_bucket(buckets, organization, name)
    if bucket is None:
        bucket = buckets.create_bucket(bucket_name=name, retention_rules=rule)
    elif _seconds(bucket.retention_rules) != rule.every_seconds:
        bucket.retention_rules = [rule]
        buckets.update_bucket(bucket)
    _map_for_influxql(client, bucket, name)
    return f"bucket {name}: ready for writes and InfluxQL, {_kept(days)}"


def _found_bucket(buckets: "BucketsApi", organization: str, name: str) -> "Bucket | None":
    from influxdb_client.rest import ApiException

    try:
        found = buckets.find_buckets(name=name, org=organization).buckets
    except ApiException as error:
        if error.status == 404 and name in str(error.body):
            return None  # some versions say so, others return an empty list
        raise
    return found[0] if found else None


def _seconds(rules: "list[BucketRetentionRules]") -> int:
    return int(rules[0].every_seconds) if rules else 0


def _map_for_influxql(client: "InfluxDBClient", bucket: "Bucket", name: str) -> None:
    """Give the bucket a name in InfluxQL, unless it has one that an admin made.

    Some 2.x versions map buckets by themselves ("virtual"), but not all.
    """
    from influxdb_client import DBRPCreate, DBRPsService

    service = DBRPsService(client.api_client)
    mappings = service.get_dbr_ps(org_id=bucket.org_id, db=name).content or []
    if any(each.bucket_id == bucket.id and not each.virtual for each in mappings):
        return
    service.post_dbrp(
        DBRPCreate(
            org_id=bucket.org_id,
            bucket_id=bucket.id,
            database=name,
            retention_policy=POLICY,
            default=True,
        )
    )

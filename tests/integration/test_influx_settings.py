"""The settings for InfluxDB that deploy/ advises, as a real influxd understands them."""

import http.client
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.integration.services import Service, advised_settings

pytestmark = pytest.mark.influxd


def ask(service: Service, query: str) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request("GET", "/query?" + urllib.parse.urlencode({"q": query}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    series: list[dict[str, Any]] = answer["results"][0].get("series", [])
    return series


def test_the_index_of_series_is_on_disk_and_no_number_of_jobs_is_too_many(
    influxd: Service,
) -> None:
    assert len(advised_settings()) == 7
    tables = {table["name"]: table for table in ask(influxd, "SHOW DIAGNOSTICS")}
    table = tables["config-data"]
    data = dict(zip(table["columns"], table["values"][0], strict=True))
    assert data["max-values-per-tag"] == 0
    assert data["max-series-per-database"] == 0

    ask(influxd, "CREATE DATABASE indexed")
    connection = http.client.HTTPConnection("127.0.0.1", influxd.port, timeout=10)
    connection.request("POST", "/write?db=indexed", b"m,jobid=1 v=1")
    assert connection.getresponse().status == 204
    connection.close()
    assert list(Path(data["dir"], "indexed", "autogen").glob("*/index"))  # tsi1 makes this folder

"""How Grafana is told to read InfluxDB."""

from dashboards.publish import Source
from probes.catalogue import Database

NAMES = {Database.METRICS: "m", Database.JOBS: "j"}


def test_a_server_without_authentication() -> None:
    model = Source("http://influx:8086", NAMES, "", "", 30.0).model(Database.JOBS)
    assert model == {
        "uid": "rooflight-jobs",
        "name": "rooflight-jobs",
        "type": "influxdb",
        "access": "proxy",
        "url": "http://influx:8086",
        "user": "",
        "jsonData": {
            "dbName": "j",
            "httpMode": "POST",
            "timeInterval": "30s",
            "maxSeries": 10_000,
        },
        "secureJsonData": {},
    }


def test_a_password_goes_where_passwords_go() -> None:
    model = Source("http://influx", NAMES, "ann", "secret", 10.0).model(Database.METRICS)
    assert model["user"] == "ann"
    assert model["secureJsonData"] == {"password": "secret"}


def test_a_token_goes_into_a_header() -> None:
    model = Source("http://influx", NAMES, "", "secret", 10.0).model(Database.METRICS)
    assert model["secureJsonData"] == {"httpHeaderValue1": "Token secret"}
    assert model["jsonData"]["httpHeaderName1"] == "Authorization"  # type: ignore[index]

"""The files that a site lays below /etc/grafana/provisioning fit the dashboards, and each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.stores.settings import InfluxSettings
from dashboards.alerts import FOLDER
from dashboards.dashboard import DATASOURCES
from dashboards.publish import MOST_SERIES

FILES = Path(__file__).parents[3] / "deploy" / "grafana"
SOURCES = sorted((FILES / "datasources").glob("*.yaml"))


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_data_sources_have_the_uids_that_dashboards_name(file: Path) -> None:
    sources = {source["uid"]: source for source in read(file)["datasources"]}
    assert list(sources) == list(DATASOURCES.values())
    names = InfluxSettings().names()
    for database, uid in DATASOURCES.items():
        settings = sources[uid]["jsonData"]
        assert settings["dbName"] == names[database]
        assert settings["httpMode"] == "POST"
        assert settings["maxSeries"] == MOST_SERIES
        assert settings["timeInterval"] == "10s"
        assert sources[uid]["type"] == "influxdb"
        assert sources[uid]["access"] == "proxy"


def test_there_is_a_file_for_each_version() -> None:
    assert [file.stem for file in SOURCES] == ["influxdb1", "influxdb2", "influxdb3"]
    first, second, third = (read(file)["datasources"][0] for file in SOURCES)
    assert first["secureJsonData"] == {"password": "$INFLUX_PASSWORD"}
    for source in (second, third):
        assert source["jsonData"]["httpHeaderName1"] == "Authorization"
        assert source["secureJsonData"] == {"httpHeaderValue1": "Token $INFLUX_TOKEN"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_a_file_says_where_it_goes(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# /etc/grafana/provisioning/datasources/rooflight.yaml")


def test_dashboards_go_into_the_folder_of_the_alerts() -> None:
    (provider,) = read(FILES / "dashboards" / "rooflight.yaml")["providers"]
    assert provider["folder"] == FOLDER
    assert provider["options"]["path"] == "/etc/grafana/dashboards/rooflight"
    assert provider["allowUiUpdates"] is False

"""What is committed is what is built, and it holds the very queries that are checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from dashboards.build import ALERTING, COMMITTED, built, write
from dashboards.dashboard import DATASOURCES, Dashboard
from dashboards.pages import all_dashboards
from dashboards.query import Query
from dashboards.rules import all_rules

BUILT = built()
DASHBOARDS = [pytest.param(each, id=each.page) for each in all_dashboards()]


def model_of(dashboard: Dashboard) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(BUILT[f"dashboards/{dashboard.page}.json"])
    return model


@pytest.mark.parametrize("name", BUILT)
def test_what_is_committed_is_what_is_built(name: str) -> None:
    committed = (COMMITTED / name).read_text(encoding="utf-8")
    assert committed == BUILT[name], "run: rooflight dashboards build"


def test_nothing_else_is_committed() -> None:
    committed = {str(path.relative_to(COMMITTED)) for path in COMMITTED.rglob("*.json")}
    assert committed == set(BUILT)


def test_files_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    paths = write(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in paths} == set(BUILT)
    assert (tmp_path / ALERTING).read_text(encoding="utf-8") == BUILT[ALERTING]


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_a_file_holds_the_queries_of_its_panels(dashboard: Dashboard) -> None:
    targets = [
        target for panel in model_of(dashboard)["panels"] for target in panel.get("targets", [])
    ]
    texts = [target["query"] for target in targets if "query" in target]
    queries = [query for _, panel in dashboard.panels() for query in panel.queries]
    asked = [query for query in queries if isinstance(query, Query)]
    assert texts == [query.text for query in asked]
    assert [target["refId"] for target in targets if target["refId"] == "A"]


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_a_file_is_fit_for_provisioning(dashboard: Dashboard) -> None:
    model = model_of(dashboard)
    assert "id" not in model
    assert "__inputs" not in model
    assert model["uid"] == f"rooflight-{dashboard.page}"
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_data_sources_are_named_by_variables(dashboard: Dashboard) -> None:
    model = model_of(dashboard)
    uids = {panel["datasource"]["uid"] for panel in model["panels"] if panel["type"] != "row"}
    assert uids <= {"${datasource}", "${jobs_datasource}", "-- Mixed --"}
    first = {each["name"]: each["current"] for each in model["templating"]["list"][:2]}
    assert [each["value"] for each in first.values()] == list(DATASOURCES.values())


def test_every_alert_leads_to_its_panel() -> None:
    panels = {
        (dashboard.uid, number): panel.title
        for dashboard in all_dashboards()
        for number, panel in dashboard.panels()
    }
    rules = json.loads(BUILT[ALERTING])["groups"][0]["rules"]
    titles = [panels[rule["dashboardUid"], rule["panelId"]] for rule in rules]
    assert titles == [rule.panel for rule in all_rules()]

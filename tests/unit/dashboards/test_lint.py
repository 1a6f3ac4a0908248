"""The dashboards keep their rules, and the lint finds what breaks them."""

from dataclasses import replace

import pytest

from dashboards.alerts import Rule
from dashboards.dashboard import Dashboard, Row, Variable
from dashboards.lint import complaints, of_query
from dashboards.pages import all_dashboards
from dashboards.panel import FULL, Column, Panel, table, timeseries
from dashboards.query import Query, over_time, rows, value
from dashboards.rules import all_rules
from probes.catalogue import CATALOGUE, Database

WORDS = "What it is, and when to worry about it, in sentences."
QUERY = over_time("cpu", "mean(utilization_ratio)")
FINE = timeseries("Fine", WORDS, QUERY, empty="nothing")


def page(*panels: Panel, variables: tuple[Variable, ...] = ()) -> Dashboard:
    known = (Variable("cluster", "", ""), *variables)
    return Dashboard("cluster", "", [Row("Row", panels)], known)


def found(*panels: Panel) -> list[str]:
    return complaints([page(*panels)], [])


def test_our_dashboards_and_rules_have_no_fault() -> None:
    assert complaints(all_dashboards(), all_rules()) == []


def test_a_page_without_fault() -> None:
    assert found(FINE) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(FINE, kind="graph"), "graph is no panel type"),
        (replace(FINE, description="CPU."), "needs a description"),
        (replace(FINE, empty=""), "does not say what it means"),
        (replace(FINE, defaults={}), "has no unit"),
        (replace(FINE, width=30), "beyond the page"),
        (replace(FINE, queries=(Query('SELECT mean("x") FROM "cpu"'),)), "no field or tag 'x'"),
        (replace(FINE, queries=(Query('SELECT 1 FROM "cpus"'),)), "no measurement"),
        (replace(FINE, queries=(replace(QUERY, legend="$tag_host"),)), "names host"),
        (replace(FINE, title="Load of $nobody"), "no variable $nobody"),
    ],
)
def test_what_breaks_a_rule_is_found(broken: Panel, words: str) -> None:
    assert any(words in each for each in found(broken)), found(broken)


def test_titles_are_there_once() -> None:
    assert "Cluster: panel title 'Fine' is there 2 times" in found(FINE, FINE)


def test_a_link_leads_to_a_dashboard() -> None:
    query = rows("agent", {"version": "last(version)"}, "host")
    link = {"host": Column(link="/d/rooflight-nobody/x")}
    broken = table("Table", WORDS, query, empty="nothing", columns=link)
    assert any("no dashboard rooflight-nobody" in each for each in found(broken))


@pytest.mark.parametrize(
    "text",
    [
        'SELECT mean("utilization_ratio") FROM "cpu" GROUP BY "host" SLIMIT 1',
        'SELECT mean("utilization_ratio") FROM "cpu" GROUP BY "host" SOFFSET 1',
        'SELECT integral("utilization_ratio") FROM "cpu"',
        'SELECT sample("utilization_ratio", 3) FROM "cpu"',
        'SELECT holt_winters(mean("utilization_ratio"), 3, 4) FROM "cpu" GROUP BY time(1m)',
        'SELECT "utilization_ratio" INTO "copy" FROM "cpu"',
        'SHOW SERIES FROM "cpu"',
        'SHOW TAG VALUES CARDINALITY FROM "cpu" WITH KEY = "host"',
        'DROP SERIES FROM "cpu"',
        'DELETE FROM "cpu"',
        'SELECT "utilization_ratio" FROM "cpu"; SELECT "utilization_ratio" FROM "cpu"',
        'SELECT "utilization_ratio" FROM "other"."autogen"."cpu"',
    ],
)
def test_what_not_every_version_serves_is_refused(text: str) -> None:
    assert list(of_query(Query(text)))


def test_a_query_goes_to_the_database_of_its_measurement() -> None:
    query = Query('SELECT last("user") FROM "job"', Database.METRICS)
    assert list(of_query(query)) == ["job is not in the database of metrics"]


def test_an_alert_knows_no_variables() -> None:
    query = value("agent", "last(ticks_total)", "host")  # of $cluster
    rule = Rule("x", "X", "do", query, 60, 1.0, page="cluster", panel="Fine")
    assert complaints([], [rule]) == ["alert X: no variable is known to an alert: $cluster"]


def test_every_measurement_is_shown_somewhere() -> None:
    texts = [str(dashboard.model()) for dashboard in all_dashboards()]
    missing = [name for name in CATALOGUE if not any(f'FROM "{name}"' in text for text in texts)]
    assert missing == []


def test_panels_fit_the_page() -> None:
    for dashboard in all_dashboards():
        places = [place for _, _, place in dashboard.placed()]
        assert max(place["x"] + place["w"] for place in places) == FULL

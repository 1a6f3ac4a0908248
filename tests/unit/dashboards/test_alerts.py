"""Alert rules as Grafana's provisioning wants them."""

import json
from typing import Any

import pytest

from dashboards.alerts import Rule, panel_number
from dashboards.build import ALERTING, built
from dashboards.pages import all_dashboards
from dashboards.query import value
from dashboards.rules import all_rules

RULES: list[dict[str, Any]] = json.loads(built()[ALERTING])["groups"][0]["rules"]
IDS = [rule["uid"] for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_the_condition_is_the_last_step(rule: dict[str, Any]) -> None:
    steps = {step["refId"]: step["model"] for step in rule["data"]}
    assert rule["condition"] == list(steps)[-1]
    assert steps[rule["condition"]]["type"] == "threshold"
    for model in steps.values():
        for letter in model.get("expression", "").replace("$", "").replace(" / ", ""):
            assert letter in steps


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_queries_stand_as_they_are_run(rule: dict[str, Any]) -> None:
    """Grafana takes queries and annotations of a file uninterpolated: no `$` is doubled."""
    assert "$$" not in json.dumps(rule)
    assert "$cluster" not in json.dumps(rule)


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_a_rule_says_what_to_do(rule: dict[str, Any]) -> None:
    assert len(rule["annotations"]["description"]) > 60
    assert rule["execErrState"] == "KeepLast"
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_labels_in_texts_are_there() -> None:
    for rule in all_rules():
        tags = rule.query.text.rpartition("GROUP BY")[2]
        for label in ("host", "gpu", "device", "port", "path", "kind", "dtype"):
            if f".Labels.{label} " in rule.todo:
                assert f'"{label}"' in tags, rule.title


def test_what_the_issue_asks_for_is_watched() -> None:
    names = {rule.name for rule in all_rules()}
    assert names >= {
        "agent-silent",
        "gpu-held-idle",
        "gpu-throttled",
        "gpu-ecc",
        "gpu-xid",
        "ceiling-compute",
        "tempdisk-full",
        "infiniband-errors",
        "infiniband-slow",
        "spool-grows",
        "points-dropped",
    }


def test_a_panel_that_is_not_there_is_an_error() -> None:
    rule = Rule("x", "X", "do", value("agent", "last(ticks_total)"), 60, 1.0, "cluster", "Nothing")
    with pytest.raises(ValueError, match="no panel 'Nothing' on dashboard 'cluster'"):
        panel_number(all_dashboards(), rule.page, rule.panel)

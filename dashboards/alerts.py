"""Alert rules: what somebody should be told of, and what to do then.

Each rule asks InfluxDB, makes a number of each series, and compares it. The queries know no
variables: Grafana allows none there. Source: grafana.com/docs, "Alerting provisioning HTTP API";
grafana/grafana, pkg/services/provisioning/alerting/rules_types.go (queries are taken as they stand:
no `$` is doubled).
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dashboards.dashboard import DATASOURCES, TAG, Dashboard
from dashboards.expression import DATASOURCE, Expression, quotient, reduced
from dashboards.query import Query

FOLDER = "rooflight"
GROUP = "rooflight"
INTERVAL_SECONDS = 60

NoData = Literal["OK", "Alerting"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule.

    Attributes:
        name: last part of its uid, which is fixed.
        title: what is wrong.
        todo: what to do; may name labels as `{{ .Labels.host }}`.
        query: what is asked.
        seconds: over how long a time, up to now.
        above: whether it is wrong above the limit, or below it.
        pending: how long it must be so before anybody is told.
        page: dashboard that shows it.
        panel: title of the panel there.
        against: what the answer is divided by before it is compared, and over how long a time.
        severity: label for the site's routing.
        no_data: what it means that there is no answer at all.

    """

    name: str
    title: str
    todo: str
    query: Query
    seconds: int
    limit: float
    page: str
    panel: str
    above: bool = True
    pending: str = "0s"
    against: tuple[Query, int] | None = None
    severity: Literal["warning", "critical"] = "warning"
    no_data: NoData = "OK"

    @property
    def uid(self) -> str:
        """The uid."""
        return f"{TAG}-{self.name}"

    def steps(self) -> Iterator[tuple[Query | Expression, int]]:
        """Yield queries and expressions, A first, each with its seconds back from now."""
        asked = [(self.query, self.seconds), *([self.against] if self.against else [])]
        yield from asked
        letters = string.ascii_uppercase[: len(asked)]
        yield from ((reduced(letter), 0) for letter in letters)
        last = string.ascii_uppercase[2 * len(asked) - 1]
        if self.against:
            yield quotient("C", "D"), 0
            last = "E"
        yield Expression("threshold", last, above=self.above, limit=self.limit), 0

    def model(self, dashboards: Sequence[Dashboard]) -> dict[str, object]:
        """Return the rule as Grafana stores it, but for where it belongs."""
        steps = list(zip(string.ascii_uppercase, self.steps(), strict=False))
        return {
            "uid": self.uid,
            "title": self.title,
            "condition": steps[-1][0],
            "for": self.pending,
            "noDataState": self.no_data,
            "execErrState": "KeepLast",
            "labels": {"severity": self.severity, "source": TAG},
            "annotations": {
                "summary": self.title,
                "description": self.todo,
                "__dashboardUid__": f"{TAG}-{self.page}",
                "__panelId__": str(panel_number(dashboards, self.page, self.panel)),
            },
            "data": [_step(letter, *step) for letter, step in steps],
            "isPaused": False,
        }


def _step(letter: str, query: Query | Expression, seconds: int) -> dict[str, object]:
    if isinstance(query, Expression):
        return {
            "refId": letter,
            "datasourceUid": DATASOURCE["uid"],
            "relativeTimeRange": {"from": 0, "to": 0},
            "model": query.model(letter),
        }
    uid = DATASOURCES[query.database]
    return {
        "refId": letter,
        "datasourceUid": uid,
        "relativeTimeRange": {"from": seconds, "to": 0},
        "model": {
            "refId": letter,
            "datasource": {"type": "influxdb", "uid": uid},
            "rawQuery": True,
            "query": query.text,
            "resultFormat": "time_series",
            "intervalMs": 10_000,
            "maxDataPoints": 43_200,
        },
    }


def panel_number(dashboards: Sequence[Dashboard], page: str, title: str) -> int:
    """Return the number of a panel.

    Raises:
        ValueError: there is no such panel.

    """
    panels = next(each for each in dashboards if each.page == page).panels()
    for number, panel in panels:
        if panel.title == title:
            return number
    raise ValueError(f"no panel {title!r} on dashboard {page!r}")


def provisioned(rules: Sequence[Rule], dashboards: Sequence[Dashboard]) -> dict[str, object]:
    """Return the rules as a file for Grafana's folder `provisioning/alerting`."""
    group = {
        "orgId": 1,
        "name": GROUP,
        "folder": FOLDER,
        "interval": f"{INTERVAL_SECONDS}s",
        "rules": [
            {
                **rule.model(dashboards),
                "dashboardUid": f"{TAG}-{rule.page}",
                "panelId": panel_number(dashboards, rule.page, rule.panel),
            }
            for rule in rules
        ],
    }
    return {"apiVersion": 1, "groups": [group]}

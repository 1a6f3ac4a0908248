"""What must hold of every dashboard and alert rule, found without any server.

InfluxQL is held to what InfluxDB 1.x, 2.x and 3.x all serve. Source: InfluxData, "InfluxQL feature
support" (InfluxDB 3 Core).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dashboards.alerts import Rule
from dashboards.dashboard import PAGES, SOURCE_VARIABLES, TAG, Dashboard
from dashboards.panel import FULL, Panel
from dashboards.query import Query
from probes.catalogue import CATALOGUE, COMMON_TAGS

KINDS = {
    *("timeseries", "stat", "table", "heatmap", "state-timeline", "bargauge", "xychart"),
}
"""Panel types that Grafana 11 and later ship."""

BUILT_IN = {"timeFilter", "__interval", "__from", "__to", "__value", "__data", "__field"}
BUILT_IN |= {"__url_time_range", "__all"}

STATEMENTS = (
    *("SLIMIT", "SOFFSET", "INTO", "CREATE", "DROP", "DELETE", "ALTER", "GRANT", "REVOKE", "KILL"),
    *("EXPLAIN", r"SHOW\s+SERIES", r"SHOW\s+DATABASES", "CARDINALITY"),
)
FUNCTIONS = (
    *("INTEGRAL", "SAMPLE", r"HOLT_WINTERS\w*", r"CHANDE_\w+", r"\w*EXPONENTIAL_\w+"),
    *(r"KAUFMANS_\w+", "RELATIVE_STRENGTH_INDEX"),
)
"""What InfluxDB 3 does not serve, or what would change data."""

_REFUSED = re.compile(
    rf"(?<![\w\"])(?:(?:{'|'.join(STATEMENTS)})(?![\w\"])|(?:{'|'.join(FUNCTIONS)})(?=\s*\())",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\$\{(\w+)[^}]*\}|\$(\w+)")


def complaints(dashboards: Sequence[Dashboard], rules: Sequence[Rule]) -> list[str]:
    """Return what is wrong, a line each; nothing if all is well."""
    found = [*_twice("uid", (each.uid for each in dashboards))]
    found += _twice("uid", (each.uid for each in rules))
    found += _twice("alert title", (each.title for each in rules))
    for dashboard in dashboards:
        found += [f"{dashboard.title}: {words}" for words in _of_dashboard(dashboard)]
    for rule in rules:
        found += [f"alert {rule.title}: {words}" for words in _of_rule(rule)]
    return found


def of_query(query: Query) -> Iterator[str]:
    """Yield what is wrong with a query."""
    text = query.text
    if refused := _REFUSED.search(text):
        yield f"InfluxDB 3 does not serve {refused[0].strip()!r}: {text}"
    if ";" in text or '".' in text:
        yield f"only one statement, on the data source's own database: {text}"
    measurements = re.findall(r'FROM "(\w+)"', text)
    unknown = [name for name in measurements if name not in CATALOGUE]
    if unknown or not measurements:
        yield f"reads no measurement of the catalogue: {text}"
        return
    if any(CATALOGUE[name].database is not query.database for name in measurements):
        yield f"{measurements[0]} is not in the database of {query.database.value}"
    yield from _unknown_names(text, measurements)
    grouped = set(re.findall(r'"(\w+)"', text.rpartition("GROUP BY")[2]))
    for tag in re.findall(r"\$tag_(\w+)", query.legend):
        if tag not in grouped:
            yield f"legend {query.legend!r} names {tag}, by which nothing is grouped"


def _unknown_names(text: str, measurements: Iterable[str]) -> Iterator[str]:
    titles = re.findall(r'AS "([^"]+)"', text)
    known = {*COMMON_TAGS, *measurements, *titles}
    for name in measurements:
        known |= {*CATALOGUE[name].tags, *CATALOGUE[name].fields}
    for name in dict.fromkeys(re.findall(r'"([^"]+)"', text)):
        if name not in known:
            yield f"no field or tag {name!r} in {', '.join(measurements)}"


def _of_dashboard(dashboard: Dashboard) -> Iterator[str]:
    panels = [panel for _, panel in dashboard.panels()]
    yield from _twice("panel title", (panel.title for panel in panels))
    if len(dashboard.uid) > 40:
        yield "a uid has 40 characters at most"
    known = {*SOURCE_VARIABLES.values(), *(each.name for each in dashboard.variables), *BUILT_IN}
    yield from _unknown_variables(dashboard.model(), known)
    yield from _overlaps(dashboard)
    for panel in panels:
        yield from (f"{panel.title}: {words}" for words in _of_panel(panel))
    asked = [each.query for each in dashboard.variables if each.query]
    for query in [*asked, *(each.query for each in dashboard.annotations)]:
        yield from of_query(query)


def _of_panel(panel: Panel) -> Iterator[str]:
    if panel.kind not in KINDS:
        yield f"{panel.kind} is no panel type that Grafana still ships"
    if len(panel.description) < 40 or not panel.description.endswith("."):
        yield "needs a description in sentences: what it is, when to worry"
    if not panel.empty:
        yield "does not say what it means when there is no data"
    if panel.kind not in ("table", "state-timeline", "heatmap") and "unit" not in panel.defaults:
        yield "has no unit"
    for query in panel.queries:
        if isinstance(query, Query):
            yield from of_query(query)


def _of_rule(rule: Rule) -> Iterator[str]:
    asked = [query for query, _ in rule.steps() if isinstance(query, Query)]
    for query in asked:
        yield from of_query(query)
        for name in _names(query.text):
            if name not in ("timeFilter", "__interval"):
                yield f"no variable is known to an alert: ${name}"
    if rule.page not in PAGES:
        yield f"no dashboard {rule.page!r}"


def _unknown_variables(model: Any, known: set[str]) -> Iterator[str]:  # noqa: ANN401 - plain JSON
    """Yield variables that are not known, and links that lead nowhere, anywhere in a model."""
    if isinstance(model, dict):
        for value in model.values():
            yield from _unknown_variables(value, known)
    elif isinstance(model, list | tuple):
        for value in model:
            yield from _unknown_variables(value, known)
    elif isinstance(model, str):
        for name in _names(model):
            # $C is an earlier answer in an expression, $tag_host a label in a legend
            if name not in known and not re.fullmatch(r"[A-Z]|tag_\w+", name):
                yield f"no variable ${name}: {model}"
        for uid in re.findall(r"/d/([\w-]+)", model):
            if uid.removeprefix(f"{TAG}-") not in PAGES:
                yield f"no dashboard {uid}: {model}"


def _names(text: str) -> list[str]:
    return [braced or plain for braced, plain in _VARIABLE.findall(text)]


def _overlaps(dashboard: Dashboard) -> Iterator[str]:
    taken: set[tuple[int, int]] = set()
    for _, item, place in dashboard.placed():
        right, bottom = place["x"] + place["w"], place["y"] + place["h"]
        cells = {(x, y) for x in range(place["x"], right) for y in range(place["y"], bottom)}
        if right > FULL or cells & taken:
            yield f"{item.title} lies over another panel, or beyond the page"
        taken |= cells


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what} {name!r} is there {count} times"

"""Queries are expanded as Grafana expands them."""

import pytest

from dashboards.expand import View, duration, expand, rounded
from dashboards.query import CLUSTER, over_time

HOUR = 3_600_000
BEGIN = 1_700_000_000_000


def view(**variables: str | tuple[str, ...]) -> View:
    return View(BEGIN, BEGIN + HOUR, variables)


def test_time_and_interval() -> None:
    query = over_time("cpu", "mean(utilization_ratio)", where="TRUE").text
    assert expand(query, view()) == (
        'SELECT mean("utilization_ratio") FROM "cpu" '
        f"WHERE TRUE AND time >= {BEGIN}ms and time <= {BEGIN + HOUR}ms "
        "GROUP BY time(10s) fill(null)"
    )


def test_one_value_stands_as_it_is() -> None:
    assert expand(CLUSTER, view(cluster="it's.a+b")) == "\"cluster\" = 'it's.a+b'"


def test_several_values_become_a_pattern_that_matches_them_alone() -> None:
    chosen = view(host=("n.1", "a+b", "rack/2"))
    assert expand('"host" =~ /^$host$/', chosen) == r'"host" =~ /^(n\.1|a\+b|rack\/2)$/'


def test_nothing_chosen_matches_nothing() -> None:
    assert expand('"host" =~ /^$host$/', view(host=())) == '"host" =~ /^()$/'


def test_one_value_in_a_pattern_is_escaped_unless_it_begins_as_a_number() -> None:
    assert expand('"model" =~ /^$model$/', view(model="H100 (80)")) == (
        r'"model" =~ /^H100 \(80\)$/'
    )
    # Grafana takes it for a number: parseFloat("123+1") is 123
    assert expand('"jobid" =~ /^$jobid$/', view(jobid="123+1")) == '"jobid" =~ /^123+1$/'


def test_ends_of_the_time_shown() -> None:
    assert expand("time <= ${__to}ms - 7d", view()) == f"time <= {BEGIN + HOUR}ms - 7d"
    assert expand("x >= ${__from}", view()) == f"x >= {BEGIN}"


def test_names_that_are_no_variables_stay() -> None:
    assert expand("$unknown ${other}", view()) == "$unknown ${other}"


@pytest.mark.parametrize(
    ("hours", "interval"),
    [(0.1, "10s"), (1, "10s"), (6, "1m"), (24, "5m"), (7 * 24, "30m"), (30 * 24, "2h")],
)
def test_a_longer_time_is_shown_in_longer_intervals(hours: float, interval: str) -> None:
    shown = View(BEGIN, BEGIN + int(hours * HOUR))
    assert expand("time($__interval)", shown) == f"time({interval})"


def test_no_interval_is_shorter_than_the_agents() -> None:
    assert View(BEGIN, BEGIN + HOUR, least_interval_ms=60_000).interval_ms(300) == 60_000


def test_a_narrow_panel_asks_for_fewer_points() -> None:
    day = View(BEGIN, BEGIN + 24 * HOUR)
    assert expand("time($__interval)", day, points=144) == "time(10m)"


@pytest.mark.parametrize(
    ("wanted", "round_one"),
    [(0.0, 10), (14.0, 10), (16.0, 20), (72_000, 60_000), (288_000, 300_000), (1e12, 86_400_000)],
)
def test_intervals_are_round(wanted: float, round_one: int) -> None:
    assert rounded(wanted) == round_one


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(200, "200ms"), (1500, "1500ms"), (30_000, "30s"), (7_200_000, "2h")],
)
def test_durations_are_written_in_the_largest_unit(milliseconds: int, words: str) -> None:
    assert duration(milliseconds) == words

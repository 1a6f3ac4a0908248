"""Causes have words for every query there is, and tell harmless from worrying."""

from collections.abc import Iterator

import pytest

from dashboards.causes import (
    FITS,
    LACKS,
    PLACES,
    Cause,
    Kind,
    absent,
    briefly,
    conditions_of,
    few,
    heaviest,
    late,
    place_of,
    root,
    spell,
    without,
)
from dashboards.expand import View
from dashboards.explain import Asked
from dashboards.pages import all_dashboards
from dashboards.pages.scope import NO_AGENT, NO_COUNTERS, NO_GPU, NO_POWER
from dashboards.query import CLUSTER, Query, over_time, points, rate, rows
from dashboards.rules import all_rules

HOUR = 3_600_000
NOW = 1_000 * HOUR
DAY = View(NOW - 24 * HOUR, NOW, {"cluster": "c"})


def every_query() -> Iterator[Query]:
    for dashboard in all_dashboards():
        yield from (each.query for each in dashboard.variables if each.query)
        yield from (each.query for each in dashboard.annotations)
        for _, panel in dashboard.panels():
            yield from (each for each in panel.queries if isinstance(each, Query))
    for rule in all_rules():
        yield from (each for each, _ in rule.steps() if isinstance(each, Query))


def test_every_condition_has_words_and_no_words_are_left_over() -> None:
    clauses = [clause for query in every_query() for clause in conditions_of(query)]
    assert {each for clause in clauses for each in clause} == PLACES.keys() | FITS.keys()


def test_every_measurement_that_is_asked_for_has_words_for_its_absence() -> None:
    asked = {Asked(query, DAY).measurement for query in every_query()}
    assert asked == set(LACKS)
    assert {lack.needs for lack in LACKS.values()} <= {"", *LACKS}


def test_conditions_are_those_of_what_is_read_then_of_what_is_computed() -> None:
    ratio = {"r": "mean(compute_ratio)"}
    query = points("bound", ratio, "host", where=f"{CLUSTER} AND \"gpu\" = '0'", only='"r" > 0')
    assert conditions_of(query) == [[CLUSTER, "\"gpu\" = '0'"], ['"r" > 0']]
    assert conditions_of(rows("agent", {"v": "last(version)"}, time="time > now() - 3m")) == [
        [CLUSTER]
    ]


@pytest.mark.parametrize(
    ("absent_ones", "found"),
    [
        (set(), ""),
        ({"gpu"}, ""),
        ({"bound"}, "bound"),
        ({"bound", "gpu"}, "gpu"),
        ({"bound", "gpu", "agent"}, "agent"),
        ({"bound", "agent"}, "bound"),
    ],
)
def test_the_root_is_the_last_in_an_unbroken_row(absent_ones: set[str], found: str) -> None:
    assert root("bound", absent_ones.__contains__) == found


def test_absent_hardware_is_no_worry_and_says_who_knows_more() -> None:
    cause = absent("gpu")
    assert (cause.words, cause.kind) == (NO_GPU, Kind.HARDWARE)
    assert str(cause) == (
        "No NVIDIA GPU was seen in this time; no agent ever sent gpu: "
        "rooflight check on a node says why"
    )
    assert str(absent("power")) == f"{NO_POWER.rstrip('.')}; no agent ever sent power"
    assert str(absent("gpu", "on n1")).startswith("On n1: No NVIDIA GPU was seen in this time; ")
    assert absent("gpu", "on n1") != cause


def test_an_agent_that_sends_nothing_of_the_cpu_is_a_worry() -> None:
    assert absent("cpu").kind is Kind.WORRY


def test_causes_are_the_same_where_only_the_detail_differs() -> None:
    first, second = (
        without("gpu", field, "cycles", NO_COUNTERS) for field in ("tensor_a", "dram_a")
    )
    assert first == second
    assert first.detail == "no agent ever sent gpu.tensor_a"
    assert first.words == NO_COUNTERS


def test_a_panel_s_words_for_no_agent_do_not_explain_a_missing_field() -> None:
    cause = without("cpu", "load_1m_load", "processes", NO_AGENT, "on n1")
    assert str(cause) == "On n1: Nothing tells cpu.load_1m_load (processes)."


@pytest.mark.parametrize(
    ("measurement", "minutes", "hours", "kind"),
    [
        ("gpu", 60, 0.5, Kind.WORRY),
        ("agent", 10, 0.1, Kind.WORRY),
        ("agent", 4, 1, Kind.WORRY),  # of panels that look at the last 3 minutes
        ("agent", 2, 0.01, Kind.TIME),
        ("agent", 10, 0.01, Kind.WORRY),
        ("phase", 60, 0.5, Kind.WORK),
    ],
)
def test_what_is_late_is_a_worry_unless_the_time_is_short(
    measurement: str, minutes: int, hours: float, kind: Kind
) -> None:
    view = View(int(NOW - hours * HOUR), NOW)
    assert late(measurement, NOW - minutes * 60_000, view).kind is kind


def test_late_work_is_told_as_its_panel_does() -> None:
    cause = late("job", NOW - 3 * HOUR, DAY, "No job began and ended in this time.")
    assert str(cause) == (
        "No job began and ended in this time; the newest of job is 3 h before the end of this time"
    )


def rate_of(hours: float, begun_s: float, ended_s: float = 0.0, points: int = 48) -> Cause:
    """Return why there is no rate of what was sampled so many seconds ago."""
    view = View(int(NOW - hours * HOUR), NOW)
    return few(view, points, NOW - 1000 * begun_s, NOW - 1000 * ended_s)


def test_too_long_a_time_for_a_rate_says_which_to_try() -> None:
    assert str(rate_of(6, 60)) == (
        "Too long a time for a rate: try --hours 0.1; "
        "each point of the panel spans 10 min, longer than the agent or job ran"
    )
    # an agent that ran before, too, and was started anew: its counters fell
    assert rate_of(24, 20 * 3600) == rate_of(6, 60)


def test_a_shorter_time_is_not_said_to_help_where_it_would_not() -> None:
    just_begun, long_ago = rate_of(6, 3), rate_of(6, 5 * 3600, 5 * 3600 - 60)
    assert just_begun == long_ago
    assert just_begun.words == "Too few samples for a rate: let the agent run for a minute."


def test_too_short_a_time_for_a_rate_says_how_long_it_must_be() -> None:
    assert rate_of(0.004, 9).words == "Too short a time for a rate: it takes two points of 10 s."


def test_panels_with_more_points_have_shorter_points() -> None:
    assert "rate: try" in rate_of(6, 60, points=120).words
    assert "each point of the panel spans 2 min" in rate_of(6, 60, points=120).detail


def test_a_place_is_what_was_chosen() -> None:
    hosts = ("a", "b", "c", "d", "e")
    view = View(0, 1, {"host": hosts, "gpu": ("0",), "jobid": "7", "cluster": "c"})
    where = ('"host" =~ /^$host$/', '"gpu" =~ /^$gpu$/', CLUSTER, '"final_state" = 0')
    assert place_of(where, view) == "on a, b, c, and 2 more, GPU 0"
    assert place_of(["\"jobid\" = '$jobid'"], view) == "job 7"


def test_of_several_causes_a_worry_is_told_first_then_the_panel_s_own() -> None:
    gpu, power = absent("gpu"), absent("power")
    silent = late("agent", NOW - HOUR, View(NOW - HOUR // 2, NOW))
    assert heaviest([gpu, power], NO_POWER) == power
    assert heaviest([gpu, power], "") == gpu
    assert heaviest([gpu, silent, power], NO_POWER) == silent


def test_names_are_told_briefly_where_that_is_shorter() -> None:
    assert briefly(["a", "b", "c", "d"], "; ") == "a; b; c; d"
    assert briefly(["a", "b", "c", "d", "e"], "; ") == "a; b; c; and 2 more"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(90_000, "90 s"), (120_000, "2 min"), (3 * HOUR, "3 h"), (72 * HOUR, "3 d")],
)
def test_durations(milliseconds: float, words: str) -> None:
    assert spell(milliseconds) == words


def test_the_begin_of_a_query_s_time() -> None:
    query = over_time("gpu", "mean(power_watts)")
    assert Asked(query, DAY).earliest_ms == DAY.since_ms
    for time, since in (
        ("time > now() - 3m", NOW - 180_000),
        ("time > ${__to}ms - 7d AND time <= ${__to}ms", NOW - 7 * 24 * HOUR),
        ("time <= ${__to}ms", 0),
    ):
        assert Asked(rows("gpu", {"w": "last(power_watts)"}, time=time), DAY).earliest_ms == since


def test_the_fields_of_a_query() -> None:
    assert [each.name for each in Asked(rate("cpu", "user_seconds"), DAY).fields] == [
        "user_seconds"
    ]

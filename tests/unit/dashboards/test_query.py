"""Queries are made of names that the catalogue knows, with units that follow from it."""

import pytest

from dashboards.query import over_time, rate, rows, tag_values, union, value, values
from probes.catalogue import Database


def test_a_series_for_each_value_of_some_tags() -> None:
    query = over_time("gpu", "mean(utilization_ratio)", "host gpu")
    assert query.text == (
        'SELECT mean("utilization_ratio") FROM "gpu" '
        "WHERE \"cluster\" = '$cluster' AND $timeFilter "
        'GROUP BY time($__interval), "host", "gpu" fill(null)'
    )
    assert query.legend == "$tag_host GPU $tag_gpu"
    assert query.units == {"value": "percentunit"}
    assert query.database is Database.METRICS
    assert not query.table


def test_a_sum_over_devices_is_taken_of_each_of_them_first() -> None:
    query = over_time("gpu", "mean(power_watts)", "host", per="gpu", where="TRUE")
    assert query.text == (
        'SELECT sum("value") FROM ('
        'SELECT mean("power_watts") AS "value" FROM "gpu" WHERE TRUE AND $timeFilter '
        'GROUP BY time($__interval), "host", "gpu" fill(none)'
        ') WHERE $timeFilter GROUP BY time($__interval), "host" fill(null)'
    )


def test_the_rate_of_a_counter_has_the_unit_per_second() -> None:
    query = rate("infiniband", "receive_bytes", "host")
    assert 'non_negative_derivative(first("receive_bytes"), 1s)' in query.text
    assert query.units == {"value": "Bps"}
    assert rate("pressure", "io_some_seconds").units == {"value": "percentunit"}
    assert rate("gpu", "energy_joules").units == {"value": "watt"}


def test_one_number_for_the_whole_time() -> None:
    query = value("agent", "last(ticks_total)", per="host", outer="count(value)", where="TRUE")
    assert query.text == (
        'SELECT count("value") FROM ('
        'SELECT last("ticks_total") AS "value" FROM "agent" WHERE TRUE AND $timeFilter '
        'GROUP BY "host") WHERE $timeFilter'
    )


def test_a_table_names_its_columns_and_knows_their_units() -> None:
    columns = {"used": "last(used_bytes)", "full": "last(used_bytes) / last(total_bytes)"}
    query = rows("tempdisk", columns, "host path", where="TRUE", time="TRUE", newest=1)
    assert query.text == (
        'SELECT last("used_bytes") AS "used", '
        'last("used_bytes") / last("total_bytes") AS "full" '
        'FROM "tempdisk" WHERE TRUE AND TRUE GROUP BY "host", "path" ORDER BY time DESC LIMIT 1'
    )
    assert query.units == {"used": "bytes", "full": ""}
    assert query.table


def test_jobs_are_asked_of_their_own_database() -> None:
    assert rows("job", {"user": "last(user)"}, "jobid").database is Database.JOBS


def test_a_union_has_the_same_columns_in_all_parts() -> None:
    query = union(
        "phase",
        [{"x": "ridge_flops_per_byte * 0.01"}, {"x": "ridge_flops_per_byte * 1"}],
        where="TRUE",
        time="TRUE",
    )
    assert query.text == (
        'SELECT "x" FROM '
        '(SELECT "ridge_flops_per_byte" * 0.01 AS "x" FROM "phase" WHERE TRUE AND TRUE), '
        '(SELECT "ridge_flops_per_byte" * 1 AS "x" FROM "phase" WHERE TRUE AND TRUE) WHERE TRUE'
    )


def test_a_union_may_be_of_what_is_computed_first() -> None:
    query = union(
        "phase",
        [{"x": "max(roof) * 2"}],
        of={"roof": "flops_per_second / compute_ratio"},
        where="TRUE",
        time="TRUE",
    )
    assert query.text == (
        'SELECT "x" FROM (SELECT max("roof") * 2 AS "x" FROM '
        '(SELECT "flops_per_second" / "compute_ratio" AS "roof" FROM "phase" '
        "WHERE TRUE AND TRUE) WHERE TRUE) WHERE TRUE"
    )
    with pytest.raises(ValueError, match="phase has no flops_per_second"):
        union("phase", [{"x": "max(flops_per_second)"}], of={"roof": "flops_per_second"}, where="")


def test_the_values_of_a_tag() -> None:
    assert tag_values("agent", "host").text == 'SHOW TAG VALUES FROM "agent" WITH KEY = "host"'


@pytest.mark.parametrize(
    ("expression", "by"),
    [("mean(utilisation_ratio)", ""), ("mean(utilization_ratio)", "node"), ("meen", "")],
)
def test_a_name_that_the_catalogue_does_not_have_is_an_error(expression: str, by: str) -> None:
    with pytest.raises(ValueError, match="gpu has no"):
        over_time("gpu", expression, by)


def test_the_values_of_a_tag_that_were_seen_in_some_time() -> None:
    query = values("job_cgroup", "cpu_seconds", "jobid", where="TRUE", time="time > now() - 3m")
    assert query.text == (
        'SELECT "jobid" FROM (SELECT last("cpu_seconds") AS "value" FROM "job_cgroup" '
        'WHERE TRUE AND time > now() - 3m GROUP BY "jobid") WHERE time > now() - 3m'
    )

"""Answers become what Grafana would show."""

import pytest

from dashboards.dashboard import Dashboard, Variable
from dashboards.expand import View
from dashboards.expression import Expression, quotient, reduced
from dashboards.frames import Frame, Series, evaluate, folded, frames_of, joined, opened
from dashboards.panel import bars, table, timeseries
from dashboards.query import over_time, rows, tag_values, value
from probes.catalogue import Database

VIEW = View(0, 600_000, {"cluster": "c"})
WORDS = "What it is, and when to worry about it, in sentences."


class Store:
    """Answers queries of a measurement with the series that a test lays out."""

    def __init__(self, **answers: list[Series]) -> None:
        self.answers = answers
        self.asked: list[tuple[Database, str]] = []

    def __call__(self, database: Database, query: str) -> list[Series]:
        self.asked.append((database, query))
        return next(each for name, each in self.answers.items() if f'FROM "{name}"' in query)


def number(labels: dict[str, str], value: float) -> Frame:
    return Frame("", labels, {"Value": [value]})


def test_a_series_is_named_by_its_tags() -> None:
    answer = [Series({"host": "n1", "gpu": "0"}, ["time", "mean"], [[0.0, 0.5], [10.0, None]])]
    panel = timeseries("t", WORDS, over_time("gpu", "mean(power_watts)", "host gpu"), empty="no")
    store = Store(gpu=answer)
    (frame,) = frames_of(panel, VIEW, store)
    assert frame.name == "n1 GPU 0"
    assert frame.columns == {"Time": [0.0, 10.0], "Value": [0.5, None]}
    assert frame.values() == [0.5]
    assert store.asked[0][0] is Database.METRICS


def test_a_table_has_its_tags_as_columns() -> None:
    answer = [
        Series({"host": host}, ["time", "used"], [[5.0, used]])
        for host, used in (("a", 1.0), ("b", 2.0))
    ]
    panel = table("t", WORDS, rows("tempdisk", {"used": "last(used_bytes)"}, "host"), empty="no")
    (frame,) = frames_of(panel, VIEW, Store(tempdisk=answer))
    assert frame.rows() == [
        {"Time": 5.0, "host": "a", "used": 1.0},
        {"Time": 5.0, "host": "b", "used": 2.0},
    ]


def test_tables_are_joined_by_the_columns_that_they_share() -> None:
    who = Frame("", {}, {"Time": [1.0, 2.0], "jobid": ["7", "8"], "user": ["ann", "bob"]})
    what = Frame("", {}, {"Time": [3.0], "jobid": ["7"], "running for": [60.0]})
    (frame,) = joined([who, what], "running for")
    assert frame.rows() == [{"jobid": "7", "user": "ann", "running for": 60.0}]


def test_nothing_joined_is_nothing() -> None:
    assert joined([], "x") == []


def test_a_device_is_held_against_the_median_of_its_kind() -> None:
    devices = [
        number({"host": host, "kind": "matmul"}, speed) for host, speed in (("a", 10.0), ("b", 8.0))
    ]
    kinds = [number({"kind": "matmul"}, 10.0), number({"kind": "copy"}, 1.0)]
    found = evaluate(quotient("C", "D"), {"C": devices, "D": kinds})
    assert [(frame.labels["host"], frame.columns["Value"]) for frame in found] == [
        ("a", [1.0]),
        ("b", [0.8]),
    ]


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [("last", 2.0), ("min", 1.0), ("max", 3.0), ("mean", 2.0), ("sum", 6.0)],
)
def test_a_series_becomes_a_number(reducer: str, expected: float) -> None:
    series = Frame("", {"host": "a"}, {"Time": [0.0] * 4, "Value": [1.0, 3.0, 2.0, None]})
    (frame,) = evaluate(Expression("reduce", "A", reducer), {"A": [series]})  # type: ignore[arg-type]
    assert frame.columns == {"Value": [expected]}


def test_a_series_without_values_is_left_out() -> None:
    empty = Frame("", {}, {"Time": [0.0], "Value": [None]})
    assert evaluate(reduced("A"), {"A": [empty]}) == []


@pytest.mark.parametrize(("above", "verdict"), [(True, 1.0), (False, 0.0)])
def test_a_threshold_is_passed_or_not(above: bool, verdict: float) -> None:
    step = Expression("threshold", "B", above=above, limit=5.0)
    (frame,) = evaluate(step, {"B": [number({}, 6.0)]})
    assert frame.columns == {"Value": [verdict]}


def test_a_panel_with_expressions_shows_the_last_one() -> None:
    series = [Series({"host": "a"}, ["time", "last"], [[0.0, 4.0]])]
    panel = bars(
        "t", WORDS, value("agent", "last(ticks_total)", "host"), reduced("A"), empty="no", unit="s"
    )
    (frame,) = frames_of(panel, VIEW, Store(agent=series))
    assert frame.columns == {"Value": [4.0]}


def test_a_dashboard_opens_with_first_values_and_keeps_what_was_chosen() -> None:
    answer = [Series({}, ["key", "value"], [["host", "b"], ["host", "a"]])]
    variables = [
        Variable("cluster", "", "", tag_values("agent", "cluster")),
        Variable("host", "", "", tag_values("agent", "host"), multi=True),
        Variable("node", "", "", tag_values("agent", "host")),
        Variable("jobid", "", ""),
        Variable("longest", "", "", choices=("7d", "1d")),
    ]
    view = opened(Dashboard("job", "", [], variables), VIEW, Store(agent=answer))
    assert view.variables == {
        "cluster": "c",
        "host": ("a", "b"),
        "node": "a",
        "jobid": "",
        "longest": "7d",
    }


def test_rows_of_a_job_s_nodes_become_one() -> None:
    frame = Frame(
        "",
        {},
        {
            "Time": [2.0, 1.0, 3.0],
            "jobid": ["7", "7", "8"],
            "GPUs": [4.0, 4.0, None],
            "started": [2.0, 1.0, 3.0],
            "exit code": [0.0, 1.0, 0.0],
            "state": ["FAILED", "FAILED", "COMPLETED"],
        },
    )
    fold = {"GPUs": "sum", "started": "min", "exit code": "max", "state": "last"}
    assert folded(frame, fold).rows() == [
        {"jobid": "7", "GPUs": 8.0, "started": 1.0, "exit code": 1.0, "state": "FAILED"},
        {"jobid": "8", "started": 3.0, "exit code": 0.0, "state": "COMPLETED"},
    ]


def test_a_panel_over_subqueries_asks_for_fewer_points() -> None:
    plain = timeseries("t", WORDS, over_time("gpu", "mean(power_watts)", "host"), empty="no")
    summed = over_time("gpu", "mean(power_watts)", "host", per="gpu")
    assert plain.sized(8).points == 120
    assert plain.sized(24).points == 300
    assert timeseries("t", WORDS, summed, empty="no").sized(24).points == 48

"""What a check found is grouped by cause, and its last line says whether to worry."""

from dashboards.causes import Cause, Kind
from dashboards.check import Line, Thing, counted, empty
from dashboards.verdict import by_cause, emptiness, line, summary

NO_GPU = Cause("No GPU.", Kind.HARDWARE, "no agent ever sent gpu")
NO_JOB = Cause("No job.", Kind.WORK)
SHORT = Cause("Too short.", Kind.TIME)
SILENT = Cause("Silent.", Kind.WORRY)

WELL = Line("ok", "Node / CPU", "1 series", seconds=0.0124)


def lines(cause: Cause, *names: str, thing: Thing = "panel") -> list[Line]:
    return [empty(f"Node / {name}", cause, thing) for name in names]


def test_a_cause_is_told_once_with_the_first_of_its_panels() -> None:
    found = [*lines(NO_GPU, "a", "b", "c", "d"), *lines(NO_GPU, "x", thing="alert"), WELL]
    assert list(emptiness(found, everything=False)) == [
        "empty 4 panels, 1 alert: No GPU; no agent ever sent gpu",
        "      Node / a; Node / b; Node / c; and 2 more",
    ]
    assert list(emptiness(found, everything=True))[1:] == [
        f"      Node / {name}" for name in ("a", "b", "c", "d", "x")
    ]


def test_what_is_worrying_comes_last_and_is_marked() -> None:
    found = [*lines(SILENT, "s"), *lines(NO_JOB, "j"), *lines(NO_GPU, "g")]
    told = list(emptiness(found, everything=False))
    assert [words.partition(":")[0] for words in told[::2]] == [
        "empty 1 panel",
        "empty 1 panel",
        "look  1 panel",
    ]
    assert [cause for cause, _ in by_cause(found)] == [NO_GPU, NO_JOB, SILENT]


def test_of_causes_that_differ_in_detail_the_first_is_told() -> None:
    other = Cause(NO_GPU.words, NO_GPU.kind, "another detail")
    ((cause, found),) = by_cause([*lines(NO_GPU, "a"), *lines(other, "b")])
    assert (cause.detail, len(found)) == (NO_GPU.detail, 2)


def test_the_last_line_says_that_all_is_harmless() -> None:
    found = [WELL, *lines(NO_GPU, "a", "b"), *lines(NO_JOB, "c")]
    assert summary(found, 0) == (
        "1 ok, 3 empty (all of them: hardware or counters that no agent reports, or work that "
        "nobody ran), 0 failed; slowest: Node / CPU, 12 ms"
    )
    assert " 1 empty (all of them: work that nobody ran), " in summary(lines(NO_JOB, "c"), 0)
    three = [*found, *lines(SHORT, "d")]
    assert "reports, work that nobody ran, or a time that does not suit)" in summary(three, 0)
    assert summary([WELL], 0).startswith("1 ok, 0 empty, 0 failed; ")


def test_the_last_line_says_how_much_to_look_at() -> None:
    found = [WELL, *lines(NO_GPU, "a", "b"), *lines(SILENT, "s")]
    assert summary(found, 2).startswith("1 ok, 3 empty (1 of them needs a look), 2 failed; ")
    found += lines(SILENT, "t")
    assert "4 empty (2 of them need a look)" in summary(found, 0)


def test_only_slow_things_say_how_long_they_took() -> None:
    assert line(WELL) == "ok    Node / CPU: 1 series"
    assert line(WELL._replace(seconds=2.34)) == "ok    Node / CPU: 1 series (2.3 s)"
    assert line(Line("bad", "Node / CPU", "words")) == "bad   Node / CPU: words"


def test_one_is_not_many() -> None:
    assert [counted(number, "value") for number in (1, 2)] == ["1 value", "2 values"]
    assert counted(3, "series") == "3 series"

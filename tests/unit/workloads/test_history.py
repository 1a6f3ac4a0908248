"""A device is held against its peers, its own best, or the datasheet; and the file keeps sense."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from workloads import history
from workloads.history import KEPT_LATEST, Reading, append, best, check, compare, latest, load

A100 = "NVIDIA A100-SXM4-80GB"
NOW = 1_800_000_000.0


def reading(host: str, tera: float, *, days_ago: float = 0.0, **other: object) -> Reading:
    plain = Reading(
        host, "cuda:0", A100, "550.54", "matmul", "bf16", tera * 1e12, NOW - days_ago * 86400
    )
    return replace(plain, **other)  # type: ignore[arg-type]


def words(current: Reading, past: list[Reading]) -> list[str]:
    return [str(comparison) for comparison in check([current], past)]


def test_a_device_is_held_against_the_median_of_its_peers() -> None:
    peers = [reading(host, tera, days_ago=1) for host, tera in (("b", 270), ("c", 275), ("d", 90))]
    found = words(reading("a", 240), peers)
    assert found == [
        "cuda:0 matmul bf16: 240 TFLOP/s is 89% of 270 TFLOP/s, the median of 3 peers "
        "(NVIDIA A100-SXM4-80GB)"
    ]
    assert words(reading("a", 244), peers) == []


def test_what_a_peer_reached_last_counts_and_other_models_do_not() -> None:
    past = [
        reading("b", 400, days_ago=9),
        reading("b", 200, days_ago=1),
        reading("c", 200, days_ago=1),
        reading("d", 900, days_ago=1, model="NVIDIA B200"),
        reading("e", 900, days_ago=1, kind="copy"),
        reading("f", 900, days_ago=1, dtype="fp16"),
    ]
    (comparison,) = compare([reading("a", 190)], past)
    assert comparison.expected == 200e12
    assert check([reading("a", 190)], past) == []


def test_a_device_is_held_against_its_own_best_which_names_its_day_and_driver() -> None:
    past = [reading("a", 100, days_ago=3), reading("a", 150, days_ago=2, driver="535.1")]
    found = words(reading("a", 130), past)
    assert found == [
        "cuda:0 matmul bf16: 130 TFLOP/s is 87% of 150 TFLOP/s, its own best "
        "(2027-01-13, with driver 535.1)"
    ]
    other_card = reading("a", 130, device="cuda:1")
    assert "datasheet" in compare([other_card], past)[0].reference


def test_repeats_that_differ_widely_say_nothing_about_a_little_less() -> None:
    past = [reading("a", 100, days_ago=1)]
    (noisy,) = compare([reading("a", 75, spread=0.3)], past)
    assert not noisy.is_short(0.1)
    assert noisy.is_short(0.1) == bool(check([noisy.reading], past))
    assert check([reading("a", 69, spread=0.3)], past)
    assert check([reading("a", 75, spread=0.2)], past)
    assert check([reading("a", 49, spread=9.0)], past)


def test_one_peer_is_too_few() -> None:
    (comparison,) = compare([reading("a", 240)], [reading("b", 900, days_ago=1)])
    assert comparison.reference == "87% of the datasheet's peak (A100 SXM 80 GB)"
    assert comparison.expected == pytest.approx(312e12 * 0.869)


def test_a_device_that_nothing_is_known_of_passes_without_a_verdict() -> None:
    assert compare([reading("a", 1, model="AMD EPYC")], []) == []
    assert compare([reading("a", 1, dtype="fp32")], []) == []


def test_the_reading_itself_and_what_is_no_number_are_no_references() -> None:
    now = reading("a", 250)
    broken = [reading("a", value, days_ago=1) for value in (float("nan"), float("inf"), 0, -1)]
    (comparison,) = compare([now], [now, *broken])
    assert "datasheet" in comparison.reference


def test_what_was_appended_is_loaded_and_broken_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ceilings.jsonl"
    assert load(path) == []
    first, second = reading("a", 1), reading("a", 2)
    append(path, [first])
    with path.open("ab") as file:
        file.write(b'{"host": "a"}\n\xff\xfe\n[]\n{"host"\n')
    append(path, [second])
    assert load(path) == [first, second]
    assert best(load(path)) == latest(load(path)) == second
    assert best([]) is latest([]) is None


def test_nobody_else_may_write_to_a_history_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        append(tmp_path / "history", [reading("a", 250)])
    finally:
        os.umask(before)
    assert (tmp_path / "history").stat().st_mode & 0o777 == 0o644


def test_a_long_history_keeps_the_best_and_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT_BYTES", 8192)
    path = tmp_path / "ceilings.jsonl"
    top = reading("a", 300, days_ago=500)
    append(path, [top])
    for day in range(400, 0, -1):
        append(path, [reading("a", 250, days_ago=day), reading("b", 260, days_ago=day)])
    kept = load(path)
    assert path.stat().st_size < 3 * 8192
    assert kept[0] == top
    assert kept[-1] == reading("b", 260, days_ago=1)
    assert len([each for each in kept if each.host == "a"]) >= KEPT_LATEST

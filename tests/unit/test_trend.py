import random
from itertools import accumulate

import pytest

from tests.benchmarks.trend import drift, trend

HOURS = [second / 3600 for second in range(1800)]


def wandering(seed: int, slope: float = 0.0) -> list[float]:
    """A random walk that is drawn back to its place, as the memory of a process is."""
    numbers = random.Random(seed)
    values, away = [], 0.0
    for hour in HOURS:
        away = 0.9 * away + numbers.gauss(0, 10)
        values.append(30_000 + slope * hour + away)
    return values


def test_a_straight_line_is_found_exactly() -> None:
    found = trend(HOURS, [3.0 * hour + 7 for hour in HOURS])
    assert found.slope == pytest.approx(3.0)
    assert found.noise == pytest.approx(0.0, abs=1e-9)
    assert not found.flat


def test_what_never_changes_is_flat() -> None:
    assert trend(HOURS, [12.0] * len(HOURS)).flat


def test_a_process_that_only_wanders_is_flat_nineteen_times_of_twenty() -> None:
    flat = sum(trend(HOURS, wandering(seed)).flat for seed in range(200))
    assert 180 <= flat <= 200


def test_a_leak_larger_than_the_wandering_is_found() -> None:
    found = trend(HOURS, wandering(1, slope=500.0))
    assert not found.flat
    assert found.slope == pytest.approx(500.0, abs=2 * found.noise)


def stairs(seed: int, pages: int) -> list[float]:
    """The memory of a process that touches so many new pages of 4 KiB, at odd times."""
    numbers = random.Random(seed)
    at = [numbers.choice(HOURS) for _ in range(pages)]
    return [30_000 + 4.0 * sum(moment <= hour for moment in at) for hour in HOURS]


def test_a_few_pages_are_no_growth_and_many_are() -> None:
    assert drift(HOURS, [30_000.0] * len(HOURS)).flat
    assert all(drift(HOURS, stairs(seed, 2)).flat for seed in range(50))
    assert not any(drift(HOURS, stairs(seed, 12)).flat for seed in range(50))


def test_the_drift_of_a_leak_is_its_speed() -> None:
    found = drift(HOURS, [30_000 + 100.0 * hour for hour in HOURS])
    assert found.slope == pytest.approx(100.0)
    assert not found.flat


def test_where_changes_stay_a_line_takes_chance_for_a_slope_and_steps_do_not() -> None:
    walks = []
    for seed in range(200):
        numbers = random.Random(seed)
        walks.append(list(accumulate(numbers.gauss(0, 1) for _ in HOURS)))
    assert 180 <= sum(drift(HOURS, walk).flat for walk in walks) <= 200
    assert sum(trend(HOURS, walk).flat for walk in walks) < 100

import pytest

from agent.inspect.units import show, show_seconds


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (1536, "B", "1.50 KiB"),
        (1023.9, "B", "1.00 KiB"),
        (200 << 20, "B", "200 MiB"),
        (39e9, "B/s", "39.0 GB/s"),
        (999.9e6, "B/s", "1.00 GB/s"),
        (144.4e9, "FLOP/s", "144 GFLOP/s"),
        (0.5, "ratio", "50%"),
        (0.004, "ratio", "0.4%"),
        (0.0, "ratio", "0%"),
        (3, "count", "3"),
        (0.0333, "s", "0.0333 s"),
        (2e21, "FLOP", "2000 EFLOP"),
    ],
)
def test_three_digits_and_the_usual_prefix(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.42, "0.420 s"),
        (59.9, "59.9 s"),
        (245.4, "4:05"),
        (93791, "26:03:11"),
        (1e6, "11.6 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text

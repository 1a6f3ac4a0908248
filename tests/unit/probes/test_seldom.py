import pytest

from probes.seldom import SELDOM_SECONDS, Seldom


class Source:
    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0
        self.broken = False

    def read(self) -> int:
        self.reads += 1
        if self.broken:
            raise OSError("gone")
        return self.reads

    def clock(self) -> float:
        return self.now


def told(source: Source, seconds: float, *moments: float) -> list[int]:
    kept = Seldom(source.read, seconds, source.clock)
    values = []
    for moment in moments:
        source.now = moment
        values.append(kept.values())
    return values


def test_values_are_told_always_and_read_now_and_then() -> None:
    assert told(Source(), 9.0, 0.0, 1.0, 8.9, 9.0, 10.0, 18.0) == [1, 1, 1, 2, 2, 3]


def test_an_agent_at_its_usual_pace_reads_at_every_sample() -> None:
    assert told(Source(), SELDOM_SECONDS, 0.0, 10.004, 19.996, 30.0) == [1, 2, 3, 4]


def test_what_is_forgotten_is_read_at_once() -> None:
    source = Source()
    kept = Seldom(source.read, 9.0, source.clock)
    kept.values()
    kept.forget()
    assert kept.values() == 2


def test_after_an_error_it_is_read_again() -> None:
    source = Source()
    kept = Seldom(source.read, 9.0, source.clock)
    source.broken = True
    with pytest.raises(OSError, match="gone"):
        kept.values()
    source.broken = False
    assert kept.values() == 2

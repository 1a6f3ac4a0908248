import pytest

from probes.seldom import SELDOM_SECONDS, Seldom


class Source:
    def __init__(self) -> None:
        self.reads = 0
        self.broken = False

    def read(self) -> int:
        self.reads += 1
        if self.broken:
            raise OSError("gone")
        return self.reads


def told(seconds: float, *moments: float) -> list[int]:
    kept = Seldom(Source().read, seconds)
    return [kept.values(now) for now in moments]


def test_values_are_told_always_and_read_now_and_then() -> None:
    assert told(9.0, 0.0, 1.0, 8.9, 9.0, 10.0, 18.0) == [1, 1, 1, 2, 2, 3]


def test_an_agent_at_its_usual_pace_reads_at_every_sample() -> None:
    assert told(SELDOM_SECONDS, 0.0, 10.004, 19.996, 30.0) == [1, 2, 3, 4]


def test_news_are_told_once() -> None:
    kept = Seldom(Source().read, 9.0)
    assert [kept.news(now) for now in (0.0, 1.0, 8.9, 9.0, 10.0)] == [1, None, None, 2, None]
    assert kept.values(10.0) == 2


def test_what_is_forgotten_is_read_at_once() -> None:
    kept = Seldom(Source().read, 9.0)
    kept.values(0.0)
    kept.forget()
    assert kept.news(1.0) == 2


def test_after_an_error_it_is_read_again() -> None:
    source = Source()
    kept = Seldom(source.read, 9.0)
    source.broken = True
    with pytest.raises(OSError, match="gone"):
        kept.values(0.0)
    source.broken = False
    assert kept.values(1.0) == 2

"""What tests of several probes use."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from tests.nvml.build import TRACES, build, replay_settings
from tests.nvml.replay import Replay, StartReplay


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartReplay]:
    """Start a probe on a trace; the binding gets the replay library whatever it held before."""
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(build())))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    started: list[Replay] = []

    def start(trace: str | Path, **settings: str) -> Replay:
        path = TRACES / trace if isinstance(trace, str) else trace
        clock = tmp_path / "clock"
        named = replay_settings({"trace": str(path), "clock": str(clock), **settings})
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        started.append(Replay(clock))
        return started[-1]

    yield start
    for one in started:
        one.close()

"""Probes in a thread of their own: what they do between two samples."""

import threading
import time
from collections.abc import Sequence
from typing import ClassVar

from agent.relay import Relay
from agent.runner import Worker, read_all
from probes.probe import Context, Probe
from probes.sample import Sample
from tests.weather import PATIENCE

RELAY = Relay(PATIENCE)


class Glancing(Probe):
    """Counts its glances; the third fails."""

    name = "glancing"
    own_thread = True
    glances: ClassVar[int] = 0
    third: ClassVar[threading.Event]

    def __init__(self, context: Context) -> None:
        pass

    def glance_seconds(self) -> float | None:
        return 0.001

    def glance(self) -> None:
        type(self).glances += 1
        if self.glances == 3:
            self.third.set()
            raise OSError("for once")

    def sample(self) -> Sequence[Sample]:
        return [Sample("seen", (), {"glances": float(self.glances)})]


def sample(worker: Worker) -> Sequence[Sample]:
    ((_, samples),) = read_all([worker], RELAY, time.monotonic() + PATIENCE)
    return samples


def test_a_probe_glances_between_samples_and_a_failed_glance_is_counted() -> None:
    Glancing.glances, Glancing.third = 0, threading.Event()
    worker = Worker(Glancing, Context())
    worker.open(RELAY, time.monotonic() + PATIENCE)
    assert Glancing.third.wait(PATIENCE)
    (first,) = sample(worker)
    assert float(first.fields["glances"]) >= 3.0
    assert worker.health.errors == 1
    (second,) = sample(worker)
    assert float(second.fields["glances"]) >= float(first.fields["glances"])
    worker.close()


class Patient(Glancing):
    """Wants no glances."""

    def glance_seconds(self) -> float | None:
        return None


def test_a_probe_that_wants_no_glances_gets_none() -> None:
    Patient.glances = 0
    worker = Worker(Patient, Context())
    worker.open(RELAY, time.monotonic() + PATIENCE)
    assert [each.fields["glances"] for _ in range(3) for each in sample(worker)] == [0.0] * 3
    worker.close()

"""The loop with clocks of our own, a fixture machine, and a sink that remembers."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from agent.client import ask, send, send_points
from agent.encoder import Encoder
from agent.jobs import JobTable
from agent.lineprotocol import Point, parse
from agent.listener import AgentSocket, Listeners, allow_all
from agent.loop import Loop, Pace, without_slack
from agent.messages import JobEnd, JobStart, Ping
from agent.runner import Runner, runner
from probes.catalogue import Database
from probes.infiniband import InfinibandProbe
from probes.power import PowerProbe
from probes.probe import Context, Probe, ProbeUnavailable
from probes.roots import Roots
from probes.sample import Sample, tags

RANGE_UJ = 262_143_328_850


@dataclass
class Clock:
    """Wall and monotonic clock that the test moves."""

    now: float = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@dataclass
class Sink:
    points: list[Point] = field(default_factory=list)

    def append(self, database: Database, lines: bytes) -> None:
        self.points += parse(lines.decode())

    def last(self, measurement: str) -> Point:
        return [point for point in self.points if point.measurement == measurement][-1]


def make_loop(tmp_path: Path, runners: Sequence[Runner], clock: Clock, sink: Sink) -> Loop:
    loop = Loop(
        pace=Pace(interval=10.0, heartbeat=30.0, deadline=0.2),
        encoder=Encoder("c", "h"),
        host="h",
        runners=runners,
        jobs=JobTable(tmp_path / "jobs", Roots(proc=tmp_path, cgroup=tmp_path)),
        sink=sink,
        clock=clock,
        own_samples=lambda vitals: [],
    )
    loop.open()
    return loop


class Rapl:
    """A RAPL domain whose counter the test drives, wraps included."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "class" / "powercap" / "intel-rapl:0"
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text("package-0\n")
        (self.folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        self.set(RANGE_UJ - 5_000_000)

    def set(self, microjoules: int) -> None:
        self.microjoules = microjoules
        (self.folder / "energy_uj").write_text(f"{microjoules % RANGE_UJ}\n")


def test_energy_of_a_job_is_exact_over_a_wrap_of_the_counter(tmp_path: Path) -> None:
    rapl, clock, sink = Rapl(tmp_path / "sys"), Clock(), Sink()
    context = Context(Roots(sys=tmp_path / "sys"), monotonic=clock.monotonic)
    loop = make_loop(tmp_path, [runner(PowerProbe, context)], clock, sink)
    loop.tick(int(clock.now * 1000))
    clock.now += 3
    rapl.set(rapl.microjoules + 1_000_000)  # before the job: not the job's
    loop.start_job(JobStart("1", int(clock.now * 1000), cpus=2.0))
    for _ in range(4):
        clock.now += 10
        rapl.set(rapl.microjoules + 250_000_000)  # 25 W; the first step wraps the counter
        loop.tick(int(clock.now * 1000))
    clock.now += 2
    rapl.set(rapl.microjoules + 50_000_000)
    loop.end_job("1", 0)
    footprint = sink.last("job_footprint").fields
    assert footprint["node_cpu_energy_joules"] == pytest.approx(4 * 250 + 50, rel=1e-9)
    assert footprint["elapsed_seconds"] == pytest.approx(42.0)
    assert footprint["samples_total"] == 6.0
    assert footprint["final_state"] == 1.0
    watts = [
        point.fields["power_watts"]
        for point in sink.points
        if point.measurement == "power" and "power_watts" in point.fields
    ]
    assert watts[-2] == pytest.approx(25.0)


def test_a_job_is_charged_with_the_errors_of_its_last_second(tmp_path: Path) -> None:
    counters = tmp_path / "sys/class/infiniband/mlx5_0/ports/1/counters"
    counters.mkdir(parents=True)
    (counters / "port_xmit_data").write_text("1\n")
    (counters / "link_downed").write_text("2\n")
    clock, sink = Clock(), Sink()
    context = Context(Roots(sys=tmp_path / "sys"), monotonic=clock.monotonic)
    loop = make_loop(tmp_path, [runner(InfinibandProbe, context)], clock, sink)
    loop.start_job(JobStart("1", int(clock.now * 1000), cpus=2.0))
    clock.now += 1
    (counters / "link_downed").write_text("3\n")
    loop.end_job("1", 0)
    assert sink.last("infiniband").fields["link_downed_total"] == 3.0
    assert sink.last("job_footprint").fields["node_infiniband_errors_total"] == 1.0
    loop.close()


def test_a_long_wait_ends_with_a_short_one_that_the_kernel_keeps() -> None:
    waits, left = [], 10.0
    while left > 0:
        waits.append(without_slack(left))
        left -= waits[-1]
    assert waits == [9.0, 1.0]
    assert without_slack(0.05) == 0.05


class Steps(Probe):
    """Gives what the test lays out, in order."""

    name = "steps"
    plan: ClassVar[list[list[Sample]]] = []

    def __init__(self, context: Context) -> None:
        self.left = iter(self.plan)

    def sample(self) -> Sequence[Sample]:
        return next(self.left)


def gpu(index: int, **fields: float) -> Sample:
    return Sample("gpu", tags(gpu=str(index), uuid=f"GPU-{index}", model="H100"), fields)


def test_only_the_gpus_of_the_job_are_in_its_footprint(tmp_path: Path) -> None:
    class Gpus(Steps):
        plan: ClassVar = [
            [gpu(index, energy_joules=100.0 * step, utilization_ratio=0.5) for index in range(3)]
            for step in range(3)
        ]

    clock, sink = Clock(), Sink()
    loop = make_loop(tmp_path, [runner(Gpus, Context())], clock, sink)
    loop.start_job(JobStart("1", int(clock.now * 1000), gpus=("0", "2")))
    for _ in range(2):
        clock.now += 10
        loop.tick(int(clock.now * 1000)) if _ == 0 else loop.end_job("1", 0)
    gpus = [point for point in sink.points if point.measurement == "job_gpu_footprint"]
    assert {dict(point.tags)["gpu"] for point in gpus} == {"0", "2"}
    assert gpus[-1].fields["energy_joules"] == 200.0
    assert gpus[-1].fields["utilization_mean_ratio"] == 0.5
    assert sink.last("job").fields["gpus_total"] == 2.0


def test_implausible_values_are_left_out_and_counted(tmp_path: Path) -> None:
    class Broken(Steps):
        plan: ClassVar = [
            [
                Sample(
                    "cpu",
                    (),
                    {
                        "utilization_ratio": 1.5,
                        "iowait_ratio": float("nan"),
                        "load_1m_load": 2.0,
                        "no_such_field": 1.0,
                        "cpus_total": "eight",
                    },
                )
            ]
        ]

    sink = Sink()
    loop = make_loop(tmp_path, [runner(Broken, Context())], Clock(), sink)
    loop.tick(5)
    assert sink.last("cpu").fields == {"load_1m_load": 2.0}
    assert loop.vitals.implausible == 4


def test_a_failing_probe_costs_its_own_samples_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Steps):
        name = "failing"

        def sample(self) -> Sequence[Sample]:
            raise ZeroDivisionError("a defect")

    class Fine(Steps):
        plan: ClassVar = [[Sample("cpu", (), {"load_1m_load": 1.0})]] * 3

    sink = Sink()
    probes = [runner(Failing, Context()), runner(Fine, Context())]
    loop = make_loop(tmp_path, probes, Clock(), sink)
    for time_ms in (1, 2, 3):
        loop.tick(time_ms)
    assert len(sink.points) == 3
    assert probes[0].health.errors == 3
    assert caplog.text.count("probe failing failed: a defect") == 1


def test_a_hanging_probe_is_left_out_until_it_answers_again(tmp_path: Path) -> None:
    gate = threading.Event()

    class Hanging(Steps):
        name = "hanging"
        own_thread = True

        def __init__(self, context: Context) -> None:
            self.count = 0

        def sample(self) -> Sequence[Sample]:
            self.count += 1
            if self.count == 1:
                gate.wait(10)
            return [Sample("memory", (), {"free_bytes": float(self.count)})]

    class Fine(Steps):
        plan: ClassVar = [[Sample("cpu", (), {"load_1m_load": 1.0})]] * 9

    class SystemClockLike(Clock):
        def monotonic(self) -> float:
            return time.monotonic()

    sink = Sink()
    probes = [runner(Hanging, Context()), runner(Fine, Context())]
    loop = make_loop(tmp_path, probes, SystemClockLike(), sink)
    loop.tick(1)
    loop.tick(2)
    assert [point.measurement for point in sink.points] == ["cpu", "cpu"]
    assert probes[0].health.stalled >= 1
    gate.set()
    time.sleep(0.2)  # the late answer arrives
    for time_ms in range(3, 9):
        loop.tick(time_ms)
    # the late answer of the first tick is never taken for a later one's
    assert float(sink.last("memory").fields["free_bytes"]) >= 2.0
    assert min(p.fields["free_bytes"] for p in sink.points if p.measurement == "memory") != 1.0
    loop.close()


class Blocked(Steps):
    """Hangs in every sample from the second on, in whatever thread it is read, until the end."""

    name = "blocked"
    gate: ClassVar[threading.Event]
    reads: ClassVar[int]

    def __init__(self, context: Context) -> None:
        type(self).gate, type(self).reads = threading.Event(), 0

    def sample(self) -> Sequence[Sample]:
        type(self).reads += 1
        if self.reads > 1:
            assert self.gate.wait(30)
        return []


class RealTime(Clock):
    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def test_the_end_of_a_job_is_heard_and_kept_though_a_probe_hangs_meanwhile(tmp_path: Path) -> None:
    class Fine(Steps):
        plan: ClassVar = [[Sample("cpu", (), {"load_1m_load": 1.0})]] * 9

    sink = Sink()
    probes = [runner(Fine, Context()), runner(Blocked, Context())]
    loop = make_loop(tmp_path, probes, RealTime(), sink)
    listeners = Listeners(tmp_path / "agent.sock", allow_all)
    loop.listen(listeners)
    loop.start_job(JobStart("1", int(time.time() * 1000)))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        reply = ask(str(tmp_path / "agent.sock"), JobEnd("1"), timeout_seconds=30)
        assert reply is not None
        assert reply.ok
        assert sink.last("job_footprint").fields["final_state"] == 1.0
        assert sink.last("cpu").fields == {"load_1m_load": 1.0}
        again = ask(str(tmp_path / "agent.sock"), JobEnd("1"), timeout_seconds=30)
        assert again is not None
        assert again.words == "no job 1 runs here"
    finally:
        loop.stop()
        thread.join(30)
        Blocked.gate.set()
        listeners.close()
    assert Blocked.reads == 2


def test_what_a_job_uses_may_hang_and_costs_the_job_alone(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    os.mkfifo(group / "cpu.stat")
    sink = Sink()
    loop = make_loop(tmp_path, [], RealTime(), sink)
    for jobid, folder in (("1", str(group)), ("2", "")):
        start = JobStart(jobid, int(time.time() * 1000), pid=os.getpid(), cgroup_v2=folder)
        loop.relay.call(partial(loop.start_job, start))
    loop.relay.call(partial(loop.tick, int(time.time() * 1000)))
    owners = {dict(each.tags)["jobid"] for each in sink.points if each.measurement == "job"}
    assert owners == {"1", "2"}
    running = loop.jobs.get("1")
    assert running is not None
    assert running.hangs
    assert running.saved.samples >= 2
    os.close(os.open(group / "cpu.stat", os.O_WRONLY))  # let the thread go


def test_an_absent_source_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Absent(Steps):
        name = "absent"

        def __init__(self, context: Context) -> None:
            raise ProbeUnavailable("no such hardware")

    caplog.set_level("INFO")
    loop = make_loop(tmp_path, [runner(Absent, Context())], Clock(), Sink())
    for time_ms in (1, 2, 3):
        loop.tick(time_ms)
    assert caplog.text.count("probe absent is off: no such hardware") == 1


def test_a_job_goes_on_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    class Network(Steps):
        plan: ClassVar = [
            [Sample("network", tags(interface="eth0"), {"receive_bytes": 100.0 * step})]
            for step in range(3)
        ]

    class NetworkLater(Steps):
        plan: ClassVar = [[Sample("network", tags(interface="eth0"), {"receive_bytes": 1000.0})]]

    clock, sink = Clock(), Sink()
    loop = make_loop(tmp_path, [runner(Network, Context())], clock, sink)
    loop.start_job(JobStart("1", int(clock.now * 1000), cpus=1.0))
    clock.now += 10
    loop.tick(int(clock.now * 1000))
    loop.jobs.save()  # as every heartbeat does; then the agent is killed
    clock.now += 60
    again = make_loop(tmp_path, [runner(NetworkLater, Context())], clock, sink)
    again.end_job("1", 0)
    footprint = sink.last("job_footprint").fields
    assert footprint["node_network_receive_bytes"] == 1000.0
    assert footprint["elapsed_seconds"] == 70.0
    assert footprint["samples_total"] == 3.0
    assert list((tmp_path / "jobs").glob("*.json")) == []


def test_messages_are_answered_and_strangers_refused(tmp_path: Path) -> None:
    sink = Sink()
    loop = make_loop(tmp_path, [], Clock(), sink)
    listener = AgentSocket(tmp_path / ("long" * 40) / "agent.sock")
    path = str(listener.path)
    loop.watch(listener, lambda: loop.serve(listener))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        reply = ask(path, Ping())
        assert reply is not None
        assert reply.ok
        phase = Sample("phase", tags(jobid="1", phase="prefill"), {"duration_seconds": 2.0})
        assert send_points([(phase, 5)], {"ROOFLIGHT_SOCKET": path})
        wrong = Sample("cpu", (), {"load_1m_load": 9.0})
        assert send_points([(wrong, 5)], {"ROOFLIGHT_SOCKET": path})
        assert ask(path, JobEnd("no-such-job")) is not None
    finally:
        loop.stop()
        thread.join(10)
        listener.close()
    assert [point.measurement for point in sink.points] == ["phase"]
    assert sink.last("phase").time_ms == 5
    assert not send(path, Ping())
    assert not send_points([(phase, 5)], {})


@pytest.mark.parametrize("data", [b"", b"{", b'{"type":"job_start"}', b"\xff" * 100, b"[]", b"1"])
def test_nonsense_over_the_socket_is_refused_in_words(tmp_path: Path, data: bytes) -> None:
    import socket

    loop = make_loop(tmp_path, [], Clock(), Sink())
    listener = AgentSocket(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.bind("")
        client.sendto(data, str(listener.path))
        loop.serve(listener)
        assert b'"ok":false' in client.recv(10_000)
    listener.close()


def test_a_jobid_that_is_a_path_is_refused(tmp_path: Path) -> None:
    import msgspec

    from agent.messages import decode

    start = msgspec.json.encode(JobStart("../../etc/passwd", 0))
    with pytest.raises(ValueError, match="jobid"):
        decode(start)

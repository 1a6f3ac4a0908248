"""Reports in the 4 kB of a comment: what comes back, however large the job."""

import base64
import random
import zlib
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.inspect.comment import (
    LARGEST,
    LONGEST,
    VERSION,
    Content,
    NotAComment,
    decode,
    encode,
    told_by,
)
from agent.inspect.findings import find
from agent.inspect.lines import GPU_LINES, NODE_LINES, Line
from agent.inspect.model import Finding, Gpu, GpuBounds, JobHeader, JobReport, Node, Phase, Usage
from agent.inspect.outliers import outliers
from agent.inspect.summary import bound_seconds, summarize

HEADER = JobHeader("7", "c", "COMPLETED", hosts=["n1"], start_ms=1, end_ms=3_600_001)
COLUMNS = ("mean", "peak", "total", "available")


def usage(line: Line, chance: random.Random, gpu: str = "") -> Usage:
    largest = 1.0 if line.unit == "ratio" else 1e12
    numbers = {name: chance.uniform(0, largest) for name in COLUMNS if getattr(line, name)}
    what = f"gpu {gpu} {line.what}" if gpu else line.what
    common = {"source": line.source or "cgroup2", "samples": chance.choice((359, 360))}
    return msgspec.convert(
        {"what": what, "unit": line.unit, "scope": line.scope, "gpu": gpu, **common, **numbers},
        Usage,
    )


def node(number: int, gpus: int, chance: random.Random) -> Node:
    names = [str(gpu) for gpu in range(gpus)]
    lines = [usage(line, chance) for line in NODE_LINES]
    lines += [usage(line, chance, gpu) for gpu in names for line in GPU_LINES]
    return Node(
        f"node{number:04}.cluster.example.org",
        3600.123,
        360,
        361,
        1_700_000_000_000 + number,
        True,
        "cgroup2",
        lines,
        [GpuBounds(gpu, "gpm", {"compute": chance.uniform(0, 3600), "idle": 1.5}) for gpu in names],
        [Gpu(gpu, f"GPU-{chance.getrandbits(128):032x}", "H100", "gpm", 360, 9) for gpu in names],
    )


def phase(number: int, seconds: float) -> Phase:
    return Phase(
        "n1",
        "llm",
        f"phase {number}",
        "cuda:0",
        "memory",
        seconds,
        5,
        compute_ratio=0.123456,
        memory_ratio=0.98765,
        confidence_ratio=0.5,
    )


def report(nodes: Sequence[Node], phases: Sequence[Phase] = ()) -> JobReport:
    made = JobReport(
        HEADER,
        nodes,
        phases,
        (),
        (),
        summary=summarize(nodes),
        outliers=outliers(nodes),
        bounds=bound_seconds(nodes),
    )
    return msgspec.structs.replace(made, findings=find(made))


def job(hosts: int, gpus: int, seed: int = 1) -> JobReport:
    chance = random.Random(seed)
    return report([node(number, gpus, chance) for number in range(hosts)])


def close(one: object, other: object) -> bool:
    """Compare builtins; numbers to four digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-3)
    return one == other


@pytest.mark.parametrize(("hosts", "gpus"), [(1, 0), (1, 1), (1, 4), (2, 0), (4, 0)])
def test_a_small_job_comes_back_whole(hosts: int, gpus: int) -> None:
    told = job(hosts, gpus)
    text = encode(told)
    assert len(text) <= LONGEST
    content = decode(text)
    assert content.is_whole
    again = told_by(content, JobReport(HEADER, (), (), (), ()))
    for part in ("nodes", "summary", "outliers", "bounds"):
        assert close(
            msgspec.to_builtins(getattr(again, part)), msgspec.to_builtins(getattr(told, part))
        ), part
    assert [(each.id, each.places) for each in again.findings] == [
        (each.id, each.places) for each in told.findings
    ]


def test_a_comment_stands_what_sacctmgr_does_to_it() -> None:
    text = encode(job(1, 1))
    assert text == text.lower()
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789:")
    assert decode(f" {text}\n") == decode(text)


@pytest.mark.parametrize(("hosts", "gpus"), [(8, 8), (64, 4), (1000, 4)])
def test_a_large_job_fits_and_keeps_its_lines_over_all_hosts(hosts: int, gpus: int) -> None:
    told = job(hosts, gpus)
    text = encode(told)
    assert len(text) <= LONGEST
    content = decode(text)
    assert not content.is_whole
    assert content.hosts == hosts
    again = told_by(content, JobReport(HEADER, (), (), (), ()))
    assert close(msgspec.to_builtins(again.summary), msgspec.to_builtins(told.summary))
    assert close(msgspec.to_builtins(again.bounds), msgspec.to_builtins(told.bounds))
    assert again.findings != []
    for kept in again.findings:
        assert kept.id in {finding.id for finding in told.findings}


def test_the_strangest_host_of_a_large_job_is_kept() -> None:
    chance = random.Random(2)
    alike = usage(NODE_LINES[0], chance)
    calm = [
        msgspec.structs.replace(node(number, 0, chance), usage=[alike]) for number in range(300)
    ]
    idle = msgspec.structs.replace(alike, mean=0.001 if (alike.mean or 0) > 0.5 else 0.999)
    calm[217] = msgspec.structs.replace(calm[217], usage=[idle])
    content = decode(encode(report(calm)))
    assert content.nodes[0].host == calm[217].host
    assert content.outliers[0].host == calm[217].host
    assert content.hosts == 300


def test_the_longest_phases_are_kept() -> None:
    phases = [phase(number, seconds=float(number)) for number in range(500)]
    content = decode(encode(report(job(1, 0).nodes, phases)))
    kept = [each.phase for each in content.phases]
    assert kept[:2] == ["phase 499", "phase 498"]
    assert len(kept) >= 8
    assert content.phases[0].memory_ratio == pytest.approx(0.98765, rel=1e-3)


texts = st.text(max_size=300)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hosts=st.integers(1, 12),
    gpus=st.integers(0, 9),
    name=texts,
    words=texts,
    seed=st.integers(0, 1000),
)
def test_any_job_fits(hosts: int, gpus: int, name: str, words: str, seed: int) -> None:
    """Hosts, phases and findings with any names; those that no tag can hold are escaped by JSON."""
    chance = random.Random(seed)
    nodes = [
        msgspec.structs.replace(node(number, gpus, chance), host=f"{name[:64]}{number}")
        for number in range(hosts)
    ]
    phases = [
        msgspec.structs.replace(phase(number, 1.0), phase=f"{words}{chance.random()}")
        for number in range(50)
    ]
    told = report(nodes, phases)
    shouted = [Finding(f"rule-{number}", "hint", words, name) for number in range(30)]
    told = msgspec.structs.replace(told, findings=[*told.findings, *shouted])
    text = encode(told)
    assert len(text) <= LONGEST
    assert decode(text).hosts == hosts


def packed(content: bytes) -> str:
    return f"{VERSION}:{base64.b32encode(zlib.compress(content)).decode().rstrip('=').lower()}"


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("", "not ours"),
        ("JS1:H4sIAAAAAAAA", "not ours"),
        ("ticket 42", "not ours"),
        ("rooflight2:abc", "version rooflight2"),
        (f"{VERSION}:", "damaged"),
        (f"{VERSION}:forged", "damaged"),
        (f"{VERSION}:!!!!", "damaged"),
        (encode(job(1, 0))[:-40], "damaged"),
        (encode(job(1, 0))[:200], "damaged"),
        (packed(b"7"), "damaged"),
        (packed(b"{}"), "damaged"),
        (packed(b'{"hosts":1,"nodes":[{"=":[1]}]}'), "damaged"),
        (packed(b'{"hosts":1,"nodes":{"=":{"host":["a"],"usage":[1,2]}}}'), "damaged"),
        (packed(b'{"hosts":1,"bounds":{"compute":"much"}}'), "damaged"),
        (packed(b'{"hosts":1}' + b" " * 2 * LARGEST), "damaged"),
        (packed(b"[" * 100_000), "damaged"),
    ],
)
def test_what_is_no_comment_says_why(comment: str, words: str) -> None:
    with pytest.raises(NotAComment, match=words):
        decode(comment)


def test_what_a_later_version_adds_is_left_out() -> None:
    assert decode(packed(b'{"hosts":3,"weather":"fine"}')) == Content(3)

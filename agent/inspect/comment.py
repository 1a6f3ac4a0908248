"""A report in the 4 kB of a comment, which Slurm keeps with the job (AdminComment).

Written at the job's end and read back where the store is not at hand. A comment is a version, a
colon, and base32 of zlib's compression of JSON: sacctmgr of Slurm 22.05 turns capital letters into
small ones and double quotes into others, so that base64 or plain JSON would not come back.

A job of one or a few hosts is kept whole. A larger one is kept as its lines over all hosts, what
was found, and some hosts with their main lines, those first that are unlike the others; the more
there is, the fewer of them. Numbers have four digits.
"""

import base64
import binascii
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from agent.inspect.findings import find
from agent.inspect.model import Finding, JobReport, Node, Outlier, Phase, Summary
from agent.inspect.outliers import outliers
from agent.inspect.summary import bound_seconds, summarize, what

OURS = "rooflight"
VERSION = f"{OURS}1"
LONGEST = 4000
"""Characters of a comment."""

LARGEST = 1 << 20
"""Bytes that a comment may unpack to: an administrator may have put anything there."""

DIGITS = 4
MOST_PLACES = 4
LONGEST_TEXT = 300
_DAMAGE = (binascii.Error, zlib.error, AttributeError, RecursionError, TypeError, ValueError)
"""What reading something else than a comment can raise."""

COLUMNS = "="
"""The key of a list of objects: each of their keys stands there once, with the values of all."""


class NotAComment(Exception):
    """It is no comment of ours, or cannot be read; the message says why."""


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a comment holds.

    Attributes:
        hosts: how many hosts there were; if all are in `nodes` with all their lines, the rest but
            for `phases` is not kept, because it follows from them.

    """

    hosts: int
    nodes: Sequence[Node] = ()
    phases: Sequence[Phase] = ()
    summary: Sequence[Summary] = ()
    outliers: Sequence[Outlier] = ()
    findings: Sequence[Finding] = ()
    bounds: Mapping[str, float] = {}

    @property
    def is_whole(self) -> bool:
        """Tell whether this is the whole job."""
        return len(self.nodes) == self.hosts and not self.summary


class _Limits(NamedTuple):
    """How many of each are kept of a job that cannot be kept whole."""

    nodes: int
    findings: int
    outliers: int
    phases: int
    summary: int = 1000


_LIMITS = (
    _Limits(16, 16, 32, 16),
    _Limits(8, 12, 16, 8),
    _Limits(4, 8, 8, 8),
    _Limits(2, 8, 8, 4),
    _Limits(2, 4, 4, 2),
    _Limits(1, 8, 8, 4),
    _Limits(1, 4, 4, 2),
    _Limits(0, 8, 8, 4),
    _Limits(0, 4, 4, 2),
    _Limits(0, 2, 2, 0),
    _Limits(0, 4, 2, 0, 60),
    _Limits(0, 2, 0, 0, 30),
    _Limits(0, 0, 0, 0, 10),
    _Limits(0, 0, 0, 0, 0),
)

MOST_WHOLE = 32
"""Hosts; more cannot fit, and need not be tried."""

MAIN_LINES = frozenset({"cpu", "cpu time", "memory", "node cpu others", "node power"})
MAIN_GPU_LINES = frozenset({"gpu utilization", "gpu memory", "gpu power", "gpu energy"})


def encode(report: JobReport) -> str:
    """Return the comment on a job that has ended: at most LONGEST characters."""
    return next(text for text in map(_text, _contents(report)) if len(text) <= LONGEST)


def decode(comment: str) -> Content:
    """Return what a comment tells.

    Raises:
        NotAComment: it is none of ours, of another version, or damaged.

    """
    version, _, packed = comment.strip().partition(":")
    if version != VERSION:
        known = version.startswith(OURS)
        raise NotAComment(f"it is of version {version[:20]}" if known else "it is not ours")
    try:
        text = _unpacked(base64.b32decode(packed.upper() + "=" * (-len(packed) % 8)))
        return msgspec.convert(_from_columns(msgspec.json.decode(text)), Content)
    except (*_DAMAGE, msgspec.DecodeError) as error:
        raise NotAComment(f"it is damaged: {error}") from error


def told_by(content: Content, report: JobReport) -> JobReport:
    """Return a report, with its header from elsewhere, with all that a comment tells."""
    nodes = content.nodes
    told = msgspec.structs.replace(
        report,
        nodes=nodes,
        phases=content.phases,
        summary=summarize(nodes) if content.is_whole else content.summary,
        outliers=outliers(nodes) if content.is_whole else content.outliers,
        bounds=bound_seconds(nodes) if content.is_whole else content.bounds,
    )
    found = find(told) if content.is_whole else content.findings
    return msgspec.structs.replace(told, findings=found)


def _contents(report: JobReport) -> Iterator[Content]:
    """Yield what a comment may hold, the fullest first; the last holds one number."""
    count = len(report.nodes)
    longest = sorted(report.phases, key=attrgetter("duration_seconds"), reverse=True)
    phases = [msgspec.structs.replace(phase, explanation="") for phase in longest]
    if count <= MOST_WHOLE:
        yield Content(count, report.nodes, phases[: _LIMITS[0].phases])
    strange = Counter(outlier.host for outlier in report.outliers)
    ranked = sorted(report.nodes, key=lambda node: -strange[node.host])
    for limits in _LIMITS:
        yield Content(
            count,
            [_main_lines(node) for node in ranked[: limits.nodes]],
            phases[: limits.phases],
            report.summary[: limits.summary],
            report.outliers[: limits.outliers],
            [_brief(finding) for finding in report.findings[: limits.findings]],
            report.bounds if limits.summary else {},
        )


def _brief(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, places=finding.places[:MOST_PLACES])


def _main_lines(node: Node) -> Node:
    usage = [line for line in node.usage if what(line) in MAIN_LINES | MAIN_GPU_LINES]
    return msgspec.structs.replace(node, usage=usage)


def _text(content: Content) -> str:
    encoded = msgspec.json.encode(_columns(msgspec.to_builtins(content)))
    return f"{VERSION}:{base64.b32encode(zlib.compress(encoded, 9)).decode().rstrip('=').lower()}"


def _unpacked(packed: bytes) -> bytes:
    """Undo the compression.

    Raises:
        ValueError: something is missing, or it is larger than any of ours.

    """
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(packed, LARGEST)
    if not unpacking.eof:
        raise ValueError("it is cut off, or too large")
    return text


def _columns(value: Any) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """Return short numbers and texts, and lists of objects as columns."""
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, str):
        return value[:LONGEST_TEXT]
    if isinstance(value, dict):
        return {name: _columns(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        if not value or not isinstance(value[0], dict):
            return [_columns(each) for each in value]
        names = dict.fromkeys(name for each in value for name in each)
        return {COLUMNS: {name: [_columns(each.get(name)) for each in value] for name in names}}
    return value


def _from_columns(value: Any) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """Undo `_columns`: what a column has no value of is absent."""
    if isinstance(value, list):
        return [_from_columns(each) for each in value]
    if not isinstance(value, dict):
        return value
    if COLUMNS not in value:
        return {name: _from_columns(each) for name, each in value.items()}
    columns = {name: map(_from_columns, column) for name, column in value[COLUMNS].items()}
    rows = zip(*columns.values(), strict=True)
    return [
        {name: each for name, each in zip(columns, row, strict=True) if each is not None}
        for row in rows
    ]

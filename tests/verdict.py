"""What a stage of the tests said: read from its exit code and from pytest's own words."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUMMARY = re.compile(r"^(?:=+ )?((?:\d+ \w+, )*\d+ \w+) in \d+\.\d+s", re.MULTILINE)
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.*)$", re.MULTILINE)
SKIPPED = re.compile(r"^SKIPPED (.*)$", re.MULTILINE)
DURATION = re.compile(r"^(\d+\.\d+)s (setup|call|teardown) +(\S+)", re.MULTILINE)
WORDS = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning", "error")
"""In pytest's own order. It writes `warnings` and `errors` where there are several."""

MOST_TESTS = 5
"""How many of them a command names one by one; of more it names the files."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Verdict:
    """What became of a stage.

    Attributes:
        failures: pytest's lines on what failed, `path::test - reason`.
        skipped: pytest's lines on what was left out.
        counts: number of tests by pytest's word.
        durations: seconds, `setup`, `call` or `teardown`, and test.
        left: commands that still ran when the stage had ended.

    """

    name: str
    command: Sequence[str]
    code: int
    seconds: float
    counts: Mapping[str, int]
    failures: Sequence[str]
    skipped: Sequence[str]
    durations: Sequence[tuple[float, str, str]]
    left: Sequence[str]

    @property
    def red(self) -> bool:
        """Whether anything is wrong."""
        return self.code != 0 or bool(self.left)

    def line(self) -> str:
        """Return one line: name, colour, time, counts."""
        colour = "RED" if self.red else "green"
        counts = ", ".join(counted(self.counts))
        return f"{self.name:10} {colour:5} {self.seconds:5.0f} s  {counts}".rstrip()

    def reasons(self) -> Iterator[str]:
        """Yield a line for each thing that is wrong."""
        yield from self.failures
        if self.code != 0 and not self.failures:
            yield f"{shlex.join(self.command)} ended with exit code {self.code}"
        for command in self.left:
            yield f"left running: {command}"

    def again(self) -> str:
        """Return the command that runs what failed, and only that, once more."""
        tests = [failure.partition(" - ")[0] for failure in self.failures]
        if not tests:
            return shlex.join(self.command)
        if len(tests) > MOST_TESTS:
            tests = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        return shlex.join([".venv/bin/python", "-m", "pytest", *tests])


def read(
    name: str, command: Sequence[str], code: int, seconds: float, log: str, left: Sequence[str]
) -> Verdict:
    """Read what a stage printed."""
    text = COLOUR.sub("", log)
    durations = [(float(time), when, test) for time, when, test in DURATION.findall(text)]
    failures, skipped = FAILED.findall(text), SKIPPED.findall(text)
    return Verdict(
        name, command, code, seconds, counts_in(text), failures, skipped, durations, left
    )


def counts_in(text: str) -> dict[str, int]:
    """Return the numbers of pytest's last closing line; empty where there is none."""
    found = SUMMARY.findall(text)
    pairs = [part.split() for part in found[-1].split(", ")] if found else []
    singular = {"errors": "error", "warnings": "warning"}
    return {singular.get(word, word): int(number) for number, word in pairs}


def counted(counts: Mapping[str, int]) -> list[str]:
    """Return `2 failed`, `3 passed` and so on, in pytest's order."""
    many = ("warning", "error")
    return [
        f"{counts[word]} {word}{'s' if word in many and counts[word] != 1 else ''}"
        for word in WORDS
        if counts.get(word)
    ]


def slowest(verdicts: Sequence[Verdict], number: int) -> list[str]:
    """Return lines on the slowest tests of all stages."""
    durations = [each for verdict in verdicts for each in verdict.durations]
    return [
        f"{seconds:6.1f} s  {when:8} {test}"
        for seconds, when, test in sorted(durations, reverse=True)[:number]
    ]


def closing_line(verdicts: Sequence[Verdict], seconds: float) -> str:
    """Return pytest's closing line for all stages; a red stage of another kind is an error."""
    total: Counter[str] = Counter()
    for verdict in verdicts:
        total.update(verdict.counts)
        if verdict.red and not verdict.failures:
            total["error"] += 1
    del total["deselected"]  # they run in another stage
    words = ", ".join(counted(total)) or "no tests ran"
    return f" {words} in {seconds:.2f}s ".center(80, "=")


def text_of(file: Path) -> str:
    """Return what a stage has printed so far."""
    return file.read_text(encoding="utf-8", errors="replace")

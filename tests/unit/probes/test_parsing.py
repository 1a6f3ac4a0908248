from pathlib import Path

import pytest

from probes.parsing import (
    ONE_RECORD,
    KeptFile,
    counters,
    lines_of,
    number,
    read_number,
    read_text,
    whole_lines,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        (" 42\n", 42.0),
        (b"1.25", 1.25),
        (str(2**64 - 1), 2.0**64),
        ("1" + "0" * 400, None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1_000", None),
        ("٣", None),
        (b"\xff", None),
        ("", None),
        ("12 kB", None),
        ("0x10", None),
    ],
)
def test_number_takes_only_what_the_kernel_writes(text: str | bytes, value: float | None) -> None:
    assert number(text) == value


def test_number_is_refused_above_its_bound() -> None:
    assert number("100", most=100.0) == 100.0
    assert number("100.01", most=100.0) is None


def test_counters_are_all_or_nothing() -> None:
    assert counters([b"1", b"22", b"0"]) == [1.0, 22.0, 0.0]
    assert counters([b"1", b"-2"]) is None
    assert counters([b"1", b"1_0"]) is None
    assert counters([b"1", b"9" * 400]) is None
    assert counters([]) is None


def test_a_line_that_was_cut_off_is_left_out() -> None:
    assert whole_lines(b"one 1\ntwo 2\nthr") == [b"one 1", b"two 2"]
    assert whole_lines(b"") == []


def test_files_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff7")
    assert read_text(tmp_path / "absent") is None
    assert read_text(tmp_path) is None
    assert read_text(tmp_path / "binary") == "\ufffd7"
    assert read_number(tmp_path / "binary") is None
    assert read_number(tmp_path / "absent") is None


def test_kept_file_gives_the_content_of_now(tmp_path: Path) -> None:
    file = KeptFile(tmp_path / "counter")
    with pytest.raises(FileNotFoundError):
        file.read()
    file.path.write_text("1\n")
    assert file.read() == b"1\n"
    file.path.write_text("22\n")
    assert file.read() == b"22\n"
    file.path.write_bytes(b"x" * 200_000)
    assert file.read() == b"x" * 200_000
    file.close()
    file.close()
    assert file.read() == b"x" * 200_000
    file.close()


def test_kept_file_of_the_kernel_is_read_whole() -> None:
    """Procfs gives a file of many records a page at a time."""
    smaps = KeptFile(Path("/proc/self/smaps"))
    content = smaps.read()
    smaps.close()
    assert len(content) > 4096
    assert content.endswith(b"\n")


@pytest.mark.parametrize(
    ("file", "whole_below"),
    [
        ("/proc/kallsyms", lines_of(512)),  # megabytes of short lines
        ("/proc/vmstat", lines_of(80)),
        ("/proc/filesystems", lines_of(256)),
        ("/proc/self/limits", ONE_RECORD),
        ("/proc/cpuinfo", 1),
    ],
)
def test_kept_file_knows_when_a_file_of_the_kernel_is_whole(file: str, whole_below: int) -> None:
    kept = KeptFile(Path(file), whole_below)
    names = [line.split()[:1] for line in kept.read().splitlines()]
    kept.close()
    assert names == [line.split()[:1] for line in Path(file).read_bytes().splitlines()]

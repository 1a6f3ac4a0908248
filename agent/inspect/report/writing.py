"""Ask for what happened when, and write the page."""

import os
from operator import attrgetter
from pathlib import Path

import msgspec

from agent.inspect.ask import Asked
from agent.inspect.report.page import page
from agent.inspect.series import Timelines, timelines
from agent.stores.store import Store


def write_page(file: Path, store: Store, asked: Asked, now_ms: int) -> int:
    """Write the report as a page, all of it or nothing; return its size in bytes.

    Raises:
        OSError: the file cannot be written.

    """
    nodes = sorted(asked.report.nodes, key=attrgetter("name"))
    report = msgspec.structs.replace(asked.report, nodes=nodes)
    drawn = Timelines() if asked.store_words else timelines(store, report, now_ms)
    content = page(report, drawn, now_ms, asked.store_words).encode()
    _replace(file, content)
    return len(content)


def _replace(file: Path, content: bytes) -> None:
    """Write a file so that who reads it at any moment sees the old one or the new one."""
    if file.exists() and not file.is_file():  # a pipe or a terminal
        file.write_bytes(content)
        return
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise

"""Run the view: live on a terminal, or one frame on anything else."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable

import click

from agent.command import NOT_FOUND, UNREACHABLE, Config, Fault
from agent.inspect.collect import JobNotFound
from agent.stores.opening import open_for_asker
from agent.top.feed import FIRST_SECONDS, Feed
from agent.top.here import Here
from agent.top.job import Job
from agent.top.keys import State
from agent.top.live import Live
from agent.top.model import Source
from agent.top.screen import print_lines
from agent.top.terminal import USUAL_SIZE, Terminal, encode, styles
from probes.roots import Roots

NODE_SECONDS, JOB_SECONDS = 1.0, 5.0

PRINTED, SHOWN = 15.0, 2.0
"""Seconds that a driver may take to start: a frame that is printed has no second chance."""


def run_top(config: Config, jobid: str, *, once: bool, interval: float | None) -> None:
    """Show this node, or a job if one is named, until the user quits.

    Raises:
        Fault: there is no such job, it is several, or the store does not answer a single frame.
        SettingsError: the store's settings are wrong.

    """
    chosen = interval or (JOB_SECONDS if jobid else NODE_SECONDS)
    state = State("name" if jobid else "cpu", interval=chosen)
    try:
        if once or not is_screen():
            print_once(opener(config, jobid, PRINTED)(), state, looks=1 if jobid else 2)
        else:
            show(opener(config, jobid, SHOWN), state)
    except JobNotFound as words:
        raise Fault(str(words), NOT_FOUND) from words
    except KeyboardInterrupt:
        sys.exit(0)


def opener(config: Config, jobid: str, patience: float) -> Callable[[], Source]:
    """Return what opens the source of looks; `patience` is that with this node's drivers."""
    if jobid:
        return lambda: Job(config, jobid, open_for_asker(config))
    return lambda: Here(config, Roots(), patience)


def is_screen() -> bool:
    """Tell whether there is a terminal that can be painted on, with somebody at its keys."""
    both = sys.stdin.isatty() and sys.stdout.isatty()
    return both and os.environ.get("TERM", "dumb") != "dumb"


def has_colour() -> bool:
    """Tell whether colours are wanted (https://no-color.org)."""
    return is_screen() and not os.environ.get("NO_COLOR")


def print_once(source: Source, state: State, looks: int) -> None:
    """Print one frame; of several looks the last, for rates need two.

    Raises:
        Fault: the store does not answer.

    """
    try:
        frame = source.read()
        for _ in range(looks - 1):
            time.sleep(min(FIRST_SECONDS, state.interval))
            frame = source.read()
    finally:
        source.close()
    if frame.trouble and not frame.hosts:
        raise Fault(frame.trouble, UNREACHABLE)
    width = shutil.get_terminal_size(USUAL_SIZE).columns
    codes = styles(colour=has_colour()) if is_screen() else {}
    encoding = sys.stdout.encoding
    for each in print_lines(frame, state, width):
        text = encode(each, codes).rstrip()
        click.echo(text.encode(encoding, errors="replace").decode(encoding))


def show(open_source: Callable[[], Source], state: State) -> None:
    """Show looks on this terminal until the user quits; raises what the source raised."""
    logging.getLogger("rooflight").setLevel(logging.CRITICAL)  # the screen itself tells of it
    keys, screen = sys.stdin.fileno(), sys.stdout.fileno()
    terminal = Terminal(keys, screen, colour=has_colour(), encoding=sys.stdout.encoding)
    with terminal, Feed(open_source, state.interval) as feed:
        Live(feed, terminal, keys, state).run()

"""`rooflight top` on a real pseudo-terminal: what stands on the screen, and what it leaves."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.stores.local import LocalStore
from agent.stores.store import Select, StoreUnreachable
from tests.integration.commands import BIN, Site
from tests.integration.pseudo_terminal import Glass, PseudoTerminal
from tests.integration.services import Service
from tests.integration.test_influx_job import influx_site
from tests.nvml.build import TRACES, environment
from tests.weather import PATIENCE

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31mevil"
TOP = (str(BIN / "rooflight"), "top")
COLOUR = re.compile(r"(^|;)(3|4|9)[0-7]($|;)")


def on_terminal(site: Site, *arguments: str, columns: int = 80, lines: int = 24) -> PseudoTerminal:
    variables = {name: value for name, value in site.variables().items() if name != "NO_COLOR"}
    return PseudoTerminal([*TOP, *arguments], variables, columns, lines)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site without a GPU, whatever this machine has."""
    return Site(tmp_path, text='[probes]\ndisabled = ["gpu"]\n')


@pytest.fixture
def holder() -> Iterator[int]:
    """A process with a hostile command line."""
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()", HOSTILE]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


def with_gpus(folder: Path, trace: Path, **settings: str) -> Site:
    return Site(folder, environment=environment(trace, None, loop="1", **settings))


def eight_gpus(folder: Path) -> Path:
    """Return a trace of eight GPUs that all do what the first one of two does."""
    lines = (TRACES / "two_h100.csv").read_text().splitlines()
    device = next(line for line in lines if line.startswith("# device 0 "))
    header, *rows = [line for line in lines if not line.startswith("#")]
    first = [line.split(",") for line in rows if line.split(",")[1] == "0"]
    devices = [
        re.sub(r"device 0 uuid=\S+", f"device {index} uuid=GPU-{index}", device)
        for index in range(8)
    ]
    copies = [",".join([time, str(index), *rest]) for time, _, *rest in first for index in range(8)]
    trace = folder / "eight.csv"
    trace.write_text("\n".join([*devices, header, *copies]) + "\n")
    return trace


def row(screen: str, beginning: str) -> str:
    return next(line for line in screen.splitlines() if line.startswith(beginning))


def first_process(screen: str) -> str:
    lines = screen.splitlines()
    return lines[next(number for number, line in enumerate(lines) if "COMMAND" in line) + 1]


def quit_well(terminal: PseudoTerminal) -> None:
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert terminal.is_as_found()


@pytest.mark.parametrize(
    "sent", ["\x07", "\x1b]0;title\x07", "\x1b[31;1H\x1b[K", "\x1b[6n", "\x9b31m", "\n", "x" * 81]
)
def test_the_screen_of_these_tests_refuses_what_top_must_not_send(sent: str) -> None:
    glass = Glass(80, 24)
    glass.feed("\x1b[?1049h\x1b[2J")
    with pytest.raises(AssertionError):
        glass.feed(sent)


@pytest.mark.cc
def test_keys_and_sizes_of_a_node_with_gpus(tmp_path: Path, holder: int) -> None:
    site = with_gpus(tmp_path, TRACES / "two_h100.csv", pids=f"0:{holder} 1:{holder}")
    with on_terminal(site) as terminal:
        screen = terminal.wait_for(lambda text: re.search(r"compute +C$", text, re.MULTILINE))
        assert "node1   2 x H100 80GB HBM3" in screen
        assert "60.0/79.6G" in row(screen, "   0 ")
        assert re.search(r"72/700W\] +31C idle ", row(screen, "   1 "))
        modes = terminal.glass.modes
        assert (modes["other"], modes["cursor"], modes["wrap"]) == (True, False, False)
        assert any(map(COLOUR.search, terminal.glass.styles))

        terminal.press("G")
        first = first_process(terminal.wait_for("*GPU "))
        assert first.split()[0] == str(holder)
        assert " 0-1 " in first

        for key, shown in (
            ("M", "*MEMORY"),
            ("T", "*TIME"),
            ("N", "*PID"),
            ("P", "*CPU%"),
            ("\x1b[17~", "*MEMORY"),
            ("h", "any other key goes back"),
            ("x", "*MEMORY"),
            ("\x1bOP", "any other key goes back"),
            ("\x1b", "*MEMORY"),
            (" ", "PAUSED"),
            (" ", "every 1s"),
            ("+", "every 2s"),
            ("-", "every 1s"),
        ):
            terminal.press(key)
            terminal.wait_for(shown)

        terminal.press("\x1b[B\x1b[6~")
        terminal.wait_for(lambda text: re.search(r" ([2-9]|\d\d+)-\d+ of \d+$", text))
        terminal.press("\x1b[H")
        terminal.wait_for(lambda text: re.search(r" 1-\d+ of \d+$", text))

        terminal.resize(140, 40)
        screen = terminal.wait_for("clock last 5 min")
        assert "1.62GHz" in screen or "1.98GHz" in screen
        terminal.resize(60, 12)
        terminal.wait_for(lambda text: "clock" not in text and "utilization" in text)
        terminal.resize(80, 24)
        terminal.wait_for(lambda text: "COMMAND" in text and "clock" not in text)
        quit_well(terminal)
    assert [path.name for path in tmp_path.iterdir()] == ["rooflight.toml"]  # nothing is written


@pytest.mark.cc
def test_eight_gpus_and_their_processes_fit_on_the_smallest_terminal(tmp_path: Path) -> None:
    site = with_gpus(tmp_path, eight_gpus(tmp_path))
    with on_terminal(site) as terminal:
        screen = terminal.wait_for(lambda text: text.count("60.0/79.6G") == 8)
        assert "8 x H100 80GB HBM3" in screen
        heading = next(line for line in screen.splitlines() if "COMMAND" in line)
        assert len(screen.splitlines()) - screen.splitlines().index(heading) > 4
        quit_well(terminal)


@pytest.mark.cc
def test_a_driver_that_hangs_stops_neither_keys_nor_the_rest(tmp_path: Path) -> None:
    trace = TRACES / "two_h100.csv"
    site = Site(
        tmp_path,
        agent="deadline_seconds = 0.1",
        environment=environment(trace, hang="nvmlDeviceGetPowerUsage"),
    )
    with on_terminal(site) as terminal:
        screen = terminal.wait_for("!! probe gpu hangs")
        assert "memory  [" in screen
        terminal.press("h")
        terminal.wait_for("any other key goes back")
        quit_well(terminal)


def test_a_node_without_a_gpu(site: Site) -> None:
    with on_terminal(site) as terminal:
        screen = terminal.wait_for(lambda text: re.search(r"cpu +\[\|* *\d+%\]", text))
        assert "GPU utilization" not in screen
        assert "COMMAND" in screen
        quit_well(terminal)


def ends_by_key(key: str) -> Callable[[PseudoTerminal], None]:
    return lambda terminal: terminal.press(key)


def ends_by(number: signal.Signals) -> Callable[[PseudoTerminal], None]:
    return lambda terminal: terminal.signal(number)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(ends_by_key("\x1b[21~"), 0, id="F10"),
        pytest.param(ends_by_key("\x03"), 0, id="Ctrl-C"),
        pytest.param(ends_by(signal.SIGTERM), 128 + signal.SIGTERM, id="SIGTERM"),
        pytest.param(ends_by(signal.SIGHUP), 128 + signal.SIGHUP, id="SIGHUP"),
    ],
)
def test_whatever_ends_it_the_terminal_is_as_it_was(
    site: Site, end: Callable[[PseudoTerminal], None], code: int
) -> None:
    with on_terminal(site) as terminal:
        terminal.wait_for("COMMAND")
        end(terminal)
        assert terminal.wait_for_end() == code
        assert terminal.is_as_found()
        assert b"Traceback" not in terminal.sent


def test_an_error_is_told_after_the_terminal_is_given_back(site: Site) -> None:
    LocalStore(site.folder / "state" / "rooflight.db", 1.0).prepare()
    with on_terminal(site, "4711") as terminal:
        assert terminal.wait_for_end() == 1
        assert terminal.is_as_found()
        told = terminal.sent.rpartition(b"\x1b[?1049l")[2].decode()
    assert told.startswith("rooflight: no job 4711 of cluster test")
    assert told.count("\n") == 1


def test_stopped_by_a_shell_it_gives_the_terminal_back_and_takes_it_again(site: Site) -> None:
    script = f"set -m; {' '.join(TOP)}; echo was stopped; read -r; fg; echo has ended"
    command = ["bash", "-c", script]
    with PseudoTerminal(command, site.variables()) as terminal:
        terminal.wait_for("COMMAND")
        terminal.press("\x1a")
        terminal.wait_for(lambda text: b"was stopped" in terminal.sent)
        assert terminal.is_as_found()
        terminal.press("\r")
        terminal.wait_for(lambda text: terminal.glass.taken >= 2 and "COMMAND" in text)
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        assert b"has ended" in terminal.sent


def test_without_a_terminal_one_frame_is_printed(site: Site) -> None:
    done = site.complete("rooflight", "top")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(" node1 ")
    assert "COMMAND" in done.stdout
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("TERM", "xterm")])
def test_one_frame_on_a_dumb_terminal_or_when_asked(
    tmp_path: Path, variable: str, value: str
) -> None:
    site = Site(
        tmp_path,
        text='[probes]\ndisabled = ["gpu"]\n',
        environment={variable: value, "COLUMNS": "100"},
    )
    with on_terminal(site, *(["--once"] if value != "dumb" else [])) as terminal:
        assert terminal.wait_for_end() == 0
        assert terminal.glass.taken == 0
        assert b"COMMAND" in terminal.sent
        assert (b"\x1b" in terminal.sent) == (value != "dumb")


def test_no_color_leaves_no_colour(tmp_path: Path) -> None:
    site = Site(tmp_path, text='[probes]\ndisabled = ["gpu"]\n')
    variables = {**site.variables(), "NO_COLOR": "1"}
    with PseudoTerminal(TOP, variables) as terminal:
        terminal.wait_for("COMMAND")
        quit_well(terminal)
    assert terminal.glass.styles
    assert not any(map(COLOUR.search, terminal.glass.styles))


def test_a_terminal_that_knows_only_ascii_gets_no_more(tmp_path: Path) -> None:
    name = "trän-日本"
    site = Site(tmp_path)
    site.call("rooflight", "run", "--interval", "0.1", "--name", name, "--quiet", "--", "true")
    # the commands heed the locale alone, and one that is ASCII without UTF-8 is had nowhere
    done = subprocess.run(
        [sys.executable, BIN / "rooflight", "top", "last"],
        env={**site.variables(), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.fixture
def running_job(tmp_path: Path) -> Iterator[Site]:
    """A site with a job that runs, has two GPUs, and tells of both of them."""
    site = with_gpus(tmp_path, TRACES / "two_h100.csv")
    words = ("--interval", "0.2", "--name", HOSTILE, "--quiet", "--", "sleep", "600")
    file = site.folder / "state" / "rooflight.db"
    with site.start("rooflight", "run", *words) as process:
        deadline = time.monotonic() + PATIENCE
        while not (file.exists() and {"compute", "idle"} <= bounds_in(file)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield site
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


def bounds_in(file: Path) -> set[str]:
    store = LocalStore.read_only(file)
    try:
        return {str(each.get("bound")) for each in store.rows(Select("bound", {}))}
    except StoreUnreachable:  # its tables are being made
        return set()
    finally:
        store.close()


@pytest.mark.cc
def test_a_running_job_through_the_embedded_store(running_job: Site) -> None:
    with on_terminal(running_job, "last", "--interval", "0.5", columns=120) as terminal:
        screen = terminal.wait_for(lambda text: re.search(r"idle .* \.+$", text, re.MULTILINE))
        assert re.search(r"RUNNING .* 1 node .* \\x1b\[2J", screen)
        assert row(screen, "node1").count("[") == 2
        assert re.search(r"(690|410)/700W", row(screen, "   0 "))
        assert "72/700W" in row(screen, "   1 ")
        terminal.press("g")
        terminal.wait_for(lambda text: "/700W" not in text)
        quit_well(terminal)


@pytest.mark.influxd
def test_a_store_that_is_away_is_named_and_tried_again(
    tmp_path: Path, own_influxd: Service
) -> None:
    site = influx_site(tmp_path, own_influxd, "top", "interval_seconds = 0.2")
    site.call("rooflight", "run", "--interval", "0.1", "--quiet", "--", "sleep", "1")
    own_influxd.kill()
    once = site.complete("rooflight", "top", "last", "--once")
    assert once.returncode == 3
    assert once.stderr.startswith("rooflight: the store does not answer: ")
    assert once.stderr.count("\n") == 1
    with on_terminal(site, "last", "--interval", "0.2") as terminal:
        terminal.wait_for("!! the store does not answer")
        own_influxd.start()
        screen = terminal.wait_for(lambda text: re.search(r"^node1 +\[.*tmp", text, re.MULTILINE))
        assert "does not answer" not in screen
        assert "COMPLETED" in screen
        own_influxd.kill()
        screen = terminal.wait_for("!! the store does not answer")
        assert re.search(r"^node1 +\[", screen, re.MULTILINE)  # the last look stays
        quit_well(terminal)


def test_help_and_options_need_no_terminal_and_no_library(site: Site) -> None:
    assert "Watch this node live" in site.call("rooflight", "top", "--help")
    code = (
        "import sys; from agent.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'rich', 'psutil', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_a_wrong_option_is_a_wrong_option(site: Site) -> None:
    done = site.complete("rooflight", "top", "--interval", "0")
    assert done.returncode == 2

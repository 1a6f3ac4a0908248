"""Whatever a store, Slurm or a user says: nothing of it commands a terminal."""

import json
import logging
import re
import unicodedata

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.command import Fault, log_to_stderr, one_line_errors
from agent.inspect.cli import report_json
from agent.inspect.report.page import page
from agent.inspect.text import render
from agent.printable import all_printable, printable, printable_json
from agent.stores.connection import Reply
from agent.stores.store import StoreRefused
from tests.unit.reports import END_MS, report, timelines, with_tasks

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07 \x9b31m \x7f \r\n\t "
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
    "\u200b\u2028\ufeff\U000e0041 \udcff name"
)
CODES = re.compile(r"\x1b\[(?:0|1|2|22|31|33|36)m")
"""What our own styles send."""

texts = st.text(st.sampled_from(HOSTILE) | st.characters())
relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def commands(text: str) -> set[str]:
    """Return what in a text a terminal would not show as itself."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@relaxed
@given(texts)
@example(HOSTILE)
def test_no_text_of_a_report_commands_a_terminal(text: str) -> None:
    for made in (report(text), with_tasks(text)):
        for width, per_node, color in ((80, False, False), (120, True, True)):
            shown = render(made, width, per_node=per_node, color=color)
            assert commands(CODES.sub("", shown)) <= {"\n"}


@relaxed
@given(texts)
@example(HOSTILE)
def test_the_json_of_a_report_commands_no_terminal_and_says_the_same(text: str) -> None:
    for made in (report(text), with_tasks(text)):
        encoded = report_json(made)
        assert commands(encoded) <= {"\n"}
        told = json.loads(encoded)["job"]
        if not re.search("[\ud800-\udfff]", text):
            assert (told["jobid"], told["user"]) == (made.job.jobid, made.job.user)


@relaxed
@given(texts)
@example(HOSTILE)
def test_the_page_of_a_report_turns_no_direction(text: str) -> None:
    shown = page(report(text), timelines(text), END_MS)
    assert commands(shown) <= {"\n"}
    shown.encode()


@given(texts)
@example(HOSTILE)
def test_what_is_printable_stays_and_what_is_not_is_written_out(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert all_printable(text) == printable(text)
    assert all_printable([{text: (text,)}]) == [{printable(text): (printable(text),)}]


@given(
    st.text(
        st.sampled_from(HOSTILE.replace("\udcff", "")) | st.characters(exclude_categories=["Cs"])
    )
)
def test_escaped_json_is_equal_after_it_was_read(text: str) -> None:
    for ascii_only in (True, False):
        plain = json.dumps({"text": text}, ensure_ascii=ascii_only, indent=1)
        assert json.loads(printable_json(plain)) == {"text": text}


def test_names_are_written_out_as_people_know_them() -> None:
    assert printable("a\x1b[2J\u202eb\x9b\udcff\n") == r"a\x1b[2J\u202eb\x9b\udcff\n"
    assert printable_json('"\u202e\x9b\x7f\U000e0041"') == r'"\u202e\u009b\u007f\udb40\udc41"'
    assert printable("Zoë 東京 \N{ROCKET}") == "Zoë 東京 \N{ROCKET}"


def test_a_clean_report_is_given_back_as_it_is() -> None:
    clean = report("a name")
    assert all_printable(clean) is clean
    assert all_printable(report("back\\nslash")) == report("back\\nslash")


@pytest.mark.parametrize("error", [Fault(HOSTILE, 3), StoreRefused(HOSTILE, keep=True)])
def test_words_of_an_error_command_no_terminal(error: Exception) -> None:
    @click.command()
    def command() -> None:
        with one_line_errors(debug=False):
            raise error

    done = CliRunner().invoke(command)
    assert done.exit_code == 3
    assert commands(done.output) == {"\n"}
    assert r"\x1b]0;owned\x07 \x9b31m" in done.output


def test_words_in_the_log_command_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    log_to_stderr()
    logging.getLogger("rooflight.test").warning("the store: %s", HOSTILE)
    assert commands(capsys.readouterr().err) == {"\n"}


@given(st.binary() | texts.map(lambda text: json.dumps({"error": text}).encode()))
def test_words_of_a_server_command_no_terminal(body: bytes) -> None:
    assert Reply(500, body).words().isprintable()

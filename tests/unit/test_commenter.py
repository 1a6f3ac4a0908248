"""When a job's comment is written, and when not: with a store and a folder that are real."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.config import Config
from agent.inspect.ask import Asked, inspect
from agent.inspect.comment import VERSION, decode
from agent.inspect.commenter import (
    LONGEST_WAIT_SECONDS,
    PATIENCE_SECONDS,
    UNSEEN_SECONDS,
    Commenter,
    _locked,
    run_commenter,
)
from agent.inspect.recall import recalled
from agent.lineprotocol import Point, encode
from agent.slurm.accounting import SlurmUnreachable
from agent.slurm.answers import SACCT_COLUMNS
from agent.slurm.comments import COLUMNS
from agent.stores.local import LocalStore
from agent.stores.opening import ClosedStore
from agent.stores.settings import SettingsError
from probes.catalogue import Database
from probes.sample import Value

START = 1_700_000_000
END = START + 100
CONFIG = Config(cluster="c")


@dataclass
class Record:
    """A run as slurmdbd has it."""

    jobid: str = "31"
    raw: str = "31"
    state: str = "COMPLETED"
    start: int = START
    end: int = END
    hosts: str = "n1,n2"
    comment: str = ""

    def column(self, name: str) -> str:
        shown = {
            "JobID": self.jobid,
            "JobIDRaw": self.raw,
            "State": self.state,
            "Start": str(self.start),
            "End": str(self.end) if self.end else "Unknown",
            "Submit": str(self.start - 1),
            "NodeList": self.hosts,
            "AllocCPUS": "2",
            "User": "alice",
            "ExitCode": "0:0",
            "AdminComment": self.comment,
        }
        return shown.get(name, "")


@dataclass
class Slurm:
    """Answers as sacct, squeue and sacctmgr do."""

    records: list[Record] = field(default_factory=lambda: [Record()])
    away_until: float = 0.0
    now: float = END + 5.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds + 0.001

    def ask(self, command: Sequence[str]) -> str:
        if self.now < self.away_until:
            raise SlurmUnreachable(f"{command[0]} does not answer")
        if command[0] == "squeue":
            return ""
        if command[0] == "sacctmgr":
            return self._modify(command)
        options = dict(word.split("=", 1) for word in command if "=" in word)
        names = SACCT_COLUMNS if "JobName" in options["--format"] else COLUMNS
        return "".join(
            options["--delimiter"].join([*map(record.column, names), "\n"])
            for record in self.records
        )

    def _modify(self, command: Sequence[str]) -> str:
        name = next(word for word in command if word.startswith("jobid=")).removeprefix("jobid=")
        text = next(word for word in command if word.startswith("AdminComment="))
        [record for record in self.records if record.jobid == name][-1].comment = text.removeprefix(
            "AdminComment="
        ).lower()
        return ""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty store: to make one takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("store") / "rooflight.db"
    with closing(LocalStore(path, 1e6)) as made:
        made.prepare()
    return path


@pytest.fixture
def store(tmp_path: Path, prepared: Path) -> Iterator[LocalStore]:
    with closing(LocalStore(Path(shutil.copy(prepared, tmp_path)), 1e6)) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ended"
    made.mkdir()
    return made


def put(store: LocalStore, host: str, *, final: bool = True, start: int = START) -> None:
    """Write what the agent of a host writes of job 31."""
    tags = tuple(sorted({"cluster": "c", "host": host, "jobid": "31"}.items()))
    job: dict[str, Value] = {"user": "alice", "source": "slurm", "state": "RUNNING", "hosts": host}
    if final:
        job |= {"state": "COMPLETED", "end_epoch_milliseconds": END * 1000.0}
    footprint: dict[str, Value] = {
        "elapsed_seconds": 100.0,
        "samples_total": 12.0,
        "samples_expected_total": 12.0,
        "updated_epoch_milliseconds": END * 1000.0,
        "final_state": float(final),
        "cpu_seconds": 33.25,
        "cpu_utilization_mean_ratio": 0.3325,
        "cpus_total": 1.0,
    }
    for measurement, fields in (("job", job), ("job_footprint", footprint)):
        point = Point(measurement, tags, fields, start * 1000)
        store.write(Database.JOBS, f"{encode(point)}\n".encode())


def end(folder: Path, name: str = "1-31", **changes: str) -> Path:
    said = {
        "jobid": "31",
        "array": "",
        "task": "",
        "het": "",
        "offset": "",
        "hosts": "2",
        "end_seconds": str(END),
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps({**said, **changes}))
    return file


def work(store: LocalStore, folder: Path, slurm: Slurm) -> None:
    Commenter(store, CONFIG, folder, slurm.ask, slurm, slurm.pause).work()
    assert list(folder.glob("*.json")) == []


def seconds_of(text: str) -> dict[str, float | None]:
    lines = {node.host: node.line("cpu time") for node in decode(text).nodes}
    return {host: line.total if line else None for host, line in lines.items()}


def test_a_job_is_commented_on_when_all_of_its_hosts_have_ended(
    store: LocalStore, folder: Path
) -> None:
    slurm = Slurm()
    put(store, "n1")
    put(store, "n2", final=False)
    end(folder)
    late = END + 40.0

    def pause(seconds: float) -> None:
        before, slurm.now = slurm.now, slurm.now + seconds + 0.001
        if before < late <= slurm.now:
            put(store, "n2")

    Commenter(store, CONFIG, folder, slurm.ask, slurm, pause).work()
    assert seconds_of(slurm.records[0].comment) == {"n1": 33.25, "n2": 33.25}
    assert late <= slurm.now <= late + LONGEST_WAIT_SECONDS
    assert list(folder.iterdir()) == []


def test_a_host_that_stays_silent_is_waited_for_only_so_long(
    store: LocalStore, folder: Path
) -> None:
    slurm = Slurm()
    put(store, "n1")
    end(folder)
    work(store, folder, slurm)
    assert seconds_of(slurm.records[0].comment) == {"n1": 33.25}
    assert slurm.now == pytest.approx(END + PATIENCE_SECONDS, abs=LONGEST_WAIT_SECONDS + 1)
    assert "hosts-missing" in {
        finding.id
        for finding in recalled(
            inspect(EMPTY, CONFIG, "31", END * 1000, ask=slurm.ask), slurm.ask
        ).report.findings
    }


EMPTY = LocalStore.read_only(Path("/nonexistent/rooflight.db"))


def test_a_job_that_no_agent_saw_is_not_waited_for_as_long(store: LocalStore, folder: Path) -> None:
    slurm = Slurm()
    end(folder)
    work(store, folder, slurm)
    assert slurm.records[0].comment == ""
    assert slurm.now == pytest.approx(END + UNSEEN_SECONDS, abs=LONGEST_WAIT_SECONDS + 1)


def test_slurmdbd_is_waited_for_too(store: LocalStore, folder: Path) -> None:
    slurm = Slurm(away_until=END + 90.0)
    put(store, "n1")
    put(store, "n2")
    end(folder)
    work(store, folder, slurm)
    assert slurm.records[0].comment.startswith(VERSION)
    assert END + 90 <= slurm.now <= END + 90 + 2 * LONGEST_WAIT_SECONDS


def test_a_store_that_is_away_costs_the_comment_and_no_more(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slurm = Slurm()
    end(folder)
    Commenter(EMPTY, CONFIG, folder, slurm.ask, slurm, slurm.pause).work()
    assert slurm.records[0].comment == ""
    assert list(folder.iterdir()) == []
    assert "job 31 has no comment" in caplog.text


def test_the_run_before_a_requeue_is_left_to_the_next_one(store: LocalStore, folder: Path) -> None:
    again = Record(start=END + 20, end=END + 50)
    slurm = Slurm([Record(state="REQUEUED"), again], now=END + 60.0)
    put(store, "n1")
    put(store, "n2")
    end(folder)
    work(store, folder, slurm)
    assert [record.comment for record in slurm.records] == ["", ""]
    assert slurm.now < END + 70


def test_an_earlier_comment_of_ours_is_replaced_and_any_other_kept(
    store: LocalStore, folder: Path
) -> None:
    put(store, "n1")
    put(store, "n2")
    for before, kept in (("rooflight1:old", False), ("ticket 42", True), ("JS1:abc", True)):
        slurm = Slurm([Record(comment=before)])
        end(folder)
        work(store, folder, slurm)
        assert (slurm.records[0].comment == before) is kept


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "31"),
        ({"array": "28", "task": "5"}, "28_5"),
        ({"het": "31", "offset": "0"}, "31+0"),
    ],
)
def test_a_task_or_component_is_named_alone(
    store: LocalStore, folder: Path, changes: dict[str, str], name: str
) -> None:
    slurm = Slurm([Record(jobid=name)])
    put(store, "n1")
    put(store, "n2")
    end(folder, **changes)
    work(store, folder, slurm)
    assert slurm.records[0].comment.startswith(VERSION)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"jobid":"31;rm"}', '{"jobid":"-1","array":"","task":""}']
)
def test_what_is_no_job_is_left_out(
    store: LocalStore, folder: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    slurm = Slurm()
    put(store, "n1")
    put(store, "n2")
    (folder / "0-bad.json").write_text(text)
    end(folder)
    work(store, folder, slurm)
    assert slurm.records[0].comment.startswith(VERSION)
    assert "0-bad.json is left out" in caplog.text


def test_only_one_is_at_work(store: LocalStore, folder: Path) -> None:
    slurm = Slurm()
    file = end(folder)
    with _locked(folder / "lock") as ours:
        assert ours
        run_commenter(store, CONFIG, folder, slurm.ask)  # it would wait for minutes otherwise
    assert file.exists()


def ask_store_down(slurm: Slurm) -> Asked:
    return recalled(inspect(EMPTY, CONFIG, "31", (END + 60) * 1000, ask=slurm.ask), slurm.ask)


def test_a_report_without_the_store_says_where_its_figures_come_from(
    store: LocalStore, folder: Path
) -> None:
    slurm = Slurm()
    put(store, "n1")
    put(store, "n2")
    end(folder)
    work(store, folder, slurm)
    asked = ask_store_down(slurm)
    assert asked.store_words == ""
    assert {node.host for node in asked.report.nodes} == {"n1", "n2"}
    (note,) = asked.report.notes
    assert note.startswith("these figures are the summary that Slurm keeps in AdminComment: the")
    assert "does not answer: /nonexistent" in note
    assert "\n" not in note


def test_a_user_without_a_credential_is_told_by_the_comment(
    store: LocalStore, folder: Path
) -> None:
    slurm = Slurm()
    put(store, "n1")
    put(store, "n2")
    end(folder)
    work(store, folder, slurm)
    closed = ClosedStore(SettingsError("/etc/secret: cannot be read: Permission denied"))
    asked = recalled(inspect(closed, CONFIG, "31", (END + 60) * 1000, ask=slurm.ask), slurm.ask)
    assert len(asked.report.nodes) == 2
    assert asked.report.notes[0].endswith("/etc/secret: cannot be read: Permission denied")


@pytest.mark.parametrize("comment", ["", "ticket 42"])
def test_without_a_comment_the_store_s_words_stay(comment: str) -> None:
    slurm = Slurm([Record(comment=comment)])
    asked = ask_store_down(slurm)
    assert "nonexistent" in asked.store_words
    assert asked.report.nodes == ()


@pytest.mark.parametrize("comment", ["rooflight1:damaged", "rooflight7:later"])
def test_a_comment_that_cannot_be_read_is_told_of(comment: str) -> None:
    asked = ask_store_down(Slurm([Record(comment=comment)]))
    assert "nonexistent" in asked.store_words
    assert "the summary in AdminComment cannot be used: it is" in asked.report.notes[-1]


def test_a_comment_of_another_run_is_not_taken() -> None:
    slurm = Slurm()
    first = Record(state="REQUEUED", end=START + 10, comment="rooflight1:of-another-run")
    slurm.records = [first, Record(start=START + 50)]
    asked = ask_store_down(slurm)
    assert asked.report.nodes == ()
    assert not any("AdminComment" in note for note in asked.report.notes)


def test_the_lines_of_an_array_are_filled_from_comments(store: LocalStore, folder: Path) -> None:
    slurm = Slurm()
    put(store, "n1")
    put(store, "n2")
    end(folder)
    work(store, folder, slurm)
    text = slurm.records[0].comment
    tasks = [
        Record(jobid=f"28_{task}", raw=str(28 + task), comment=text if task < 3 else "")
        for task in (1, 2, 3)
    ]
    slurm = Slurm(tasks)
    asked = recalled(inspect(EMPTY, CONFIG, "28", (END + 60) * 1000, ask=slurm.ask), slurm.ask)
    assert [task.cpu_mean_ratio is not None for task in asked.report.tasks] == [True, True, False]
    assert [task.jobid for task in asked.report.tasks] == ["28_1", "28_2", "28_3"]
    assert "2 of 3 lines are from the summaries" in asked.report.notes[-1]

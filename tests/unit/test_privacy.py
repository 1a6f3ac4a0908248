"""The rule of who may see which job, with Slurm's own words as 22.05 prints them."""

import grp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from agent.config import Config, InspectSection
from agent.privacy import (
    REMEMBERED_SECONDS,
    Asker,
    Privacy,
    Rank,
    SlurmRules,
    asker,
    group_id,
    parse_rank,
    private_data,
)
from agent.slurm.accounting import SlurmUnreachable
from agent.stores.store import Row

CONTROLLER = """\
Configuration data as of 2026-11-25T02:17:55
AccountingStorageType   = accounting_storage/slurmdbd
PluginDir               = /usr/lib/x86_64-linux-gnu/slurm-wlm
PrivateData             = {}
"""
ACCOUNTING = """\
PrivateData            = none
SlurmUserId            = slurm(64030)

SlurmDBD configuration:
PidFile                = /run/slurmdbd.pid
PrivateData            = {}
"""


@dataclass
class Slurm:
    """Answers as Slurm does; None for a daemon that is away."""

    controller: str | None = CONTROLLER.format("none")
    accounting: str | None = ACCOUNTING.format("none")
    users: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def ask(self, command: Sequence[str]) -> str:
        self.asked.append(" ".join(command))
        answer = self.controller if command[0] == "scontrol" else self.accounting
        if answer is None:
            raise SlurmUnreachable(f"{command[0]} does not answer")
        if "user" in command:
            name = next(word for word in command if word.startswith("name="))
            return self.users.get(name.removeprefix("name="), "")
        return answer


@dataclass
class Clock:
    now: float = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


ALICE, BOB, NAMELESS = Asker(1001, "alice", (100,)), Asker(1002, "bob", (100,)), Asker(4242)
JOB: Row = {
    "cluster": "c",
    "jobid": "7",
    "user": "alice",
    "account": "physics",
    "source": "slurm",
    "time_ms": 0.0,
}
PRIVATE = Slurm(CONTROLLER.format("jobs"))


def may_see(who: Asker, slurm: Slurm, staff_group: str = "", **changes: str) -> bool:
    config = Config(cluster="c", inspect=InspectSection(staff_group=staff_group))
    return Privacy(config, SlurmRules(slurm.ask)).may_see(who, {**JOB, **changes})


@pytest.mark.parametrize("slurm", [PRIVATE, Slurm(None, None), Slurm()])
def test_owner_and_root_see_a_job_and_slurm_is_not_asked(slurm: Slurm) -> None:
    slurm.asked.clear()
    assert may_see(ALICE, slurm)
    assert may_see(Asker(0, "root"), slurm)
    assert slurm.asked == []


def test_without_private_data_others_see_what_slurm_shows_them() -> None:
    assert may_see(BOB, Slurm())
    assert may_see(NAMELESS, Slurm())


@pytest.mark.parametrize(
    "slurm",
    [
        PRIVATE,
        Slurm(CONTROLLER.format("accounts,jobs,usage")),
        Slurm(CONTROLLER.format("all")),
        Slurm(accounting=ACCOUNTING.format("jobs,users")),
        Slurm(None),
        Slurm(accounting=None),
    ],
    ids=["slurmctld", "among others", "all", "slurmdbd alone", "no slurmctld", "no slurmdbd"],
)
def test_with_private_data_or_without_an_answer_a_job_is_its_owner_s(slurm: Slurm) -> None:
    assert not may_see(BOB, slurm)
    assert not may_see(NAMELESS, slurm)


def test_a_site_without_slurmdbd_is_not_asked_for_it() -> None:
    alone = CONTROLLER.format("none").replace("slurmdbd", "none")
    slurm = Slurm(alone, accounting=None)
    assert may_see(BOB, slurm)
    assert slurm.asked == ["scontrol show config"]


def test_what_slurm_does_not_know_is_not_shown_by_its_word() -> None:
    assert not may_see(BOB, Slurm(), source="local")
    assert not may_see(BOB, Slurm(), cluster="another")
    assert may_see(ALICE, Slurm(), source="local")


def test_a_job_without_a_user_is_nobody_s() -> None:
    assert not may_see(NAMELESS, PRIVATE, user="")
    assert not may_see(Asker(4242, ""), PRIVATE, user="", account="")


@pytest.mark.parametrize("level", ["Operator", "Administrator"])
@pytest.mark.parametrize("source", ["slurm", "local"])
def test_operators_and_administrators_see_all(level: str, source: str) -> None:
    slurm = Slurm(CONTROLLER.format("jobs"), users={"bob": f"bob|{level}|\n"})
    assert may_see(BOB, slurm, source=source)


def test_a_coordinator_sees_the_jobs_of_his_accounts() -> None:
    slurm = Slurm(CONTROLLER.format("jobs"), users={"bob": "bob|None|physics,astro\n"})
    assert may_see(BOB, slurm)
    assert may_see(BOB, slurm, account="astro")
    assert not may_see(BOB, slurm, account="chemistry")
    assert not may_see(BOB, slurm, account="")
    assert not may_see(BOB, slurm, source="local")


def test_members_of_the_staff_s_group_see_all() -> None:
    group = grp.getgrgid(os.getgid())
    member = BOB._replace(groups=(100, group.gr_gid))
    assert may_see(member, PRIVATE, group.gr_name)
    assert may_see(member, PRIVATE, group.gr_name, source="local")
    assert not may_see(member, PRIVATE)
    assert not may_see(BOB._replace(groups=()), PRIVATE, group.gr_name)
    assert not may_see(member, PRIVATE, "no-such-group")


def test_answers_of_slurm_count_for_a_minute() -> None:
    slurm, clock = Slurm(CONTROLLER.format("jobs")), Clock()
    rules = SlurmRules(slurm.ask, clock)
    assert rules.hide_jobs()
    slurm.controller = CONTROLLER.format("none")
    clock.now += REMEMBERED_SECONDS - 1
    assert rules.hide_jobs()
    clock.now += 2
    assert not rules.hide_jobs()
    rules.rank("bob")
    rules.rank("alice")
    rules.rank("bob")
    assert len([words for words in slurm.asked if "name=bob" in words]) == 1


@pytest.mark.parametrize("name", ["", "a b", "x;rm", "a,b", "root\n"])
def test_a_name_that_is_none_is_not_asked_for(name: str) -> None:
    slurm = Slurm(users={name: f"{name}|Administrator|"})
    assert SlurmRules(slurm.ask).rank(name) == Rank()
    assert slurm.asked == []


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("www-data|None|testing,under\n", Rank(False, frozenset({"testing", "under"}))),
        ("mail|Operator|\n", Rank(True)),
        ("root|Administrator|\n", Rank(True)),
        ("", Rank()),
        ("\n", Rank()),
        ("Nothing found", Rank()),
    ],
)
def test_ranks_as_sacctmgr_prints_them(text: str, rank: Rank) -> None:
    assert parse_rank(text) == rank


def test_every_line_of_private_data_counts() -> None:
    words = CONTROLLER.format("none") + ACCOUNTING.format("Jobs,users")
    assert private_data(words) == {"none", "jobs", "users"}
    assert private_data("") == set()


def test_an_asker_is_who_the_system_says() -> None:
    assert asker(0).user == "root"
    assert 0 in asker(0).groups
    assert asker(4_294_000_001) == Asker(4_294_000_001)
    assert group_id("root") == 0
    assert group_id("") is None

"""Who may see which job: its owner, staff, and whoever Slurm itself shows it to.

Slurm's rule, as seen with 22.05: without `jobs` in PrivateData every user sees every job with all
its figures, in squeue, scontrol and sacct. With it a user sees his own, a coordinator those of his
accounts and of the accounts below them, operators and administrators all. slurmctld and slurmdbd
have a PrivateData each (`man slurm.conf`, `man slurmdbd.conf`); here, one that hides is enough.
What cannot be found out counts as hidden.
"""

import grp
import os
import pwd
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.slurm.accounting import Ask, SlurmJob, SlurmUnreachable, run_command
from agent.stores.guarded import GuardedStore
from agent.stores.store import Row, Store

REMEMBERED_SECONDS = 60.0
"""How long an answer of Slurm counts, for a reader that is asked again and again."""

MOST_REMEMBERED = 10_000

Known = TypeVar("Known")

_USER_NAME = re.compile(r"[A-Za-z0-9_.@$-]+")
_WHO_SEES_ALL = ("Operator", "Administrator")


class Asker(NamedTuple):
    """Who asks: the kernel vouches for the number, the system's user database for the rest.

    Attributes:
        uid: user id.
        user: name; empty for one without.
        groups: ids of all groups that the user is a member of.

    """

    uid: int
    user: str = ""
    groups: tuple[int, ...] = ()


class Rank(NamedTuple):
    """What a user is in Slurm.

    Attributes:
        sees_all: operator or administrator.
        coordinates: accounts, those below others included.

    """

    sees_all: bool = False
    coordinates: frozenset[str] = frozenset()


def asker(uid: int) -> Asker:
    """Return the user of an id."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Asker(uid)
    return Asker(uid, entry.pw_name, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))


class SlurmRules:
    """What Slurm says of who sees what; its answers are remembered for a minute."""

    def __init__(self, ask: Ask = run_command, clock: Clock | None = None) -> None:
        self._ask = ask
        self._clock = clock or SystemClock()
        self._hides: dict[str, tuple[float, bool]] = {}
        self._ranks: dict[str, tuple[float, Rank]] = {}

    def hide_jobs(self) -> bool:
        """Tell whether users see only their own jobs."""
        return self._remembered(self._hides, "", lambda _: self._ask_whether_hidden())

    def rank(self, user: str) -> Rank:
        """Return what a user is."""
        return self._remembered(self._ranks, user, self._ask_for_rank)

    def _remembered(
        self, known: dict[str, tuple[float, Known]], key: str, find: Callable[[str], Known]
    ) -> Known:
        now = self._clock.monotonic()
        if key in known and now - known[key][0] < REMEMBERED_SECONDS:
            return known[key][1]
        if len(known) >= MOST_REMEMBERED:
            known.clear()
        found = find(key)
        known[key] = (now, found)
        return found

    def _ask_whether_hidden(self) -> bool:
        try:
            words = self._ask(["scontrol", "show", "config"])
            if "accounting_storage/slurmdbd" in words:
                words += self._ask(["sacctmgr", "show", "configuration"])
        except SlurmUnreachable:
            return True
        return not private_data(words).isdisjoint({"jobs", "all"})

    def _ask_for_rank(self, user: str) -> Rank:
        if not _USER_NAME.fullmatch(user):
            return Rank()
        columns = "format=user,adminlevel,coordinators"
        question = ["sacctmgr", "--noheader", "--parsable2", "show", "user", f"name={user}"]
        try:
            return parse_rank(self._ask([*question, "withcoord", columns]))
        except SlurmUnreachable:
            return Rank()


def private_data(words: str) -> set[str]:
    """Return what is private by any PrivateData line of a configuration that Slurm shows."""
    lines = re.findall(r"^PrivateData\s*=\s*(.*)$", words, re.MULTILINE)
    return {word.strip().lower() for line in lines for word in line.split(",")}


def parse_rank(text: str) -> Rank:
    """Return the rank of `user|admin level|account,account`; none for somebody unknown."""
    parts = text.strip().split("\n")[0].split("|")
    if len(parts) != 3:
        return Rank()
    accounts = frozenset(filter(None, parts[2].split(",")))
    return Rank(parts[1] in _WHO_SEES_ALL, accounts)


_ASKED_ONCE = SlurmRules()
"""For all rules of a process: each answer of sacctmgr takes 0.2 s."""


class Privacy:
    """The rule of this site."""

    def __init__(self, config: Config, slurm: SlurmRules | None = None) -> None:
        self._cluster = config.cluster
        self._staff = group_id(config.inspect.staff_group)
        self._slurm = slurm or _ASKED_ONCE

    def is_staff(self, who: Asker) -> bool:
        """Tell whether this is root or a member of the staff's group, who see all jobs."""
        return who.uid == 0 or (self._staff is not None and self._staff in who.groups)

    def may_see(self, who: Asker, job: Row) -> bool:
        """Tell whether somebody may see what a `job` row is about; Slurm is asked last."""
        if self.is_staff(who) or (who.user and job.get("user") == who.user):
            return True
        if job.get("source") == "slurm" and job.get("cluster") == self._cluster:
            return self._slurm_shows(who, job)
        return bool(who.user) and self._slurm.rank(who.user).sees_all

    def _slurm_shows(self, who: Asker, job: Row) -> bool:
        if not self._slurm.hide_jobs():
            return True
        rank = self._slurm.rank(who.user)
        return rank.sees_all or job.get("account") in rank.coordinates


def as_seen_by(who: Asker, store: Store, privacy: Privacy) -> Store:
    """Return a store as somebody may see it."""
    if privacy.is_staff(who):
        return store
    return GuardedStore(store, lambda job: privacy.may_see(who, job))


def visible_runs(config: Config) -> Callable[[SlurmJob], bool]:
    """Return the rule for what Slurm tells to the person who runs this."""
    who, privacy = asker(os.geteuid()), Privacy(config)

    def may_see(run: SlurmJob) -> bool:
        row: Row = {"user": run.user, "account": run.account}
        return privacy.may_see(who, {**row, "source": "slurm", "cluster": config.cluster})

    return may_see


def group_id(name: str) -> int | None:
    """Return the id of a group; None without a name, or if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        return None

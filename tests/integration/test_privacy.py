"""Who sees whose jobs on a real Slurm: through the reader, and by reading the store."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.lineprotocol import Point, encode
from agent.slurm.accounting import jobs
from agent.stores.local import LocalStore
from agent.stores.reader import ReaderStore
from agent.stores.store import Select, StoreUnreachable
from probes.catalogue import Database
from tests.integration.services import Missing
from tests.slurm.bed import Bed
from tests.slurm.installed import install
from tests.weather import PATIENCE

pytestmark = pytest.mark.slurm

# users that every Debian has; each is the only member of the group of its name
OWNER, OTHER, OPERATOR, COORDINATOR, STAFF = "nobody", "games", "mail", "www-data", "news"
READER = "daemon"
UNKNOWN = "999999"


@dataclass(frozen=True)
class People:
    """Users of the bed, and where rooflight is for them."""

    slurm: Bed
    programs: Path
    folder: Path

    def ask(self, user: str, jobid: str, file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / "jobinspect", jobid, "--json", "--config", file],
            env=self.slurm.variables(),
            cwd="/",
            user=user,
            group="nogroup" if user == OWNER else user,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def sees(self, user: str, jobid: str, file: Path) -> bool:
        """Tell whether a user gets the job's figures; everybody else must get one line."""
        done = self.ask(user, jobid, file)
        if done.returncode == 0:
            (node,) = json.loads(done.stdout)["nodes"]
            assert {line["what"] for line in node["usage"]} >= {"cpu time"}
            return True
        unknown = self.ask(user, UNKNOWN, file)
        for answer in (done, unknown):
            assert (answer.returncode, answer.stdout) == (1, "")
            assert answer.stderr.count("\n") == 1, answer.stderr
        assert done.stderr.replace(jobid, "ID") == unknown.stderr.replace(UNKNOWN, "ID")
        return False


@pytest.fixture(scope="module")
def people(slurm: Bed) -> People:
    try:
        programs = install(slurm.folder / "installed")
    except Missing as missing:
        pytest.skip(str(missing))
    for words in (
        ("add", "account", "others"),
        ("add", "user", OTHER, "account=testing"),
        ("add", "user", OPERATOR, "account=others", "adminlevel=operator"),
        ("add", "user", COORDINATOR, "account=others"),
        ("add", "coordinator", "account=testing", f"name={COORDINATOR}"),
    ):
        slurm.run("sacctmgr", "-i", "-Q", *words)
    folder = slurm.folder / "privacy"
    folder.mkdir()
    return People(slurm, programs, folder)


@pytest.fixture(scope="module")
def jobid(people: People) -> str:
    """Return a job of the owner that an agent told of, in a store that is the reader's alone."""
    jobid = people.slurm.submit("-wbed1", command="true", user=OWNER)
    people.slurm.wait(jobid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", people.slurm.variables()["SLURM_CONF"])
        (run,) = jobs(jobid)
    tags = (("cluster", "bed"), ("host", "bed1"), ("jobid", jobid))
    ended = float(run.end_ms or run.start_ms)
    points = [
        Point("job", tags, {"user": OWNER, "account": "testing", "source": "slurm"}, run.start_ms),
        Point("job", tags, {"end_epoch_milliseconds": ended}, run.start_ms),
        Point("job_footprint", tags, {"cpu_seconds": 33.0, "final_state": 1.0}, run.start_ms),
    ]
    store = LocalStore(people.folder / "readable.db", 1e6)
    store.write(Database.JOBS, "".join(f"{encode(point)}\n" for point in points).encode())
    store.close()
    shutil.copy(people.folder / "readable.db", people.folder / "secret.db")
    shutil.chown(people.folder / "secret.db", READER)
    (people.folder / "secret.db").chmod(0o600)
    return jobid


def configuration(people: People, name: str, inspect: str) -> Path:
    file = people.folder / f"{name}.toml"
    path = people.folder / f"{name}.db"
    file.write_text(f'cluster = "bed"\n[local]\npath = "{path}"\n[inspect]\n{inspect}\n')
    return file


@contextmanager
def reader(people: People) -> Iterator[Path]:
    """Run the reader as a user who has the store to himself; give its configuration."""
    folder = people.folder / "run"
    folder.mkdir(exist_ok=True)
    shutil.chown(folder, READER)
    path = folder / "reader.sock"
    file = configuration(people, "secret", f'reader = "{path}"\nstaff_group = "{STAFF}"')
    process = subprocess.Popen(
        [people.programs / "rooflight", "reader", "--config", file, "--idle", "600"],
        env=people.slurm.variables(),
        cwd="/",
        user=READER,
        group=READER,
        extra_groups=[],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_it_answers(path, process)
        yield file
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def wait_until_it_answers(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        store = ReaderStore(str(path))
        with closing(store), suppress(StoreUnreachable):
            store.rows(Select("job", {"jobid": UNKNOWN}))
            return
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{path}: nobody answers"
        time.sleep(0.05)


@contextmanager
def either_way(people: People, way: str) -> Iterator[Path]:
    """Give the configuration of a user who asks the reader, or who reads the store himself."""
    if way == "reader":
        with reader(people) as file:
            yield file
    else:
        yield configuration(people, "readable", f'staff_group = "{STAFF}"')


@pytest.mark.parametrize("way", ["reader", "store"])
def test_with_private_jobs_they_are_their_owner_s_and_staff_s(
    people: People, jobid: str, way: str
) -> None:
    see = {OWNER: True, OTHER: False, COORDINATOR: True}
    if way == "reader":
        see |= {OPERATOR: True, STAFF: True, "root": True}
    with people.slurm.configured("PrivateData=jobs"), either_way(people, way) as file:
        assert {user: people.sees(user, jobid, file) for user in see} == see


@pytest.mark.parametrize("way", ["reader", "store"])
def test_without_private_data_they_are_everybody_s_as_in_sacct(
    people: People, jobid: str, way: str
) -> None:
    shown = people.slurm.run("sacct", "-X", "-n", "-j", jobid, "--format=User", user=OTHER)
    assert shown == OWNER
    with either_way(people, way) as file:
        assert people.sees(OTHER, jobid, file)


def test_without_slurm_a_job_is_its_owner_s(people: People, jobid: str) -> None:
    away = people.slurm.folder / "away"
    (away / "etc").mkdir(parents=True)
    (away / "etc" / "slurm.conf").touch()
    alone = People(Bed(away), people.programs, people.folder)
    with reader(alone) as file:
        assert alone.sees(OWNER, jobid, file)
        assert not alone.sees(OTHER, jobid, file)
        assert alone.sees(STAFF, jobid, file)


def test_the_store_itself_is_closed_to_users(people: People, jobid: str) -> None:
    file = configuration(people, "secret", "")
    done = people.ask(OWNER, jobid, file)
    assert done.returncode == 3
    assert "secret.db" in done.stderr
    assert json.loads(done.stdout)["job"]["user"] == OWNER  # what Slurm alone knows


def test_the_configuration_of_a_user_is_not_the_reader_s(people: People, jobid: str) -> None:
    """Who calls his own group staff, and so gets from sacct what Slurm shows, gets no figures."""
    with people.slurm.configured("PrivateData=jobs"), reader(people) as file:
        own = people.folder / "own.toml"
        own.write_text(file.read_text().replace(f'"{STAFF}"', f'"{OTHER}"'))
        done = people.ask(OTHER, jobid, own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"] == []

"""Whose a GPU is: words of Slurm and CUDA, and the processes that NVML sees."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.gpus import ASK_AGAIN_MS, Given, GpuBook, GpuShare, resolve, visible
from agent.messages import JobStart, decode
from agent.slurm.gres import GpuOrder
from agent.slurm.hook import start_message
from probes.gpu_device import Place, SeenGpu
from probes.roots import Roots

SEEN = [
    SeenGpu("0", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", Place(1)),
    SeenGpu("1", "GPU-8932f938-0000-0000-0000-000000000000", Place(0)),
    SeenGpu("1.0", "MIG-aaaaaaaa-1111-2222-3333-444444444444", Place(0, (1, 0))),
    SeenGpu("1.2", "MIG-bbbbbbbb-1111-2222-3333-444444444444", Place(0, (5, 0))),
    SeenGpu("2", "GPU-ffffffff-0000-0000-0000-000000000000", Place(2)),
]


@pytest.mark.parametrize(
    ("words", "gpus"),
    [
        (("0",), {"0"}),
        (("2", "0"), {"0", "2"}),
        (("1",), {"1", "1.0", "1.2"}),
        (("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",), {"0"}),
        (("GPU-8932f937",), {"0"}),
        (("GPU-8932f93",), set()),  # two begin so
        (("MIG-bbbbbbbb-1111-2222-3333-444444444444",), {"1.2"}),
        (("MIG-b",), {"1.2"}),
        (("MIG-GPU-8932f938-0000-0000-0000-000000000000/1/0",), {"1.0"}),
        (("MIG-GPU-8932f938-0000-0000-0000-000000000000/2/0",), set()),
        (("MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/0",), set()),
        (("0", "-1", "2"), {"0"}),  # CUDA shows none from the first that is none
        (("NoDevFiles",), set()),
        (("7", "0"), set()),
        (("\u0661",), set()),  # a digit of another script
        ((), set()),
    ],
)
def test_what_cuda_shows_by_its_variable(words: Sequence[str], gpus: set[str]) -> None:
    assert visible(words, SEEN).gpus == gpus


def test_words_for_which_there_is_nothing_are_told() -> None:
    found = resolve(["GPU-ffff", "9", "MIG-x"], SEEN, lambda number: None)
    assert found == Given(frozenset({"2"}), ("9", "MIG-x"))


@pytest.mark.parametrize(
    ("positions", "cuda", "gpus"),
    [
        ("0,3", "0,3", ("0", "3")),
        # a real Slurm 22.05.8 that had detected two GPUs and two MIG instances
        ("1,2,3", "1,MIG-aaaa,MIG-bbbb", ("1", "MIG-aaaa", "MIG-bbbb")),
        ("1,2", "GPU-x", ("1", "2")),
        ("0", "", ("0",)),
        ("", "NoDevFiles", ()),
    ],
)
def test_the_prolog_names_instances_by_uuid_and_gpus_by_position(
    positions: str, cuda: str, gpus: tuple[str, ...]
) -> None:
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": positions, "CUDA_VISIBLE_DEVICES": cuda}
    message = decode(start_message(variables, 1000))
    assert isinstance(message, JobStart)
    assert message.gpus == gpus


@dataclass
class Job:
    """A job with processes that the test lays down."""

    job: JobStart
    processes: set[int] = field(default_factory=set)
    asked: int = 0

    def __post_init__(self) -> None:
        self.gpus = GpuShare(self.job, set())

    def pids(self) -> set[int]:
        self.asked += 1
        return self.processes


def slurm(jobid: str, *words: str, by_use: bool = False) -> Job:
    return Job(JobStart(jobid, 0, gpus=words, gpus_by_use=by_use, source="slurm", node="n1"))


def with_pids(**pids: tuple[int, ...] | None) -> list[SeenGpu]:
    """Return the GPUs with processes on them: `g1_2` is GPU 1.2."""
    told = {name[1:].replace("_", "."): those for name, those in pids.items()}
    return [replace(gpu, pids=told.get(gpu.index, ())) for gpu in SEEN]


@pytest.fixture
def book(tmp_path: Path) -> GpuBook:
    file = tmp_path / "gres.conf"
    file.write_text("NodeName=n1 Name=gpu File=/dev/nvidia[1-2]\n")
    return GpuBook(GpuOrder(file, Roots(proc=tmp_path)))


def owned(job: Job) -> set[str]:
    return {gpu.index for gpu in SEEN if job.gpus.owns(gpu.index)}


def test_slurm_s_positions_are_not_nvml_s_indices(book: GpuBook) -> None:
    first, second, both = slurm("7", "0"), slurm("8", "1"), slurm("9", "0", "1")
    book.attribute([first, second, both], SEEN, 0)
    assert (owned(first), owned(second), owned(both)) == ({"0"}, {"2"}, {"0", "2"})
    assert both.gpus.total() == 2


def test_uuids_need_no_list(book: GpuBook) -> None:
    job = slurm("7", "MIG-bbbbbbbb-1111-2222-3333-444444444444", "1")
    book.attribute([job], SEEN, 0)
    assert owned(job) == {"1.2", "2"}


def test_a_job_on_all_of_the_host_counts_what_can_be_handed_out(book: GpuBook) -> None:
    job = Job(JobStart("7", 0))
    book.attribute([job], SEEN, 0)
    assert owned(job) == {gpu.index for gpu in SEEN}
    assert job.gpus.total() == 4  # 0, 1.0, 1.2, 2


def test_a_gpu_that_nvml_does_not_show_is_told(
    book: GpuBook, caplog: pytest.LogCaptureFixture
) -> None:
    job = slurm("7", "1", "5")
    with caplog.at_level(logging.WARNING):
        for time_ms in (0, 1000):
            book.attribute([job], SEEN, time_ms)
    assert job.gpus.fields() == {"gpus_not_found": "5"}
    assert caplog.messages == ["job 7 was given GPU 5, which NVML does not show"]


def test_a_list_that_is_not_understood_is_told_and_nvml_s_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gres.conf").write_text("Name=gpu File=/dev/nvidia[x]\n")
    book = GpuBook(GpuOrder(tmp_path / "gres.conf", Roots(proc=tmp_path)))
    job = slurm("7", "3")
    book.attribute([job], SEEN, 0)
    assert owned(job) == {"2"}  # after 0, 1.0 and 1.2
    assert f"{tmp_path}/gres.conf: /dev/nvidia[x] is not understood" in caplog.text


def test_processes_on_a_gpu_that_was_not_given_are_told_once(
    book: GpuBook, caplog: pytest.LogCaptureFixture
) -> None:
    job, other = slurm("7", "0"), slurm("8")
    job.processes, other.processes = {41, 42}, {43}
    for time_ms in range(0, 5000, 1000):
        book.attribute([job, other], with_pids(g0=(41, 43), g2=(42,)), time_ms)
    assert job.gpus.fields() == {"gpus_not_given": "2"}
    assert other.gpus.fields() == {"gpus_not_given": "0"}
    assert job.gpus.processes("0") == {
        "job_processes_peak_total": 1.0,
        "other_processes_peak_total": 1.0,
    }
    assert sorted(caplog.messages) == [
        "processes of job 7 run on GPU 2, which it was not given",
        "processes of job 8 run on GPU 0, which it was not given",
    ]


def test_a_gpu_whose_processes_nvml_does_not_tell_is_no_evidence(book: GpuBook) -> None:
    job = slurm("7", "0")
    book.attribute([job], with_pids(g0=None), 0)
    assert job.gpus.processes("0") == {}


def test_instances_are_attributed_each_by_itself(book: GpuBook) -> None:
    one, two = slurm("7", "MIG-aaaa"), slurm("8", "MIG-bbbb")
    one.processes, two.processes = {41}, {42}
    seen = with_pids(g1=(41, 42), g1_0=(41,), g1_2=(42,))  # the GPU lists all of its instances
    book.attribute([one, two], seen, 0)
    assert (one.gpus.used, two.gpus.used) == ({"1.0"}, {"1.2"})
    assert one.gpus.fields() == two.gpus.fields() == {}


def test_a_job_whose_prolog_was_missed_has_the_gpus_that_it_uses(book: GpuBook) -> None:
    job = slurm("7", by_use=True)
    job.processes = {41}
    book.attribute([job], with_pids(g2=(41,), g0=(99,)), 0)
    book.attribute([job], SEEN, 1000)  # between two of its programs
    assert owned(job) == {"2"}
    assert (job.gpus.total(), job.gpus.fields()) == (1, {})


def test_who_is_known_is_not_asked_again_and_strangers_seldom(book: GpuBook) -> None:
    job = slurm("7", "0")
    job.processes = {41}
    for time_ms in range(0, ASK_AGAIN_MS, 1000):
        book.attribute([job], with_pids(g0=(41, 99)), time_ms)
    assert job.asked == 1
    job.processes = {41, 99}  # slurmd has moved it into the job's group only now
    book.attribute([job], with_pids(g0=(41, 99)), ASK_AGAIN_MS)
    assert job.asked == 2
    assert job.gpus.processes("0")["job_processes_peak_total"] == 2.0


def test_a_process_number_that_comes_back_belongs_to_its_new_job(book: GpuBook) -> None:
    first, second = slurm("7", "0"), slurm("8", "0")
    first.processes = {41}
    book.attribute([first], with_pids(g0=(41,)), 0)
    second.processes = {41}
    book.attribute([second], with_pids(g0=(41,)), 1000)
    assert second.gpus.processes("0")["job_processes_peak_total"] == 1.0


def test_without_any_gpu_nothing_is_missing(book: GpuBook) -> None:
    """NVML may be away for now, and a cluster for tests has device files and no driver."""
    job = slurm("7", "0")
    book.attribute([job], [], 0)
    assert job.gpus.fields() == {}
    assert job.gpus.total() == 1

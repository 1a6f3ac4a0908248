"""What tests of workloads share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from workloads import pagecache


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Compute with one thread: for tiny models on a busy machine, more only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have temporary files in a folder that is not in memory."""
    for candidate in (tempfile.gettempdir(), "/var/tmp"):
        with tempfile.TemporaryDirectory(dir=candidate) as folder:
            if evicts(Path(folder)):
                monkeypatch.setattr("tempfile.tempdir", folder)
                yield Path(folder)
                return
    pytest.skip("all folders for temporary files are in memory here")


def evicts(folder: Path) -> bool:
    path = folder / "probe"
    path.write_bytes(bytes(1 << 20))
    pagecache.evict(path)
    return pagecache.cached_ratio(path) < 1

"""Weights in a safetensors file, mapped to memory: pages come from storage when first touched."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file

from workloads import pagecache
from workloads.offload import body, body_bytes
from workloads.roofline import scaled
from workloads.setting import SettingError
from workloads.transformer import Transformer

STILL_COLD = 0.01
"""Part of a file that may be left in the page cache."""


class MappedFile:
    """A model's body in a file; its weights are a view of the file's pages.

    The format is a header and the bare tensors: https://github.com/huggingface/safetensors.
    """

    def __init__(self, model: Transformer, path: Path) -> None:
        self._body = body(model)
        self._path = path
        save_file(self._body.state_dict(), path)
        self._map()

    def evict(self) -> None:
        """Drop the file's pages from memory and map it anew.

        Raises:
            SettingError: the file system keeps its files in memory.

        """
        self._body.to("meta")  # mapped pages cannot be dropped: let go of the old mapping
        pagecache.evict(self._path)
        if pagecache.cached_ratio(self._path) > STILL_COLD:
            folder = self._path.parent.parent
            raise SettingError(f"no cold weights: files in {folder} stay in memory; set TMPDIR")
        self._map()

    def _map(self) -> None:
        self._body.load_state_dict(load_file(self._path), assign=True)


@contextmanager
def mapped_file(model: Transformer) -> Iterator[MappedFile]:
    """Write a model's body to a file in the temp folder and map it, as long as the context lasts.

    Raises:
        SettingError: the temp folder has no room for it.

    """
    with TemporaryDirectory(prefix="rooflight-") as folder:
        needed, free = body_bytes(model), shutil.disk_usage(folder).free
        if needed > free:
            sizes = f"{scaled(needed, 'B')}; {scaled(free, 'B')} free"
            raise SettingError(f"mapped weights need {sizes} in {Path(folder).parent}")
        yield MappedFile(model, Path(folder) / "weights.safetensors")

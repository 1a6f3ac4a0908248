"""Which GPU stands at which position of Slurm's list: SLURM_JOB_GPUS gives positions, and no names.

The list is that of gres.conf, in the file's order; device files name minor numbers, which need not
follow PCI addresses, as NVML's indices do. Where Slurm detects the GPUs (AutoDetect), and where
nothing is configured, the list is in NVML's order, a GPU with MIG on replaced by its instances.

Source: `man 5 gres.conf`; NVIDIA, "MIG User Guide", device nodes and capabilities; and what a real
Slurm 22.05.8 hands out: the positions follow the lines of gres.conf.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from agent.slurm.hostlist import expand_hosts
from probes.gpu_device import SeenGpu
from probes.parsing import read_text
from probes.roots import Roots

USUAL_FILES = (Path("/etc/slurm/gres.conf"), Path("/run/slurm/conf/gres.conf"))
"""The second is slurmd's copy where the controller keeps the configuration."""

MIG_MINORS = "driver/nvidia-caps/mig-minors"

_GPU_FILE = re.compile(r"/nvidia(\d{1,4})$")
_CAPABILITY_FILE = re.compile(r"/nvidia-cap(\d{1,6})$")
_MIG_ACCESS = re.compile(r"^gpu(\d+)/gi(\d+)(?:/ci(\d+))?/access (\d+)$", re.MULTILINE)

Files = tuple[str, ...]
"""Device files of one GPU or MIG instance."""


def parse_gres(text: str, node: str) -> list[Files] | None:
    """Return the device files by position on a node; None if the list is NVML's own.

    Raises:
        ValueError: a list of nodes or files in it is none.

    """
    lines = [line for line in _lines(text) if _is_for(line, node)]
    detect = {"nodename" in line: line["autodetect"] for line in lines if "autodetect" in line}
    if detect.get(True, detect.get(False, "off")).lower() != "off":
        return None
    found = [files for line in lines if line.get("name") == "gpu" for files in _files(line)]
    return found or None


def _lines(text: str) -> Iterator[dict[str, str]]:
    """Yield each line's values by key in lower case."""
    for line in text.replace("\\\n", " ").splitlines():
        pairs = (word.partition("=") for word in line.partition("#")[0].split())
        values = {key.lower(): value for key, _, value in pairs if value}
        if values:
            yield values


def _is_for(line: Mapping[str, str], node: str) -> bool:
    return "nodename" not in line or node in _expand(line["nodename"])


def _files(line: Mapping[str, str]) -> Iterator[Files]:
    """Yield the files of each GPU; `MultipleFiles` are all of one."""
    if "multiplefiles" in line:
        yield tuple(_expand(line["multiplefiles"]))
    for file in _expand(line.get("file", "")):
        yield (file,)


def _expand(text: str) -> list[str]:
    """Return the names of a list of nodes or of files, which are written alike."""
    try:
        return expand_hosts(text)
    except ValueError as error:
        raise ValueError(f"{text} is not understood") from error


class GpuOrder:
    """Finds the GPU at a position of Slurm's list.

    Args:
        file: gres.conf; None for the usual places.
        roots: where the driver says what its device files are.

    """

    def __init__(self, file: Path | None, roots: Roots) -> None:
        self._candidates = USUAL_FILES if file is None else (file,)
        self._roots = roots

    def at(self, position: int, node: str, seen: Sequence[SeenGpu]) -> str | None:
        """Return the index of the GPU or instance; None if there is none at that position.

        Raises:
            ValueError: gres.conf is not understood; the message says why, and where.

        """
        indices = self.indices(node, seen)
        return indices[position] if position < len(indices) else None

    def indices(self, node: str, seen: Sequence[SeenGpu]) -> list[str | None]:
        """Return index by position; None for device files that NVML does not know.

        Raises:
            ValueError: see `at`.

        """
        files = self._configured(node)
        if files is None:
            return list(units(seen))
        capabilities = parse_capabilities(read_text(self._roots.proc / MIG_MINORS) or "")
        return [index_of(each, seen, capabilities) for each in files]

    def _configured(self, node: str) -> list[Files] | None:
        for file in self._candidates:
            text = read_text(file)
            if text is not None:
                try:
                    return parse_gres(text, node)
                except ValueError as error:
                    raise ValueError(f"{file}: {error}") from error
        return None


def units(seen: Iterable[SeenGpu]) -> list[str]:
    """Return the indices of what can be handed out: MIG instances instead of their GPU."""
    indices = [gpu.index for gpu in seen]
    divided = {index.partition(".")[0] for index in indices if "." in index}
    return [index for index in indices if index not in divided]


def parse_capabilities(text: str) -> dict[int, tuple[int, int, int | None]]:
    """Return (GPU's minor number, GPU instance, compute instance) by minor of nvidia-cap files.

    Source: /proc/driver/nvidia-caps/mig-minors, lines `gpu0/gi1/ci0/access 13`.
    """
    return {
        int(cap): (int(gpu), int(instance), int(compute) if compute else None)
        for gpu, instance, compute, cap in _MIG_ACCESS.findall(text)
    }


def index_of(
    files: Files,
    seen: Iterable[SeenGpu],
    capabilities: Mapping[int, tuple[int, int, int | None]],
) -> str | None:
    """Return the index of what these device files open: one GPU, or one instance of it."""
    capabilities_of = [int(match[1]) for file in files if (match := _CAPABILITY_FILE.search(file))]
    if capabilities_of:
        places = {capabilities.get(each) for each in capabilities_of}
        found = (
            gpu.index for gpu in seen if (gpu.place.minor, *(gpu.place.instance or ())) in places
        )
    else:
        minors = {int(match[1]) for file in files if (match := _GPU_FILE.search(file))}
        whole = (gpu for gpu in seen if gpu.place.instance is None)
        found = (gpu.index for gpu in whole if _minor(gpu) in minors)
    return next(found, None)


def _minor(gpu: SeenGpu) -> int:
    """Return N of /dev/nvidiaN; where NVML does not tell, its index, which mostly is the same."""
    return gpu.place.minor if gpu.place.minor is not None else int(gpu.index.partition(".")[0])

"""The probes that an agent runs, in this order; a new probe is added here."""

from probes.blockdisk import BlockdiskProbe
from probes.cpu import CpuProbe
from probes.filesystem import FilesystemProbe
from probes.gpu import GpuProbe
from probes.infiniband import InfinibandProbe
from probes.memory import MemoryProbe
from probes.network import NetworkProbe
from probes.power import PowerProbe
from probes.pressure import PressureProbe
from probes.probe import Probe
from probes.resctrl import ResctrlProbe
from probes.tempdisk import TempdiskProbe

PROBES: tuple[type[Probe], ...] = (
    CpuProbe,
    MemoryProbe,
    PressureProbe,
    ResctrlProbe,
    PowerProbe,
    NetworkProbe,
    InfinibandProbe,
    BlockdiskProbe,
    TempdiskProbe,
    FilesystemProbe,
    GpuProbe,
)

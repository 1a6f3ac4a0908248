"""Samples in, lines of one moment out, sorted by the database that they belong to."""

from collections.abc import Iterable

from agent.lineprotocol import encode_fields, series_key
from probes.catalogue import CATALOGUE, Database
from probes.sample import Sample, Tags

MOST_KEYS = 20_000
"""Series keys that are kept: job ids come and go, and an agent lives for years."""


class Encoder:
    """Turns samples into lines, `cluster` and `host` added; each series key is made once."""

    def __init__(self, cluster: str, host: str) -> None:
        self._common = (("cluster", cluster), ("host", host))
        self._keys: dict[tuple[str, Tags], str] = {}

    def lines(self, samples: Iterable[Sample], time_ms: int) -> dict[Database, bytes]:
        """Return the lines for each database that gets any."""
        texts: dict[Database, list[str]] = {}
        for sample in samples:
            if sample.fields:
                line = f"{self._key(sample)} {encode_fields(sample.fields.items())} {time_ms}\n"
                texts.setdefault(CATALOGUE[sample.measurement].database, []).append(line)
        return {database: "".join(lines).encode() for database, lines in texts.items()}

    def _key(self, sample: Sample) -> str:
        known = self._keys.get((sample.measurement, sample.tags))
        if known is None:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            everything = tuple(sorted((*self._common, *sample.tags)))
            known = series_key(sample.measurement, everything)
            self._keys[sample.measurement, sample.tags] = known
        return known

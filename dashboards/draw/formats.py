"""Numbers as Grafana writes them, by the names of its units in `dashboards.units`.

Source: grafana/grafana, packages/grafana-data/src/valueFormats.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from dashboards import units

SI = ("f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E", "Z", "Y")
BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi")
SHORT = ("", " K", " Mil", " Bil", " Tri", " Quadr", " Quint", " Sext", " Sept")
COUNTS = ("", "K", "M", "B", "T")

_SMALL_SECONDS = ((1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"))
_LARGE_SECONDS = (
    *((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (86_400.0, 3600.0, "hour")),
    *((604_800.0, 86_400.0, "day"), (31_536_000.0, 604_800.0, "week")),
)
_YEAR_SECONDS = 31_556_900.0


def formatted(value: float, unit: str, now_ms: float = 0.0, decimals: int | None = None) -> str:
    """Return a number as a panel with this unit shows it; `now_ms` is for what is said as ago.

    Without `decimals` there are three digits that count, and none behind the point of a whole
    number.
    """
    if unit == units.AGO:
        return ago((now_ms - value) / 1000)
    if unit == units.MOMENT:
        return moment(value)
    kind, _, symbol = unit.partition(":")
    if kind == "suffix":
        # Grafana puts a space before it, and browsers make one of two
        return f"{fixed(value, decimals)} {symbol.strip()}"
    return FORMATS.get(unit, fixed)(value, decimals)


def fixed(value: float, decimals: int | None = None) -> str:
    """Return a number with so many digits behind the point."""
    if decimals is None:
        decimals = decimals_of(value)
    shown = f"{value:.{decimals}f}"
    return shown.removeprefix("-") if float(shown) == 0 else shown


def decimals_of(value: float) -> int:
    """Return how many digits stand behind the point of a number."""
    if value == math.floor(value):
        return 0
    return max(0, 2 - math.floor(math.log10(abs(value))))


def moment(milliseconds: float) -> str:
    """Return date and time; the pictures have no time zone but UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def ago(seconds: float) -> str:
    """Return how long ago something was, in words."""
    sizes = ((45, 1, "second"), (2700, 60, "minute"), (79_200, 3600, "hour"))
    size, noun = next(((size, noun) for end, size, noun in sizes if seconds < end), (86_400, "day"))
    number = round(seconds / size)
    if noun == "second":
        return "a few seconds ago"
    return f"a{'n' if noun == 'hour' else ''} {noun} ago" if number < 2 else f"{number} {noun}s ago"


def elapsed(seconds: float, _: int | None = None) -> str:
    """Return a duration as hours, minutes and seconds, after days if there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days} d ' if days else ''}{hours:02}:{minutes:02}:{rest:02}"


def _percent(value: float, decimals: int | None) -> str:
    return f"{fixed(value * 100, decimals)}%"


def _seconds(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    for end, size, symbol in (*_SMALL_SECONDS, *_LARGE_SECONDS):
        if abs(value) < end:
            return f"{fixed(value / size, decimals)} {symbol}"
    return f"{fixed(value / _YEAR_SECONDS, decimals)} year"


def _scaled(
    value: float, decimals: int | None, *, factor: int, names: Sequence[str], base: int = 0
) -> str:
    """Return a number in the largest unit in which it is at least one."""
    power = math.floor(math.log(abs(value), factor) + 1e-12) if value else 0
    power = min(max(power, -base), len(names) - 1 - base)
    return f"{fixed(value / factor**power, decimals)}{names[base + power]}"


def _si(symbol: str, offset: int = 0) -> Callable[[float, int | None], str]:
    names = [f" {prefix}{symbol}" for prefix in SI]
    return partial(_scaled, factor=1000, names=names, base=SI.index("") + offset)


def _binary(symbol: str) -> Callable[[float, int | None], str]:
    return partial(_scaled, factor=1024, names=[f" {prefix}{symbol}" for prefix in BINARY])


FORMATS: dict[str, Callable[[float, int | None], str]] = {
    units.SHARE: _percent,
    units.COUNT: partial(_scaled, factor=1000, names=SHORT),
    units.SECONDS: _seconds,
    units.ELAPSED: elapsed,
    units.KWH: _si("Wh", 1),
    units.FLOPS: _si("FLOPS"),
    "bytes": _binary("B"),
    "Bps": _si("B/s"),
    "bps": _si("b/s"),
    "watt": _si("W"),
    "joule": _si("J"),
    "hertz": _si("Hz"),
    "celsius": lambda value, decimals: f"{fixed(value, decimals)} °C",
    "cps": partial(_scaled, factor=1000, names=[f"{count} c/s" for count in COUNTS]),
}
"""Unit -> what writes a number in it; dates and `suffix:` units are beside."""

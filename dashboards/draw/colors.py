"""Grafana's colours, by the names that panels use, on its dark page and on its light one.

Source: grafana/grafana, packages/grafana-data/src/themes, `createVisualizationColors` and
`createColors`; public/app/plugins/panel/heatmap/palettes.ts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.colors import Colormap, ListedColormap

from dashboards.panel import Steps

_SHADES = ("super-light-{}", "light-{}", "{}", "semi-dark-{}", "dark-{}")

# a ladder of shades for each hue: the dark page takes the lighter five, the light page the darker
_LADDERS = {
    "red": ("#FFA6B0", "#FF7383", "#F2495C", "#E02F44", "#C4162A", "#AD0317"),
    "orange": ("#FFCB7D", "#FFB357", "#FF9830", "#FF780A", "#FA6400", "#E55400"),
    "yellow": ("#FFF899", "#FFEE52", "#FADE2A", "#F2CC0C", "#E0B400", "#CC9D00"),
    "green": ("#C8F2C2", "#96D98D", "#73BF69", "#56A64B", "#37872D", "#19730E"),
    "blue": ("#C0D8FF", "#8AB8FF", "#5794F2", "#3274D9", "#1F60C4", "#1250B0"),
    "purple": ("#DEB6F2", "#CA95E5", "#B877D9", "#A352CC", "#8F3BB8", "#7C2EA3"),
}

CLASSIC = (
    *("green", "semi-dark-yellow", "light-blue", "semi-dark-orange", "red", "blue", "purple"),
    *("#705DA0", "dark-green", "yellow", "#447EBC", "#C15C17", "#890F02", "#0A437C", "#6D1F62"),
    *("#584477", "#B7DBAB", "#F4D598", "#70DBED", "#F9BA8F", "#F29191", "#82B5D8", "#E5A8E2"),
)
"""The palette that gives series their colours one after the other."""

DEFAULT_STEPS: Steps = ((None, "green"), (80, "red"))
"""Thresholds of a panel that has none of its own."""


SHADES = 64
"""Of a scheme from nothing to a whole colour."""

_RAINBOWS = ("Turbo", "Viridis", "Magma", "Inferno", "Plasma", "Cividis")
"""Schemes that begin dark, and are turned round on the light page; all others on the dark one."""


def _named(first: int) -> dict[str, str]:
    return {
        shade.format(hue): color
        for hue, ladder in _LADDERS.items()
        for shade, color in zip(_SHADES, ladder[first : first + len(_SHADES)], strict=True)
    }


@dataclass(frozen=True, slots=True)
class Theme:
    """What a page looks like.

    Attributes:
        page: behind everything.
        panel: behind a panel.
        border: around a panel, and between the rows of a table.
        text: words and numbers.
        faint: words beside them: axes, legends, units.
        grid: lines of a graph.
        track: the part of a bar that is not filled.
        named: Grafana's name of a colour -> the colour.
        dark: whether light stands on dark.

    """

    page: str
    panel: str
    border: str
    text: str
    faint: str
    grid: str
    track: str
    named: Mapping[str, str]
    dark: bool

    def color(self, name: str) -> str:
        """Return a colour by Grafana's name for it, or by its own `#rrggbb`."""
        return self.named.get(name, name)

    def series(self, index: int) -> str:
        """Return the colour of a series by its number on the panel."""
        return self.color(CLASSIC[index % len(CLASSIC)])

    def scheme(self, name: str) -> Colormap:
        """Return a colour scheme of heatmaps: the strongest value stands out from the page."""
        rainbow = name in _RAINBOWS
        turned = "_r" if rainbow != self.dark else ""
        return matplotlib.colormaps[(name.lower() if rainbow else name) + turned]

    def shades(self, name: str, exponent: float = 1.0) -> Colormap:
        """Return a scheme from nothing to a whole colour, which covers more the higher a value."""
        shares = ((step / (SHADES - 1)) ** exponent for step in range(SHADES))
        color = self.color(name)
        return ListedColormap([faded(color, share, self.panel) for share in shares])


DARK = Theme(
    page="#111217",
    panel="#181B1F",
    border="#2A2D33",
    text="#CCCCDC",
    faint="#9395A0",
    grid="#26292E",
    track="#22252B",
    named=_named(0),
    dark=True,
)
LIGHT = Theme(
    page="#F4F5F5",
    panel="#FFFFFF",
    border="#E4E6EA",
    text="#24292E",
    faint="#6A6E75",
    grid="#EBECEE",
    track="#F0F1F2",
    named=_named(1),
    dark=False,
)


def stepped(value: float, steps: Steps) -> str:
    """Return the name of the colour that thresholds give a value."""
    passed = [color for limit, color in steps if limit is None or value >= limit]
    return passed[-1] if passed else "text"


def faded(color: str, share: float, behind: str) -> str:
    """Return a colour of which only a share covers what is behind it; both `#rrggbb`."""
    return "#" + "".join(
        f"{round(over * share + under * (1 - share)):02x}"
        for over, under in zip(_bytes(color), _bytes(behind), strict=True)
    )


def _bytes(color: str) -> Sequence[int]:
    return [int(color[at : at + 2], 16) for at in (1, 3, 5)]

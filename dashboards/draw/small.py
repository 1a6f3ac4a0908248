"""Small PNGs: a palette of 256 colours, in which those of large areas stay exactly as they are."""

import numpy
from numpy.typing import NDArray
from PIL import Image

EXACT, MIXED = 128, 128
"""How many colours stay as they are, and how many stand for all others: the edges of letters."""

Colors = NDArray[numpy.int64]
"""(colours, 3): red, green, blue, 0 to 255."""


def small(image: Image.Image) -> Image.Image:
    """Return the picture with a palette."""
    pixels = numpy.asarray(image.convert("RGB")).astype(numpy.int64)
    codes = pixels @ numpy.array([65_536, 256, 1])
    found, places, counts = numpy.unique(codes, return_inverse=True, return_counts=True)
    colors = numpy.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    by_area = numpy.argsort(-counts, kind="stable")
    palette = _palette(colors[by_area])
    nearest = _nearest(colors, palette)
    indices = nearest[places.reshape(codes.shape)].astype(numpy.uint8)
    flat = Image.fromarray(indices)
    flat.putpalette(palette.astype(numpy.uint8).tobytes())
    return flat


def _palette(colors: Colors) -> Colors:
    """Return the colours of the palette, from all that there are, the most frequent first."""
    exact, others = colors[:EXACT], colors[EXACT:]
    if not len(others):
        return exact
    strip = Image.fromarray(others[None].astype(numpy.uint8))
    mixed = strip.quantize(MIXED, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    values = numpy.array(mixed.getpalette()).reshape(-1, 3)[:MIXED]
    return numpy.concatenate([exact, values])


def _nearest(colors: Colors, palette: Colors) -> NDArray[numpy.int64]:
    """Return for each colour the index of the one in the palette that is nearest to it."""
    return numpy.array([((palette - color) ** 2).sum(axis=1).argmin() for color in colors])

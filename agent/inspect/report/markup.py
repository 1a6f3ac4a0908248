"""HTML and SVG as nested calls. What is a plain text becomes text, whatever is in it."""

from html import escape

from agent.printable import printable

EMPTY_ELEMENTS = frozenset({"link", "meta"})
"""Elements of HTML that have no end; those of SVG all have one."""


class Markup(str):
    """Text that is HTML already; all other text is written out when it becomes part of any."""

    __slots__ = ()


Child = str | None
Attribute = str | float | None


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Return an element; a child or an attribute that is None is left out.

    Attributes are named as in HTML, with `_` for `-`, and one more at the end where Python has the
    word for itself: `class_`. Control characters and the like are written out, as in a terminal.
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY_ELEMENTS:
        return Markup(f"<{name}{named}>")
    return Markup(f"<{name}{named}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Return children one after the other."""
    return Markup("".join(text(child) for child in children if child is not None))


def text(words: str) -> Markup:
    """Return a text as HTML: itself if it is HTML already, and else nothing but text."""
    return words if isinstance(words, Markup) else Markup(escape(printable(words)))


def percent(share: float) -> str:
    """Return a share as a length in a drawing that is as wide as the page lets it be."""
    return f"{_number(100 * share)}%"


def _number(value: str | float) -> str:
    """Return a number with two decimals at most: a hundredth of a pixel is not seen."""
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".")

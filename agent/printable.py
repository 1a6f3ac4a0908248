"""Text of others, written out: what a store, Slurm or a user says commands no terminal.

Written out is all that Unicode does not call printable: ESC and the other control characters (C0,
C1), line ends, marks that turn the direction of text (bidi), and halves of characters (surrogates).
"""

import logging
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")

_PERHAPS = re.compile(r"[^\n -~]")
_ESCAPED = re.compile(r"\\[bfnrtu]")


def printable(text: str) -> str:
    r"""Return the text with what is not printable written out, such as `\x1b` and `\u202e`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def printable_json(text: str) -> str:
    r"""Return JSON that says the same, with `\u` for what could command a terminal."""
    return _PERHAPS.sub(_in_json, text)


def _in_json(found: re.Match[str]) -> str:
    if found[0].isprintable():
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


class PrintableFormatter(logging.Formatter):
    """Lines of a log in which the words of others command no terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, without what a traceback adds."""
        return printable(super().formatMessage(record))


def all_printable(value: T) -> T:
    """Return a report, or any part of one, in which each text is printable."""
    return value if _is_clean(value) else _written_out(value)


def _is_clean(value: object) -> bool:
    """Tell whether no text at all is to be written out: nearly always, and found at once."""
    try:
        encoded = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half of a character
        return False
    return encoded.isprintable() and not _ESCAPED.search(encoded)


def _written_out(value: T) -> T:
    changed: object = value
    if isinstance(value, str):
        changed = printable(value)
    elif isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        texts = {name: _written_out(getattr(value, name)) for name in names}
        changed = msgspec.structs.replace(value, **texts)
    elif isinstance(value, Mapping):
        changed = {_written_out(name): _written_out(each) for name, each in value.items()}
    elif isinstance(value, list | tuple):
        changed = type(value)(map(_written_out, value))
    return changed  # type: ignore[return-value]  # of its own type

"""Text of others, written out: what a store, Slurm or a user says commands no terminal.

Written out is all that Unicode does not call printable: ESC and the other control characters (C0,
C1), line ends, marks that turn the direction of text (bidi), and halves of characters (surrogates).
"""

import re

_PERHAPS = re.compile(r"[^\n -~]")


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

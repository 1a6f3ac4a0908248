"""Options of `rooflight workload`: one for each field of `Setting`, and those for the output."""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

import click

from workloads.setting import CHOICES, Setting, default_prompt


class UsageProblem(click.ClickException):
    """Something the user can mend: one line, exit code 2."""

    exit_code = 2


Command = Callable[..., Any]

AUTOMATIC: Mapping[str, object] = {"device": "auto", "dtype": "auto", "prompt": None}
"""Defaults that depend on what is here."""


def setting_options(command: Command) -> Command:
    """Add an option for each field of `Setting`; the command gets `options` by field name."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:  # noqa: ANN401
        options = {field.name: given.pop(field.name) for field in fields(Setting)}
        return command(options=options, **given)

    return _with_options(wrapper, [field.name for field in fields(Setting)])


def device_option(command: Command) -> Command:
    """Add --device alone."""
    return _with_options(command, ["device"])


def _with_options(command: Command, names: Sequence[str]) -> Command:
    words = attribute_words(Setting.__doc__ or "")
    for field in reversed(fields(Setting)):
        if field.name in names:
            command = _option(field, words.get(field.name, ""))(command)
    return command


def _option(field: "Field[Any]", words: str) -> Callable[[Command], Command]:
    name = field.name.replace("_", "-")
    if field.name in CHOICES:
        words += f" One of {', '.join(CHOICES[field.name])}."
    return click.option(
        f"--{name}/--no-{name}" if field.type is bool else f"--{name}",
        field.name,
        type=field.type,
        default=AUTOMATIC.get(field.name, field.default),
        show_default="by device" if field.name == "prompt" else True,
        help=words,
    )


def attribute_words(docstring: str) -> dict[str, str]:
    """Return what the `Attributes:` section of a docstring says of each, as a sentence."""
    section = inspect.cleandoc(docstring).partition("Attributes:\n")[2]
    own = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", own, re.MULTILINE)
    return {name: _sentence(re.sub(r"\s+", " ", words)) for name, words in found}


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:].rstrip(".") + "."


def resolve(options: Mapping[str, Any]) -> Setting:
    """Return the setting; `auto` is the GPU where there is one, with its best number format.

    Raises:
        SettingError: the device is not here.

    """
    from workloads.device import best_device, best_dtype, check_device

    device = best_device() if options["device"] == "auto" else options["device"]
    check_device(device)
    by_device = {"dtype": best_dtype(device), "prompt": default_prompt(device)}
    given = {name: value for name, value in options.items() if value != AUTOMATIC.get(name, ...)}
    return Setting(**{**by_device, **given, "device": device})


def numbers(words: str | None) -> tuple[int, ...]:
    """Return the numbers of a list "1,2,4"; none of nothing.

    Raises:
        UsageProblem: something else is in it.

    """
    parts = words.split(",") if words else []
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageProblem(f"{words!r} is no list of numbers such as 1,2,4")
    return tuple(map(int, parts))


def file_to_write(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """Refuse a file that cannot be written before anything runs; "-" is standard output."""
    if name not in (None, "-"):
        path = Path(name)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageProblem(f"{name} cannot be written")
    return name


@contextmanager
def writing(name: str) -> Iterator[Path]:
    """Give the path of a file to write; a failure (a full disk) is one line.

    Raises:
        UsageProblem: it cannot be written.

    """
    try:
        yield Path(name)
    except OSError as problem:
        raise UsageProblem(f"{name}: {problem.strerror}") from problem


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go: tables for people unless JSON is asked for, CSV beside or instead."""

    as_json: bool
    csv_file: str | None

    @property
    def tables(self) -> bool:
        """Whether standard output is for people."""
        return not self.as_json and self.csv_file != "-"

    def write_csv(self, text: str) -> None:
        """Write the text where CSV was asked for, if it was."""
        if self.csv_file == "-":
            click.echo(text, nl=False)
        elif self.csv_file is not None:
            with writing(self.csv_file) as path:
                path.write_text(text, encoding="utf-8")


def output_options(command: Command) -> Command:
    """Add --json and --csv; the command gets an `Output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
    @click.option(
        "--csv",
        "csv_file",
        metavar="FILE",
        callback=file_to_write,
        help="Write one row for each; - to print them instead of tables.",
    )
    @functools.wraps(command)
    def wrapper(as_json: bool, csv_file: str | None, **given: Any) -> Any:  # noqa: ANN401
        return command(output=Output(as_json, csv_file), **given)

    return wrapper

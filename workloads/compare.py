"""Run one workload with each value of one option, to see what that option moves. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from workloads.setting import CHOICES, Setting, SettingError

if TYPE_CHECKING:
    from workloads.runner import RunReport

DOUBLINGS = (1, 2, 4, 8)
"""A count is compared with so many times itself unless the user says with what."""

SWITCH = {"false": False, "true": True}


@dataclass(frozen=True, slots=True)
class Variant:
    """What came of one value: a report, or the reason why it cannot be had here."""

    value: str
    report: "RunReport | None" = None
    refused: str = ""


def settings_of(setting: Setting, field: str, values: str | None) -> dict[str, Setting]:
    """Return the setting with each value of a field: those of the comma-separated list, or all.

    Raises:
        SettingError: no such field, or a value that is not of its type.

    """
    kinds: dict[str, object] = {each.name: each.type for each in fields(Setting)}
    name = field.replace("-", "_")
    if name not in kinds:
        raise SettingError(f"unknown option {field!r}: one of {', '.join(kinds)}")
    words = values.split(",") if values else _all_values(setting, name, kinds[name])
    changes: dict[str, dict[str, Any]] = {
        word: {name: _parsed(name, kinds[name], word)} for word in words
    }
    return {word: replace(setting, **change) for word, change in changes.items()}


def compare(
    settings: Mapping[str, Setting], run: Callable[[Setting], "RunReport"]
) -> list[Variant]:
    """Run each setting; one that is refused says why, one that is interrupted is the last."""
    variants = []
    for value, setting in settings.items():
        try:
            report = run(setting)
        except SettingError as reason:
            variants.append(Variant(value, refused=str(reason)))
            continue
        variants.append(Variant(value, report))
        if report.partial:
            break
    return variants


def _all_values(setting: Setting, name: str, kind: object) -> list[str]:
    if name in CHOICES:
        return list(CHOICES[name])
    if kind is bool:
        return list(SWITCH)
    if kind is int:
        return [str(times * getattr(setting, name)) for times in DOUBLINGS]
    raise SettingError(f"which values of {name}? say --values A,B")


def _parsed(name: str, kind: object, word: str) -> str | int | bool:
    """Return the word as a value of its field."""
    if kind is bool and word in SWITCH:
        return SWITCH[word]
    if kind is int and word.isascii() and word.isdigit():
        return int(word)
    if kind is str:
        return word
    raise SettingError(f"{name} cannot be {word!r}")

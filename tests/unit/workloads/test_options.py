"""Options of the command line: every field of `Setting` is one, and says what it means."""

from dataclasses import fields

import click
import pytest
from click.testing import CliRunner

from agent.workload.cli import workload
from agent.workload.options import UsageProblem, attribute_words, numbers
from workloads.compare import compare, settings_of
from workloads.setting import CHOICES, Setting, SettingError, check_names


@pytest.mark.parametrize("name", ["run", "compare", "sweep"])
def test_every_field_of_a_setting_is_an_option_with_help(name: str) -> None:
    options = {each.name: each for each in workload.commands[name].params}
    for field in fields(Setting):
        option = options[field.name]
        assert isinstance(option, click.Option)
        assert option.opts == [f"--{field.name.replace('_', '-')}"]
        assert len(option.help or "") > 10
        assert all(choice in str(option.help) for choice in CHOICES.get(field.name, ()))


def test_help_needs_no_torch_and_names_the_choices() -> None:
    result = CliRunner().invoke(workload, ["run", "--help"])
    assert result.exit_code == 0
    assert "native, int8, int4" in " ".join(result.stdout.split())


def test_attributes_of_a_docstring_become_sentences() -> None:
    words = """Options.

    Attributes:
        one: first
            and more.
        two: second; and so on

    Raises:
        three: not one of them.

    """
    assert attribute_words(words) == {"one": "First and more.", "two": "Second; and so on."}
    assert attribute_words("") == {}


def test_every_default_and_every_choice_is_accepted() -> None:
    check_names(Setting(), ())
    for field in CHOICES:
        for value, setting in settings_of(Setting(device="cuda"), field, None).items():
            check_names(setting, ())
            assert getattr(setting, field) == value


def test_values_to_compare_come_from_the_field() -> None:
    base = Setting(batch=3)
    assert [each.batch for each in settings_of(base, "batch", None).values()] == [3, 6, 12, 24]
    assert [each.batch for each in settings_of(base, "batch", "5,1").values()] == [5, 1]
    switched = settings_of(base, "checkpointing", None)
    assert [each.checkpointing for each in switched.values()] == [False, True]


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("colour", None, "unknown option 'colour'"),
        ("device", None, "say --values"),
        ("batch", "1,-1", "batch cannot be '-1'"),
        ("batch", "1,", "batch cannot be ''"),
        ("checkpointing", "yes", "checkpointing cannot be 'yes'"),
    ],
)
def test_what_cannot_be_compared_is_refused(field: str, values: str | None, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        settings_of(Setting(), field, values)


def test_a_variant_that_is_refused_says_why_and_the_others_run() -> None:
    def run(setting: Setting) -> object:
        if setting.batch == 2:
            raise SettingError("too big")
        return type("Report", (), {"partial": setting.batch == 4})()

    found = compare(settings_of(Setting(), "batch", None), run)  # type: ignore[arg-type]
    assert [(each.value, each.refused) for each in found] == [
        ("1", ""),
        ("2", "too big"),
        ("4", ""),
    ]


def test_lists_of_numbers() -> None:
    assert numbers("1,20") == (1, 20)
    assert numbers(None) == numbers("") == ()
    for words in ("1,,2", "0", "-1", "a", "1;2", "\u0661"):
        with pytest.raises(UsageProblem):
            numbers(words)

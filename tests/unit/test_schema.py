import json
from pathlib import Path

import msgspec

import agent.inspect
from agent.inspect.model import SCHEMA
from agent.inspect.schema import schema, tidied

FILE = Path(agent.inspect.__file__).with_name("schema.json")


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    """After a change: python -m agent.inspect.schema > agent/inspect/schema.json"""
    assert json.loads(FILE.read_text()) == json.loads(msgspec.json.encode(schema()))


def test_the_schema_is_named_after_its_version() -> None:
    assert json.loads(FILE.read_text())["$id"] == SCHEMA == "rooflight.jobinspect/1"


def test_descriptions_are_the_same_however_a_library_prints_docstrings() -> None:
    as_written = {"description": "One job.\n\n    Attributes:\n        host: its name.\n    "}
    as_cleaned = {"description": "One job.\n\nAttributes:\n    host: its name."}
    assert tidied([as_written]) == tidied([as_cleaned]) == [as_cleaned]


def test_a_field_that_is_called_description_is_left_alone() -> None:
    field = {"properties": {"description": {"type": "string", "default": "  two\n  lines"}}}
    assert tidied(field) == field

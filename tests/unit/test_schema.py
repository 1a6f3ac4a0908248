import json
from pathlib import Path

import msgspec

import agent.inspect
from agent.inspect.model import SCHEMA
from agent.inspect.schema import schema

FILE = Path(agent.inspect.__file__).with_name("schema.json")


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    """After a change: python -m agent.inspect.schema > agent/inspect/schema.json"""
    assert json.loads(FILE.read_text()) == json.loads(msgspec.json.encode(schema()))


def test_the_schema_is_named_after_its_version() -> None:
    assert json.loads(FILE.read_text())["$id"] == SCHEMA == "rooflight.jobinspect/1"

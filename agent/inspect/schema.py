"""The JSON Schema of `jobinspect --json`.

`python -m agent.inspect.schema > agent/inspect/schema.json` writes it again.
"""

import inspect
import sys
from typing import Any

import msgspec

from agent.inspect.model import SCHEMA, JobReport


def schema() -> dict[str, Any]:
    """Return the schema of `JobReport`, named after its version."""
    described: dict[str, Any] = tidied(msgspec.json.schema(JobReport))
    return {"$id": SCHEMA, **described}


def tidied(part: Any) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """Return a part of a schema with its descriptions as `inspect.cleandoc` leaves them.

    Releases of msgspec and of Python differ in how much white space of a docstring they keep.
    """
    if isinstance(part, list):
        return [tidied(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: inspect.cleandoc(value)
        if key == "description" and isinstance(value, str)
        else tidied(value)
        for key, value in part.items()
    }


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n")

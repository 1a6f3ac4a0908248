"""The JSON Schema of `jobinspect --json`.

`python -m agent.inspect.schema > agent/inspect/schema.json` writes it anew.
"""

import sys
from typing import Any

import msgspec

from agent.inspect.model import SCHEMA, JobReport


def schema() -> dict[str, Any]:
    """Return the schema of `JobReport`, named after its version."""
    return {"$id": SCHEMA, **msgspec.json.schema(JobReport)}


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n")

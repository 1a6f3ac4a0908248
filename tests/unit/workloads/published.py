"""Numbers that others have printed or counted: the files of tests/data, with their provenance."""

import json
from pathlib import Path
from typing import Any

from workloads.shapes import Shape

DATA = Path(__file__).parents[2] / "data"


def cases(name: str) -> list[dict[str, Any]]:
    """Return the cases of tests/data/NAME.json."""
    content: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    assert content["provenance"]
    found: list[dict[str, Any]] = content["cases"]
    return found


def torch_shape(case: dict[str, Any]) -> Shape:
    """Return the shape of a case of torch-flopcounter-cases.json."""
    config = case["config"]
    return Shape(
        vocabulary=config["V"],
        hidden=config["d"],
        layers=config["L"],
        heads=config["h"],
        kv_heads=config["kv"],
        mlp=config["f"],
    )


def viewer_shape(case: dict[str, Any]) -> Shape:
    """Return the shape of a case of roofline-cases.json."""
    config = case["model_params"]
    return Shape(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        mlp=config["intermediate_size"],
    )

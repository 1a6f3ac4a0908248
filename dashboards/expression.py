"""Grafana's server-side expressions: arithmetic between the answers to queries.

Source: grafana.com/docs, "Query, visualize, and alert: Expressions"; grafana/grafana, pkg/expr.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DATASOURCE = {"type": "__expr__", "uid": "__expr__"}


@dataclass(frozen=True, slots=True)
class Expression:
    """One step; it names earlier answers by their letters.

    Attributes:
        kind: reduce makes a number of each series, math computes with numbers, threshold compares
            them with `limit`: 1 where it holds.
        of: "A" for reduce and threshold, "$C / $D" for math: no more is computed here.
        reducer: how a series becomes a number.
        above: whether the threshold is passed above the limit, or below it.

    """

    kind: Literal["reduce", "math", "threshold"]
    of: str
    reducer: Literal["last", "min", "max", "mean", "sum"] = "last"
    above: bool = True
    limit: float = 0.0

    def model(self, letter: str) -> dict[str, object]:
        """Return the expression as Grafana stores it."""
        model: dict[str, object] = {
            "refId": letter,
            "datasource": DATASOURCE,
            "type": self.kind,
            "expression": self.of,
        }
        if self.kind == "reduce":
            model |= {"reducer": self.reducer, "settings": {"mode": "dropNN"}}
        elif self.kind == "threshold":
            model["conditions"] = [self._condition()]
        return model

    def _condition(self) -> Mapping[str, object]:
        return {"evaluator": {"type": "gt" if self.above else "lt", "params": [self.limit]}}


def reduced(
    letter: str, reducer: Literal["last", "min", "max", "mean", "sum"] = "last"
) -> Expression:
    """Return the step that makes a number of each series of an answer."""
    return Expression("reduce", letter, reducer)


def quotient(dividend: str, divisor: str) -> Expression:
    """Return the step that divides numbers: each by the one whose labels are among its own."""
    return Expression("math", f"${dividend} / ${divisor}")

"""What the numbers of a report say: a table of rules, each a pure function of the report.

No rule looks at another's outcome, and none can silence the rest: one idle GPU does not hide a
time limit over-asked, and a rule that fails over odd numbers says so and no more.
`python -m agent.inspect.findings.page` prints the table.
"""

from collections.abc import Iterator, Sequence

from agent.inspect.findings import coverage, data, fabric, gpus, mainmemory, processor, roofs
from agent.inspect.findings.rule import Case, Rule
from agent.inspect.model import Finding, JobReport
from agent.inspect.units import some

__all__ = ["RULES", "RULES_BY_ID", "Rule", "find"]

RULES: tuple[Rule, ...] = (
    *coverage.RULES,
    *processor.RULES,
    *mainmemory.RULES,
    *gpus.RULES,
    *data.RULES,
    *fabric.RULES,
    *roofs.RULES,
)
RULES_BY_ID = {rule.id: rule for rule in RULES}
SEVERITIES = ("warning", "hint", "info")

MOST_CASES = 3
"""So many hosts or GPUs are told one by one; of more, one stands for all."""

BAD_DATA = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a rule can raise over numbers that it did not expect."""


def find(report: JobReport, rules: Sequence[Rule] = RULES) -> list[Finding]:
    """Return what every rule finds, warnings first."""
    found = [finding for rule in rules for finding in _found(rule, report)]
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))


def _found(rule: Rule, report: JobReport) -> Iterator[Finding]:
    try:
        cases = list(rule.cases(report))
    except BAD_DATA as error:
        words = f"rule {rule.id} could not judge this job ({type(error).__name__}: {error})"
        yield Finding("rule-failed", "info", words, "the other rules did; please report this")
        return
    if len(cases) > MOST_CASES:
        yield _folded(rule, cases)
    else:
        for case in cases:
            places = [case.place] if case.place else []
            yield Finding(rule.id, rule.severity, case.words, rule.advice, places)


def _folded(rule: Rule, cases: Sequence[Case]) -> Finding:
    """Return one finding for many cases: the first in full, the others by their names."""
    places = list(dict.fromkeys(case.place for case in cases))
    words = f"{cases[0].words}; so it is in {len(cases)} places: {some(places, 6)}"
    return Finding(rule.id, rule.severity, words, rule.advice, places)

"""The table of rules as a page.

`python -m agent.inspect.findings.page > agent/inspect/FINDINGS.md` writes it anew.
"""

import sys

from agent.inspect.findings import RULES

INTRODUCTION = """\
# What jobinspect finds

Made from the rules in `findings/` by `python -m agent.inspect.findings.page`: change those, not
this.

Each rule looks at the job by itself; none depends on another, and none is left out because another
fired. A warning says that something is wrong, a hint that something could be better.

| id | | looks at | fires | what to do |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the whole page, Markdown."""
    rows = (
        f"| `{rule.id}` | {rule.severity} | {rule.looks_at} | {rule.fires} | {rule.advice} |\n"
        for rule in RULES
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page())

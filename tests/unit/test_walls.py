"""What the map promises of the code's shape: arrows between packages, sizes, READMEs."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes import metrics_page

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("agent", "dashboards", "deploy", "probes", "workloads")
API = REPOSITORY / "agent" / "api"  # what is in it is imported as if it were in the top folder
SOURCES = sorted(path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py"))

# package -> which others it may import, anywhere in its code
ARROWS = {
    "probes": set(),
    "workloads": {"probes"},
    "agent": {"workloads", "probes", "deploy", "rooflight"},
    "dashboards": {"probes.catalogue"},
    "deploy": set(),
    "rooflight": set(),
}
LONGEST_FUNCTION = 50
LONGEST_FILE = 450
MAY_BE_LONGER = {
    "probes/catalogue.py": "one table of facts, read by name and not from top to bottom",
}
MAY_CATCH_ALL = {"agent/runner.py": 1}  # no probe may stop the agent; it counts and reports

HEAVY = {
    "grafana_client",
    "influxdb_client",
    "matplotlib",
    "numpy",
    "plotly",
    "pynvml",
    "rich",
    "sqlite3",
    "torch",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield dotted names; `from package import module` as `package.module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def allowed(path: Path) -> set[str]:
    own = "rooflight" if path.is_relative_to(API) else path.relative_to(REPOSITORY).parts[0]
    # `rooflight dashboards build` is a command of the agent's CLI
    extra = {"dashboards"} if own == "agent" and path.name == "cli.py" else set()
    return {own} | ARROWS[own] | extra


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_run_one_way(path: Path) -> None:
    ours = [name for name in imported(tree_of(path)) if name.split(".")[0] in (*ARROWS, "tests")]
    wrong = [name for name in ours if not any(within(name, each) for each in allowed(path))]
    assert wrong == []


def loaded_by(module: str) -> set[str]:
    """Return the top-level names that a new interpreter has loaded after importing the module."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["agent.cli", "agent.inspect.cli"])
def test_a_command_starts_without_heavy_imports(module: str) -> None:
    assert loaded_by(module) & HEAVY == set()


@pytest.mark.parametrize("module", ["workloads.roofline", "workloads.hardware"])
def test_labels_need_no_torch(module: str) -> None:
    assert loaded_by(module) & {"torch", "numpy"} == set()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            assert node.end_lineno is not None
            yield f"{name_of(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_functions_read_in_one_breath() -> None:
    lengths = dict(pair for path in SOURCES for pair in functions(path))
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}
    assert statistics.median(lengths.values()) <= 12


def catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(caught & {"Exception", "BaseException"})


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_excepts_are_narrow(path: Path) -> None:
    handlers = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]
    broad = [handler.lineno for handler in handlers if catches_all(handler)]
    assert len(broad) <= MAY_CATCH_ALL.get(name_of(path), 0), f"lines {broad}"


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    long = {name for name, n in lengths.items() if n > LONGEST_FILE}
    assert long == set(MAY_BE_LONGER)


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_a_folder_says_what_lives_in_it(folder: str) -> None:
    text = (REPOSITORY / folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {folder}\n")


def test_each_promise_of_security_names_a_test_that_is_there() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests/)?(?:unit|integration)/\w+\.py)`", text)
    assert len(named) > 15
    missing = [
        name for name in named if not (REPOSITORY / "tests" / name.removeprefix("tests/")).is_file()
    ]
    assert missing == []
    rows = [row for row in text.splitlines() if row.startswith("| ") and "held by" not in row]
    assert all(re.search(r"test_\w+\.py|fuzz", row) for row in rows)


def test_the_page_of_metrics_is_up_to_date() -> None:
    page = (REPOSITORY / "probes" / "METRICS.md").read_text(encoding="utf-8")
    assert page == metrics_page.page(), "run: make format"

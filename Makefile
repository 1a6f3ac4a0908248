# Two commands matter: `make demo` and `make test`. Both set up what they need; `make help` lists more.
.DEFAULT_GOAL := help
.PHONY: help demo test unit lowest pythons constraints machine bench faults pictures bundle audit lint code scripts format clean
.DELETE_ON_ERROR:

bin := .venv/bin
quick = tests/unit tests/golden
scripts = $(shell git ls-files -co --exclude-standard -- '*.sh' .ci/run)

help: ## list these targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do printf '%-13s %s\n' "$$name" "$$text"; done

demo: .venv/.installed ## run reference LLM phases as a job on this machine, and inspect the job
	@ROOFLIGHT_CONFIG=deploy/demo.toml $(bin)/rooflight run -- $(bin)/rooflight workload run train prefill decode

test: .venv/.developer ## lint and every test that can run here (as root on Debian: all of them; STAGES="unit code")
	@$(bin)/python -m tests.suite $(STAGES)

unit: .venv/.developer
	$(bin)/python -m pytest -q $(quick)

lowest: .venv/.developer ## unit and golden tests with the oldest libraries that pyproject.toml allows
	@$(bin)/python -m tests.versions lowest

pythons: .venv/.developer ## unit and golden tests on each other Python, 3.11 to 3.13, that is here
	@$(bin)/python -m tests.versions pythons

constraints: .venv/.developer ## settle what a fresh clone installs: the newest; says what is new
	@$(bin)/python -m tests.versions.constraints

machine: .venv/.developer
	@test "$$(id -u)" != 0 || ! command -v debootstrap >/dev/null || tests/machine.sh build

bench: .venv/.developer ## measure the budgets of the agent, beside what else is installed
	@deploy/bootstrap.sh services
	@$(bin)/python -m tests.benchmarks.pcp || true
	$(bin)/python -m tests.benchmarks.overhead

faults: .venv/.developer ## an hour of ticks while everything goes wrong: all stored or counted (SEED= TICKS=)
	@deploy/bootstrap.sh services
	$(bin)/python -m tests.faults $(SEED:%=--seed %) $(TICKS:%=--ticks %)

pictures: .venv/.developer ## draw the dashboards anew, from a real run and a replayed cluster
	@deploy/bootstrap.sh services
	$(bin)/python -m tests.pictures

bundle: ## one file in dist/ that installs the agent on nodes without internet
	@deploy/bundle/make.sh dist

audit: .venv/.installed ## ask the package index for known holes in what is installed (needs internet)
	@test -x .cache/audit/bin/pip-audit || { python3 -m venv .cache/audit && .cache/audit/bin/python -m pip install -qq pip-audit; }
	.cache/audit/bin/pip-audit --path "$$($(bin)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

lint: code scripts ## ruff, mypy, shellcheck

code: .venv/.developer
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

scripts:
	@if command -v shellcheck >/dev/null; then echo shellcheck $(scripts); shellcheck $(scripts); else echo "shellcheck is not installed: scripts are not checked"; fi

format: .venv/.developer ## mend what ruff can mend; write probes/METRICS.md anew
	$(bin)/ruff check --fix
	$(bin)/ruff format
	$(bin)/python -m probes.metrics_page >probes/METRICS.md

clean: ## remove everything that these targets made
	rm -rf .venv .demo .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt $(wildcard agent/bin/*)
	@deploy/bootstrap.sh install
	@touch $@

.venv/.developer: .venv/.installed
	@deploy/bootstrap.sh develop
	@touch $@

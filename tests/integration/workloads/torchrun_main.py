"""What torchrun starts in `test_distributed`: a tiny run with tiny ceilings."""

import json

import click

from tests.integration.workloads.test_distributed import SETTING, SWEEP
from workloads.distributed import launch

if __name__ == "__main__":
    report = launch(SETTING, ("train",), "ddp", ranks=1, sweep=SWEEP)
    if report:
        click.echo(json.dumps({item.phase.name: item.label.bound.value for item in report.phases}))

"""The command `rooflight top`. What it needs is imported when it runs."""

import click

from agent.command import Config, with_config


@click.command()
@click.argument("jobid", default="")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option("--interval", type=click.FloatRange(0.2, 3600), metavar="SECONDS")
@with_config
def top(config: Config, jobid: str, once: bool, interval: float | None) -> None:
    """Watch this node live, or with JOBID all nodes of a job, from the store.

    Of this node it shows GPUs, what bounds them, and the processes; it needs no agent and no
    store, and writes nothing. JOBID is what `jobinspect` takes. h shows the keys, q ends. On
    what is no terminal, or a dumb one, it prints one frame and ends.
    """
    from agent.top.run import run_top

    run_top(config, jobid, once=once, interval=interval)

"""The command line `rooflight`. What a command needs is imported when it runs."""

import importlib
import sys
from pathlib import Path

import click

from agent.command import (
    NOT_FOUND,
    UNREACHABLE,
    Config,
    Fault,
    is_for_another_store,
    with_config,
)

LAZY = {
    "dashboards": "agent.dashboards.cli:dashboards",
    "deploy": "agent.deploy_command:deploy",
    "top": "agent.top.cli:top",
    "workload": "agent.workload.cli:workload",
}
"""Where the commands are that are imported only when they are asked for."""


class LazyGroup(click.Group):
    """A group with commands of modules that are imported only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name."""
        if cmd_name not in LAZY:
            return super().get_command(ctx, cmd_name)
        module, _, name = LAZY[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rooflight")
def main() -> None:
    """Cluster monitoring that tells you which roof your job is under."""


@main.command()
@click.option("--once", is_flag=True, help="Take one tick (two samples, so that rates are known).")
@click.option("--for", "seconds", type=click.FloatRange(min=0.0), metavar="SECONDS")
@click.option("--interval", type=click.FloatRange(0.02, 3600), metavar="SECONDS")
@click.option(
    "--until-idle",
    type=click.FloatRange(min=0.0),
    metavar="SECONDS",
    help="End after so long without any job: for an agent that Slurm's prolog starts.",
)
@with_config
def agent(
    config: Config,
    once: bool,
    seconds: float | None,
    interval: float | None,
    until_idle: float | None,
) -> None:
    """Sample this node until stopped, and ship to the store.

    With --once, or a --store that is not the configured one, the node's own agent is not disturbed:
    its spool, its jobs and its socket are left alone.
    """
    from agent.daemon import run_agent, run_elsewhere, run_once

    if once:
        run_once(config)
    elif is_for_another_store():
        run_elsewhere(config, seconds, interval, until_idle)
    else:
        run_agent(config, seconds, interval, until_idle)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--interval", type=click.FloatRange(0.02, 3600), default=1.0, show_default=True)
@click.option("--name", default="", help="Name of the job; the command's name if not given.")
@click.option("--quiet", is_flag=True, help="Print the job's id only, not its report.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_config
def run(config: Config, interval: float, name: str, quiet: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND as a job on this machine, then inspect it. No Slurm needed."""
    import logging

    from agent.run import run_command

    # which probes are off is a matter of the machine: `rooflight check` tells
    logging.getLogger("rooflight.loop").setLevel(logging.WARNING)

    take_over = not is_for_another_store()
    result = run_command(config, command, interval=interval, name=name, take_over=take_over)
    if result.left_in_spool:
        click.echo(
            f"rooflight: the {config.store} store did not take everything: "
            f"{result.left_in_spool} bytes wait in {config.state_directory()}/runs/{result.jobid}"
            " and are sent by the next run or agent",
            err=True,
        )
    elif quiet or config.store == "stdout":
        click.echo(f"rooflight: job {result.jobid}", err=True)
    else:
        from agent.inspect.cli import show

        show(config, result.jobid)
    sys.exit(result.exit_code)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def phase(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND and mark its time as phase NAME of the job that this runs in."""
    from agent.workload.phase_command import run_phase

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("Missing argument 'COMMAND...'.")
    sys.exit(run_phase(name, words))


@main.command()
@with_config
def check(config: Config) -> None:
    """Say what each probe sees here, why others are off, and whether the store answers."""
    from agent.check import check_node

    if not check_node(config):
        sys.exit(UNREACHABLE)


@main.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--idle",
    "idle_seconds",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="End when nobody has asked for so long; systemd starts it again.",
)
def reader(config_file: Path | None, idle_seconds: float) -> None:
    """Read the store for users without a credential: each sees what is theirs to see."""
    from agent.command import log_to_stderr, one_line_errors
    from agent.reader import run_reader

    log_to_stderr()
    with one_line_errors(debug=False):
        run_reader(config_file, idle_seconds)


@main.group()
def store() -> None:
    """Set up the place where points live."""


@store.command("setup")
@with_config
def store_setup(config: Config) -> None:
    """Create what the store needs: databases, retention, mappings. Safe to repeat."""
    from agent.permissions import keep_private
    from agent.stores.setup import setup_store

    keep_private()
    for line in setup_store(config):
        click.echo(line)


@main.group()
def config() -> None:
    """Show the configuration."""


@config.command("show")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--with-origin", is_flag=True, help="Say for each key which file set it.")
def config_show(config_file: Path | None, with_origin: bool) -> None:
    """Print every key with its value in force. Secrets are not keys, and are not printed."""
    from agent.command import one_line_errors
    from agent.config import lines, load

    with one_line_errors(debug=False):
        for line in lines(load(config_file), with_origin=with_origin):
            click.echo(line)


@main.group()
def job() -> None:
    """Tell the agent of this node about jobs: for prolog and epilog."""


@job.command("start")
@click.argument("jobid")
@click.option("--pid", type=int, default=0, help="Root of the job's process tree.")
@click.option("--cpus", type=float, default=0.0, help="CPUs that the job may use here.")
@click.option("--user", default="")
@click.option("--name", default="")
@with_config
def job_start(config: Config, jobid: str, pid: int, cpus: float, user: str, name: str) -> None:
    """Say that job JOBID begins on this node."""
    import time

    from agent.messages import JobStart

    now = int(time.time() * 1000)
    _tell(config, JobStart(jobid, now, pid=pid, cpus=cpus, user=user, name=name))


@job.command("end")
@click.argument("jobid")
@click.option("--exit-code", type=int, default=0)
@with_config
def job_end(config: Config, jobid: str, exit_code: int) -> None:
    """Say that job JOBID ended on this node."""
    from agent.messages import JobEnd

    _tell(config, JobEnd(jobid, exit_code))


@job.command("comment")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_config
def job_comment(config: Config, folder: Path) -> None:
    """Write what ended jobs did into Slurm's AdminComment: for EpilogSlurmctld.

    FOLDER holds a file for each of them; this ends when all are done with.
    """
    from agent.inspect.commenter import run_commenter
    from agent.stores.opening import open_for_reading

    run_commenter(open_for_reading(config), config, folder)


def _tell(config: Config, message: object) -> None:
    from agent.client import ask

    path = config.socket_path()
    reply = ask(str(path), message)  # type: ignore[arg-type]
    if reply is None:
        raise Fault(f"no agent answers at {path}: is rooflight-agent running?", UNREACHABLE)
    if not reply.ok:
        raise Fault(reply.words, NOT_FOUND)

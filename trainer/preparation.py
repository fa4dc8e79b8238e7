"""The commands that look before a run leaps: what it comes to, and whether it can start."""

import json
from typing import Annotated

import typer

from trainer.amounts import bytes_of
from trainer.command_options import (
    AlgorithmName,
    Changes,
    Monitors,
    RecipeName,
    Rewards,
    named_services,
)
from trainer.config import load_config


def plan(
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the run.")] = 1,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="The same as --set sampling.samples_per_epoch=…."),
    ] = None,
    recipe: RecipeName = "sd14_compressibility",
    algorithm: AlgorithmName = None,
    set_: Changes = None,
) -> None:
    """Print what a run comes to: batches, steps, rewards and memory, in all and per GPU.

    Nothing is loaded and no service is asked. Sizes that do not fit are one line that says what to
    change to what.
    """
    overrides = [*(set_ or []), *([f"training.algorithm={algorithm}"] if algorithm else [])]
    overrides += [f"sampling.samples_per_epoch={samples}"] if samples is not None else []
    config = load_config(recipe, overrides)

    from trainer.plan import Plan

    typer.echo(Plan.of(config, gpus).text())


def doctor(
    recipe: RecipeName,
    reward: Rewards = None,
    monitor: Monitors = None,
    algorithm: AlgorithmName = None,
    set_: Changes = None,
    name: Annotated[str | None, typer.Option(help="Name of the run, as `ddpo train`.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Memory that the run may take, such as 24GB; by default what its device has left.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per check instead of a line.")
    ] = False,
) -> None:
    """Check all that a run needs: folder, services, device, memory, disk; exit 1 on a problem.

    Every reward is asked about a few pictures, more than once, and one batch is drawn and one
    micro-batch trained at the run's sizes. Nothing is written.
    """
    overrides = [*(set_ or []), *([f"run.name={name}"] if name else [])]
    overrides += [f"training.algorithm={algorithm}"] if algorithm else []
    budget = None if memory is None else bytes_of(memory, "--memory")
    rewards = named_services("reward", reward or []), named_services("monitor", monitor or [])
    config = load_config(recipe, overrides, *rewards)

    from trainer.doctor import examine

    problems = 0
    for finding in examine(config, budget):
        problems += finding.level == "problem"
        said = json.dumps(finding.as_dict(), ensure_ascii=False) if as_json else str(finding)
        typer.echo(said)
    if problems:
        raise typer.Exit(1)

"""The commands that look before a run leaps: what it comes to, and whether it can start."""

from typing import Annotated

import typer

from trainer.command_options import AlgorithmName, Changes, RecipeName
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

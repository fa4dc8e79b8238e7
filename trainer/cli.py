"""The `ddpo` command. torch is imported only by the commands that need it."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer import export_command, preparation
from trainer.command_options import named_services
from trainer.config import load_config
from trainer.recipe_files import recipe_names, recipe_path
from trainer.run_folder import RunFolder
from trainer.sections import Algorithm
from trainer.stops import ConfigError, Interrupted, Outage, RunStopped, told_here

app = typer.Typer(
    help="Fine-tune text-to-image diffusion models by reinforcement learning (DDPO).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Option(
            help="Name of a shipped recipe (`ddpo recipes`), or a TOML file; to resume, the "
            "`config.toml` of the run serves as well."
        ),
    ],
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL[,URL…]",
            help="A reward and the address of its service; several replicas with commas. May be "
            "repeated: see rewards.NAME.weight.",
        ),
    ] = None,
    monitor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL[,URL…]",
            help="A reward that judges the evaluation pictures and is never trained on; may be "
            "repeated.",
        ),
    ] = None,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="The same as --set training.algorithm=….")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; its folder is runs/NAME.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")
    ] = False,
    continue_: Annotated[
        bool, typer.Option("--continue", help="As --resume if the run has begun; else start it.")
    ] = False,
) -> None:
    """Train a model against a reward service."""
    overrides = [*(set_ or []), *([f"run.name={name}"] if name else [])]
    overrides += [f"training.algorithm={algorithm}"] if algorithm else []
    rewards, monitors = (
        named_services("reward", reward or []),
        named_services("monitor", monitor or []),
    )
    config = load_config(recipe, overrides, rewards, monitors)
    config.require_reward()  # told before torch is imported
    resume = resume or (continue_ and RunFolder(config.folder).used)

    from trainer.loop import train as run_training

    try:
        run_training(config, resume=resume)
    except (Outage, Interrupted) as stop:
        stop.add_note("continue with --resume")
        raise


@app.command()
def sample(
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be repeated.")],
    out: Annotated[Path, typer.Option(help="PNG file to write; several pictures become a sheet.")],
    model: Annotated[
        str | None, typer.Option(help="Folder of a diffusers pipeline, or its hub id.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run: draw with its weights, or so far with its newest checkpoint."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="DDIM steps; by default the run's, or 50.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, help="Guidance scale; by default the run's, or 5.")
    ] = None,
) -> None:
    """Draw pictures with a model, or with what a run has trained."""
    if (model is None) == (run is None):
        raise ConfigError("give either --model or --run")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {str(out)!r} must end in .png")
    if run is not None and not (run / "config.toml").is_file():
        raise ConfigError(f"--run {str(run)!r} is not the folder of a run: it has no config.toml")
    overrides = [f"model.path={model}"] if model is not None else []
    overrides += [f"sampling.steps={steps}"] if steps is not None else []
    overrides += [f"sampling.guidance_scale={guidance}"] if guidance is not None else []
    config = load_config(run / "config.toml" if run is not None else None, overrides)

    from trainer.drawing import draw_sheet

    prompts = [each for each in prompt for _ in range(count)]
    draw_sheet(config, prompts, seed=seed, out=out, trained_by=run)
    typer.echo(f"{len(prompts)} pictures in {out}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
    reward: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=URL[,URL…]", help="A reward that judges the pictures; may be repeated."
        ),
    ],
    prompts: Annotated[
        list[str],
        typer.Option(
            metavar="SET_OR_FILE",
            help="What to draw: a prompt set or a file, as `prompts.source`; may be repeated.",
        ),
    ],
    samples: Annotated[
        int | None,
        typer.Option(min=2, help="Pictures per model and prompt set; by default as the run's own."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the noise; by default as the run's own.")
    ] = None,
    checkpoint: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            metavar="EPOCH",
            help="Epoch of a checkpoint to compare; may be repeated; by default that of the run's "
            "weights, or so far the newest.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Folder in RUN/evaluations; by default named after the prompt sets."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is in that folder already.")
    ] = False,
) -> None:
    """Compare the base model with checkpoints of a run, on any prompts and by any rewards."""
    rewards = named_services("reward", reward)

    from trainer.comparison import Comparison, compare
    from trainer.comparison_results import table

    asked = Comparison(run, rewards, prompts, samples, seed, checkpoint or (), name, force)
    folder, results = compare(asked)
    typer.echo(f"{table(results)}\n\npictures and scores: {folder}")


@app.command()
def compare(
    study: Annotated[Path, typer.Argument(help="File that says what to compare (TOML).")],
    reward: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=URL[,URL…]", help="A reward of the study; repeated for each of them."
        ),
    ],
    monitor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=URL[,URL…]", help="A monitor of the study; may be repeated."),
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM/REWARD/SEED",
            help="Run this cell alone; may be repeated. `*` stands for any part, and parts at the "
            "end may be left out.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    rows: Annotated[
        Path | None,
        typer.Option(help="File of the results; by default RUNS/NAME/rows.json."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Run cells that have a row once more, in RUNS/NAME-again, and compare the curves.",
        ),
    ] = False,
) -> None:
    """Run a study: algorithms × rewards × seeds; what is interrupted goes on where it was."""
    named = named_services("reward", reward), named_services("monitor", monitor or [])

    from trainer.studies.runner import Services
    from trainer.studies.session import Session

    Session(study, Services(*named), cell or [], jobs, runs, rows, again).run(typer.echo)


@app.command()
def recipes(
    recipe: Annotated[
        str | None, typer.Argument(help="Print this recipe, to copy and change.")
    ] = None,
) -> None:
    """List the shipped recipes, or print one."""
    if recipe is not None:
        typer.echo(recipe_path(recipe).read_text(encoding="utf-8"), nl=False)
        return
    width = max(len(each) for each in recipe_names())
    for each in recipe_names():
        first_line = recipe_path(each).read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{each:{width}}  {first_line.lstrip('# ')}")


@app.command()
def guard(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="guard.KEY=VALUE", help="Another rule than the run's; may be repeated."
        ),
    ] = None,
) -> None:
    """Say when the guard would have ended a run, from its evaluations."""
    from trainer.guard_replay import replay, told

    typer.echo(told(replay(run, set_ or [])))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
) -> None:
    """Write a run's report.html anew."""
    from trainer.report import write_report

    typer.echo(write_report(RunFolder(run)))


app.command()(preparation.plan)
app.command()(preparation.doctor)
app.command()(export_command.export)


def main() -> None:
    """Run the command; what the user can mend is one line on stderr, never a traceback."""
    # peft imports it where it is installed, and it remarks on a kernel that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        app()
    except RunStopped as stop:
        if not told_here(stop):
            sys.exit(stop.exit_code)
        _fail("; ".join([str(stop), *getattr(stop, "__notes__", [])]), stop.exit_code)
    except OSError as error:
        _fail(str(error), 1)


def _fail(message: str, exit_code: int) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(exit_code)

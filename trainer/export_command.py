"""The command that writes a run's weights for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What other programs read."""

    kohya = "kohya"
    diffusers = "diffusers"
    merged = "merged"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="`kohya`: LoRA adapters for ComfyUI and AUTOMATIC1111, one file. `diffusers`: as "
            "the run's own results. `merged`: a whole pipeline folder, adapters folded in.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File (kohya) or folder to write.")],
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Take the weights without averaging, where a run averages them (`ema.decay`).",
        ),
    ] = False,
    checkpoint: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="EPOCH",
            help="Epoch of the checkpoint; by default that of the run's weights, or so far the "
            "newest.",
        ),
    ] = None,
) -> None:
    """Write the weights of a run for other programs."""
    from trainer.export import Export
    from trainer.export import export as write

    written, epoch = write(Export(run, format_.value, out, raw, checkpoint))
    typer.echo(f"weights after epoch {epoch}: {written}")

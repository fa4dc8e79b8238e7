"""Command line of the emoji world: rebuild its pictures and its models, and measure them."""

import json
from pathlib import Path
from typing import Annotated

import typer

CACHE = Path(".cache/emoji_world")
MODELS = Path("emoji_world/models")
RECORDS = MODELS / "training"
PACKAGES = Path("emoji_world/node_modules")
LOCK = Path("emoji_world/package-lock.json")
CARD = Path("emoji_world/MODEL_CARD.md")

app = typer.Typer(
    help="Rebuild the emoji world: icons, build, pretrain, decoder, classifier, export, evaluate, "
    "captioner, clip, examine, confusion, card, in this order. Run it in the folder that holds "
    "emoji_world.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CacheOption = Annotated[Path, typer.Option(help="Folder for everything that is not committed.")]
SeedOption = Annotated[int, typer.Option(help="Seed of every random draw.")]
RecordsOption = Annotated[Path, typer.Option(help="Folder for what the model card is made from.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads.")]
LearningRateOption = Annotated[float, typer.Option(help="Its highest value.")]
ModelsOption = Annotated[Path, typer.Option(help="Folder of all models.")]
ModelOption = Annotated[Path, typer.Option(help="Pipeline folder.")]
JudgeOption = Annotated[Path, typer.Option("--classifier", help="Classifier folder.")]


@app.command()
def icons(
    cache: CacheOption = CACHE,
    packages: Annotated[Path, typer.Option(help="The node_modules folder.")] = PACKAGES,
) -> None:
    """Rasterise the artwork that `npm ci` installed in the folder emoji_world."""
    from emoji_world.icons import build_cache

    print(f"{build_cache(packages, cache / 'icons.npz')} icons in {cache / 'icons.npz'}")


@app.command()
def build(
    cache: CacheOption = CACHE,
    count: Annotated[int, typer.Option(min=4096, help="Pictures to draw.")] = 65_536,
    seed: SeedOption = 0,
) -> None:
    """Draw the training pictures."""
    from emoji_world.dataset import draw_training_set, save_dataset
    from emoji_world.icons import load_icons

    dataset = draw_training_set(load_icons(cache / "icons.npz"), count, seed)
    save_dataset(dataset, cache / "pictures")
    print(f"{len(dataset)} pictures in {cache / 'pictures'}")


@app.command()
def pretrain(
    cache: CacheOption = CACHE,
    samples: Annotated[int, typer.Option(min=1, help="Pictures to see in all.")] = 600_000,
    batch_size: Annotated[int, typer.Option(min=2, help="Pictures per process and step.")] = 48,
    processes: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
    learning_rate: LearningRateOption = 1e-3,
    seed: SeedOption = 0,
) -> None:
    """Train UNet and text encoder, or continue after an interruption."""
    from emoji_world.pretraining import PretrainingPlan
    from emoji_world.pretraining import pretrain as run

    plan = PretrainingPlan(samples, batch_size, processes, learning_rate, seed)
    run(plan, cache / "pictures", cache / "generator")


@app.command()
def decoder(
    cache: CacheOption = CACHE,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 4000,
    seed: SeedOption = 0,
) -> None:
    """Train the decoder of the autoencoder."""
    from emoji_world.autoencoder_training import train_decoder
    from emoji_world.dataset import load_dataset

    dataset = load_dataset(cache / "pictures")
    vae, decibels = train_decoder(dataset, dataset.components(), steps, seed)
    vae.save_pretrained(cache / "vae")
    print(f"decoder: {decibels:.2f} dB on unseen pictures, in {cache / 'vae'}")


@app.command()
def classifier(
    cache: CacheOption = CACHE,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2500,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = MODELS / "classifier",
) -> None:
    """Train the picture classifier and report its accuracy on held-out pictures."""
    from emoji_world.classifier import load_classifier, save_classifier
    from emoji_world.classifier_training import (
        HELD_OUT_PICTURES,
        held_out_accuracy,
        train_classifier,
    )
    from emoji_world.icons import load_icons

    artwork = load_icons(cache / "icons.npz")
    save_classifier(train_classifier(artwork, steps, seed), out)
    accuracy = held_out_accuracy(load_classifier(out), artwork, HELD_OUT_PICTURES, seed=seed + 1)
    (out / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    for family, share in accuracy.items():
        print(f"{family:24s} {share:.1%}")


@app.command()
def export(
    cache: CacheOption = CACHE,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = MODELS / "diffusion",
    records: RecordsOption = RECORDS,
) -> None:
    """Write the averaged weights as a StableDiffusionPipeline folder, with the training's log."""
    from emoji_world.export import export_model

    export_model(cache, out, records)
    print(f"{folder_megabytes(out):.1f} MB in {out}")


@app.command()
def evaluate(
    model: ModelOption = MODELS / "diffusion",
    judge: JudgeOption = MODELS / "classifier",
    per_prompt: Annotated[int, typer.Option(min=1, help="Samples per single animal.")] = 8,
    others: Annotated[int, typer.Option(min=1, help="Samples per other prompt group.")] = 184,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps.")] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 5.0,
    seed: SeedOption = 0,
    threads: ThreadsOption = 2,
    out: RecordsOption = RECORDS,
) -> None:
    """Sample the generator and let the classifier judge, per prompt family."""
    import torch

    from emoji_world.evaluation import EvaluationPlan, evaluate_generator

    torch.set_num_threads(threads)
    plan = EvaluationPlan(per_prompt, others, steps, guidance, seed)
    for name, row in evaluate_generator(model, judge, out, plan).items():
        print(f"{name:24s} n={row.samples:4d}  noun {row.noun:.1%}  whole {row.whole:.1%}")


@app.command()
def clip(
    cache: CacheOption = CACHE,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 900,
    batch_size: Annotated[int, typer.Option(min=4, help="Pictures per step.")] = 128,
    learning_rate: LearningRateOption = 1e-3,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
    models: ModelsOption = MODELS,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = MODELS / "clip",
    records: RecordsOption = RECORDS,
) -> None:
    """Train the CLIP model from the caption model, or continue, then its aesthetic head."""
    import torch

    from emoji_world.clip_training import export_clip
    from emoji_world.icons import load_icons
    from emoji_world.training_run import TrainingPlan

    torch.set_num_threads(threads)
    plan = TrainingPlan(steps, batch_size, learning_rate, seed)
    artwork = load_icons(cache / "icons.npz")
    export_clip(artwork, models, plan, cache / "clip", out, records / "clip")
    print(f"{folder_megabytes(out):.1f} MB in {out}")


@app.command()
def captioner(
    cache: CacheOption = CACHE,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 8200,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per step.")] = 32,
    learning_rate: LearningRateOption = 1e-3,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
    models: ModelsOption = MODELS,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = MODELS / "captioner",
    records: RecordsOption = RECORDS,
) -> None:
    """Train the caption model, or continue after an interruption."""
    import torch

    from emoji_world.captioner_training import export_captioner
    from emoji_world.icons import load_icons
    from emoji_world.training_run import TrainingPlan

    torch.set_num_threads(threads)
    plan = TrainingPlan(steps, batch_size, learning_rate, seed)
    artwork = load_icons(cache / "icons.npz")
    export_captioner(artwork, models, plan, cache / "captioner", out, records / "captioner")
    print(f"{folder_megabytes(out):.1f} MB in {out}")


@app.command()
def examine(
    cache: CacheOption = CACHE,
    models: ModelsOption = MODELS,
    held_out: Annotated[int, typer.Option(min=1, help="Real pictures per family.")] = 400,
    samples: Annotated[int, typer.Option(min=1, help="Generated pictures per group.")] = 48,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 5.0,
    seed: SeedOption = 1000,
    threads: ThreadsOption = 1,
) -> None:
    """Examine the CLIP model, its aesthetic head and the caption model."""
    import torch

    from emoji_world.exam_pictures import ExamPlan
    from emoji_world.examination import examine_models
    from emoji_world.icons import load_icons

    torch.set_num_threads(threads)
    plan = ExamPlan(held_out, samples, steps, guidance, seed)
    for line in examine_models(load_icons(cache / "icons.npz"), models, plan):
        print(line)


@app.command()
def confusion(
    reward: Annotated[
        list[str],
        typer.Option(metavar="NAME=URL", help="A running reward service; may be repeated."),
    ],
    cache: CacheOption = CACHE,
    pictures: Annotated[int, typer.Option(min=2, help="Real pictures per row.")] = 20,
    seed: SeedOption = 2000,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/confusion.md"),
) -> None:
    """Ask reward services about real pictures under right and wrong prompts."""
    from emoji_world.confusion import confusion_page
    from emoji_world.icons import load_icons

    services = dict(given.split("=", 1) for given in reward if "=" in given)
    if len(services) < len(reward):
        raise ValueError("--reward is not of the form NAME=URL, or a name comes twice")
    page = confusion_page(services, load_icons(cache / "icons.npz"), pictures, seed)
    out.write_text(page, encoding="utf-8")
    print(out)


def folder_megabytes(folder: Path) -> float:
    """Size of all files in ``folder``, in 10⁶ bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@app.command()
def card(
    models: Annotated[Path, typer.Option(help="Folder of diffusion, classifier, training.")] = (
        MODELS
    ),
    lock: Annotated[Path, typer.Option(help="Lock file of the artwork.")] = LOCK,
    out: Annotated[Path, typer.Option(help="File to write.")] = CARD,
) -> None:
    """Write the model card from what was recorded and measured."""
    from emoji_world.model_card import render_card

    out.write_text(render_card(models, lock, out.parent), encoding="utf-8")
    print(out)


def main() -> None:
    """Run the command line; a user's error is one line."""
    from emoji_world.dataset import DatasetMissing
    from emoji_world.icons import ArtworkMissing
    from shared.errors import RewardError

    try:
        app()
    except (
        ArtworkMissing,
        DatasetMissing,
        RewardError,  # the samples of a broken generator are no pictures
        FloatingPointError,
        ValueError,
        OSError,
    ) as error:
        typer.echo(f"emoji_world: {' '.join(str(error).split())}", err=True)
        raise SystemExit(1) from None

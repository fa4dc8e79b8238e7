"""Command line of the emoji world: rebuild its pictures and its models, and measure them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

CACHE = Path(".cache/emoji_world")
MODELS = Path("emoji_world/models")
PACKAGES = Path("emoji_world/node_modules")

app = typer.Typer(
    help="Rebuild the emoji world: icons, build, classifier, decoder, pretrain, export, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CacheOption = Annotated[Path, typer.Option(help="Folder for everything that is not committed.")]
SeedOption = Annotated[int, typer.Option(help="Seed of every random draw.")]


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
    learning_rate: Annotated[float, typer.Option(help="Its highest value.")] = 1e-3,
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
    import numpy as np

    from emoji_world.autoencoder_training import train_decoder
    from emoji_world.dataset import load_dataset
    from emoji_world.latents import fit_components

    dataset = load_dataset(cache / "pictures")
    components = fit_components(dataset.images(np.arange(4096)))
    vae, decibels = train_decoder(dataset, components, steps, seed)
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
    from emoji_world.classifier_training import held_out_accuracy, train_classifier
    from emoji_world.icons import load_icons

    artwork = load_icons(cache / "icons.npz")
    save_classifier(train_classifier(artwork, steps, seed), out)
    accuracy = held_out_accuracy(load_classifier(out), artwork, count=1000, seed=seed + 1)
    (out / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    for family, share in accuracy.items():
        print(f"{family:24s} {share:.1%}")


@app.command()
def export(
    cache: CacheOption = CACHE,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = MODELS / "diffusion",
) -> None:
    """Write the averaged weights as a StableDiffusionPipeline folder."""
    from diffusers import AutoencoderKL

    from emoji_world.generator import save_pipeline
    from emoji_world.pretraining import averaged_modules

    tokenizer, text_encoder, unet = averaged_modules(cache / "generator")
    vae = AutoencoderKL.from_pretrained(cache / "vae")
    save_pipeline(out, tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, vae=vae)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB in {out}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="Pipeline folder.")] = MODELS / "diffusion",
    judge_folder: Annotated[Path, typer.Option("--classifier", help="Classifier folder.")] = MODELS
    / "classifier",
    per_prompt: Annotated[int, typer.Option(min=1, help="Samples per single animal.")] = 8,
    others: Annotated[int, typer.Option(min=1, help="Samples per other prompt group.")] = 184,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps.")] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 5.0,
    seed: SeedOption = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for quality.json and the sheets.")] = CACHE
    / "quality",
) -> None:
    """Sample the generator and let the classifier judge, per prompt family."""
    from emoji_world.evaluation import evaluate_generator

    rows = evaluate_generator(
        model,
        judge_folder,
        out,
        per_prompt=per_prompt,
        others=others,
        steps=steps,
        guidance=guidance,
        seed=seed,
        threads=threads,
    )
    for name, row in rows.items():
        print(f"{name:24s} n={row.samples:4d}  noun {row.noun:.1%}  whole {row.whole:.1%}")
    (out / "quality.json").write_text(
        json.dumps({name: asdict(row) for name, row in rows.items()}, indent=2) + "\n"
    )


def main() -> None:
    """Run the command line; a user's error is one line."""
    from emoji_world.dataset import DatasetMissing
    from emoji_world.icons import ArtworkMissing

    try:
        app()
    except (ArtworkMissing, DatasetMissing, ValueError, OSError) as error:
        typer.echo(f"emoji_world: {error}", err=True)
        raise SystemExit(1) from None

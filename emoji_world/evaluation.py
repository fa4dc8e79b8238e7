"""The measurement behind the model card: samples of every prompt group, judged and drawn."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from emoji_world.captions import Caption
from emoji_world.classifier import load_classifier
from emoji_world.quality import Quality, groups, judge, sample_pictures, sheet


def evaluate_generator(
    model: Path,
    classifier_folder: Path,
    out: Path,
    *,
    per_prompt: int,
    others: int,
    steps: int,
    guidance: float,
    seed: int,
    threads: int,
) -> dict[str, Quality]:
    """Judge ``per_prompt`` samples of each animal and ``others`` of each further prompt group.

    Writes one sheet of samples per group into ``out``.

    Raises:
        ValueError: the classifier folder holds no classifier.
        OSError: the model folder holds no pipeline.
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    classifier = load_classifier(classifier_folder)
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, torch_dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    rows = {}
    for name, captions in groups().items():
        chosen = _chosen(captions, per_prompt if name == "animal" else None, others, seed)
        pictures = sample_pictures(
            pipeline, [c.text for c in chosen], steps=steps, guidance=guidance, seed=seed
        )
        rows[name] = judge(classifier, pictures, chosen)
        sheet(pictures, columns=24).save(out / f"{name.replace(', ', '_')}.png", optimize=True)
    return rows


def _chosen(
    captions: list[Caption], per_prompt: int | None, others: int, seed: int
) -> list[Caption]:
    if per_prompt is not None:
        return [caption for caption in captions for _ in range(per_prompt)]
    order = np.random.default_rng(seed).permutation(len(captions))
    return [captions[order[index % len(captions)]] for index in range(others)]

"""The measurement behind the model card: samples of every prompt group, judged and drawn."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from emoji_world.captions import Caption
from emoji_world.classifier import load_classifier
from emoji_world.quality import Quality, groups, sample_pictures, spread_over, summarise
from emoji_world.sample_sheets import sheet, shown


@dataclass(frozen=True)
class EvaluationPlan:
    """What is sampled, and how.

    Attributes:
        per_prompt: samples of each of the 45 animals.
        others: samples of each further prompt group, spread over its prompts.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        seed: seed of the choice of prompts and of every sample.
    """

    per_prompt: int = 8
    others: int = 184
    steps: int = 30
    guidance: float = 5.0
    seed: int = 0


def evaluate_generator(
    model: Path, classifier_folder: Path, out: Path, plan: EvaluationPlan
) -> dict[str, Quality]:
    """Sample every prompt group and let the classifier judge; the quality of each group.

    Writes ``samples/GROUP.jpg`` into ``out``, and ``quality.json`` when all is judged.

    Raises:
        ValueError: the model folder holds no pipeline, or the classifier folder no classifier.
    """
    classifier = load_classifier(classifier_folder)
    pipeline = load_pipeline(model)
    (out / "samples").mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, captions in groups().items():
        chosen = _chosen(captions, plan, every=name == "animal")
        prompts = [caption.text for caption in chosen]
        pictures = sample_pictures(
            pipeline, prompts, steps=plan.steps, guidance=plan.guidance, seed=plan.seed
        )
        readings = classifier.read(pictures)
        rows[name] = summarise(readings, chosen)
        places = shown(chosen)
        wrong = [not readings[place].matches(chosen[place]) for place in places]
        drawn = sheet(pictures[places], [prompts[place] for place in places], wrong)
        drawn.save(out / "samples" / sheet_name(name), quality=88)
    _write_quality(out / "quality.json", plan, rows)
    return rows


def sheet_name(group: str) -> str:
    """File name of the sheet of one prompt group."""
    return f"{group.replace(', ', '_')}.jpg"


def load_pipeline(model: Path) -> StableDiffusionPipeline:
    """The pipeline in ``model``, in float32.

    Raises:
        ValueError: ``model`` is not a pipeline folder.
    """
    # Without this check diffusers takes the path for the name of a model on a hub.
    if not (model / "model_index.json").is_file():
        raise ValueError(f"{model} holds no pipeline: run `python -m emoji_world export` first")
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _write_quality(path: Path, plan: EvaluationPlan, rows: dict[str, Quality]) -> None:
    record = {**asdict(plan), "groups": {name: asdict(row) for name, row in rows.items()}}
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, path)


def _chosen(captions: list[Caption], plan: EvaluationPlan, *, every: bool) -> list[Caption]:
    if every:
        return [caption for caption in captions for _ in range(plan.per_prompt)]
    return spread_over(captions, plan.others, plan.seed)

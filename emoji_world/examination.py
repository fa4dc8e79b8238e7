"""The exam of the learned rewards, recorded for the model card."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from emoji_world.aesthetic_head import load_head
from emoji_world.captioner import answers, load_captioner
from emoji_world.captioner_exam import examine_captioner
from emoji_world.classifier import load_classifier
from emoji_world.clip_exam import examine_clip
from emoji_world.clip_model import HEAD_FILE, PROJECTION, load_clip
from emoji_world.exam_pictures import ExamPlan, exam_pictures
from emoji_world.icons import IconSet


def examine_models(icons: IconSet, models: Path, plan: ExamPlan) -> Iterator[str]:
    """Examine ``clip`` and ``captioner`` in ``models``; a line for each result.

    Writes ``training/clip/quality.json`` and ``training/captioner/quality.json``.

    Raises:
        ValueError: a model is missing.
    """
    judge = load_classifier(models / "classifier")
    clip, clip_processor = load_clip(models / "clip")
    head = load_head(models / "clip" / HEAD_FILE, PROJECTION)
    captioner, processor = load_captioner(models / "captioner")
    pictures = exam_pictures(icons, models / "diffusion", plan)
    results = {
        "clip": examine_clip(clip, clip_processor, head, pictures),
        "captioner": examine_captioner(partial(answers, captioner, processor), pictures, judge),
    }
    for name, result in results.items():
        _write(models / "training" / name / "quality.json", {"plan": asdict(plan), **result})
        yield from _lines(name, result)


def _lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    for part, value in result.items():
        if isinstance(value, dict) and all(isinstance(row, dict) for row in value.values()):
            yield from (f"{name} {part} {key}: {json.dumps(row)}" for key, row in value.items())
        else:
            yield f"{name} {part}: {json.dumps(value)}"


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f"{path.name}.partial")
    partial_file.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial_file, path)

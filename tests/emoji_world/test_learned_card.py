"""The card's sections on the learned rewards: recorded numbers, or the command that makes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoji_world.exam_pictures import SIGNS
from emoji_world.fresh_pictures import EVEN_SHARES
from emoji_world.learned_card import SIGN_TITLES, learned_sections
from emoji_world.model_card import FAMILY_TITLES
from emoji_world.quality import groups

CAPTIONER: dict[str, Any] = {
    "plan": {"guidance": 5.0, "steps": 20, "seed": 1000},
    "families": {f: {"pictures": 400, "caption": 0.972, "animal": 0.9925} for f in EVEN_SHARES},
    "signs": {
        kind: {
            "pictures": 400,
            "caption": 0.931,
            "count": 0.945,
            "count_of_absent": 0.981,
            "read_the_sign": 0.013,
            "by_count": {"two": 1.0, "six": 0.84},
        }
        for kind in SIGNS
    },
    "samples": {
        g: {"pictures": 64, "prompt": 0.711, "judge_prompt": 0.722, "agreement": 0.933}
        for g in groups()
    },
}
CLIP: dict[str, Any] = {
    "captions": 541,
    "families": {family: {"pictures": 400, "caption": 0.887} for family in EVEN_SHARES},
    "samples": {group: {"pictures": 64, "prompt": 0.655} for group in groups()},
    "style": 0.977,
    "taste": {"pictures": 2800, "correlation": 0.91, "line_art": 6.62, "colour": 5.02},
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name, exam in (("captioner", CAPTIONER), ("clip", CLIP)):
        (tmp_path / name).mkdir()
        tensors = {"weight": np.zeros((1000, 1340), np.float16)}
        save_file(tensors, tmp_path / name / "model.safetensors")
        records = tmp_path / "training" / name
        records.mkdir(parents=True)
        (records / "quality.json").write_text(json.dumps(exam))
        plan = {"steps": 5000, "batch_size": 64, "learning_rate": 0.001, "seed": 7}
        (records / "plan.json").write_text(json.dumps(plan))
        row = {"step": 5000, "loss": 0.0712, "validation_loss": 0.0823, "seconds": 5.0}
        (records / "log.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_the_recorded_numbers_are_told(models: Path) -> None:
    captioner, clip = learned_sections(models, FAMILY_TITLES)
    for number in (
        "1.34 M parameters, 2.7 MB",
        "5,000 steps of 64 pictures",
        "0.0712",
        "0.0823",
        "| single animals of the 45 | 400 | 97.2% | 99.2% |",
        "| a digit that tells a wrong number | 400 | 93.1% | 94.5% | 98.1% | 1.3% |",
        "- no digit: two 100%, six 84%",
        "| counted animals | 64 | 71.1% | 72.2% | 93.3% |",
    ):
        assert number in " ".join(captioner.split("\n")), number
    for number in ("541", "88.7%", "65.5%", "97.7%", "r = 0.91", "6.62", "5.02", "2,800"):
        assert number in clip, number


def test_nothing_is_told_of_models_that_are_not_there(tmp_path: Path) -> None:
    assert learned_sections(tmp_path, FAMILY_TITLES) == ()


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("captioner/quality.json", "examine"),
        ("captioner/plan.json", "captioner"),
        ("clip/log.jsonl", "clip"),
    ],
)
def test_a_missing_record_names_the_command_that_makes_it(
    models: Path, file: str, command: str
) -> None:
    (models / "training" / file).unlink()
    with pytest.raises(ValueError, match=f"python -m emoji_world {command}`"):
        learned_sections(models, FAMILY_TITLES)


def test_every_kind_of_sign_has_its_words_and_no_placeholder_is_left(models: Path) -> None:
    assert set(SIGN_TITLES) == set(SIGNS)
    for section in learned_sections(models, FAMILY_TITLES):
        assert "{" not in section
        assert "None" not in section
        assert max(len(line) for line in section.splitlines() if line[:1] != "|") <= 100

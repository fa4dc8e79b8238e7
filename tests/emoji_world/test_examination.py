"""The whole exam, on untrained models: every record is written, and what is missing is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from emoji_world.aesthetic_head import AestheticHead, save_head
from emoji_world.captioner import build_captioner, save_captioner
from emoji_world.captioner import build_processor as captioner_processor
from emoji_world.clip_model import HEAD_FILE, PROJECTION, build_clip, save_clip
from emoji_world.clip_model import build_processor as clip_processor
from emoji_world.exam_pictures import ExamPlan
from emoji_world.examination import examine_models
from emoji_world.icons import IconSet
from emoji_world.learned_card import learned_sections
from emoji_world.model_card import FAMILY_TITLES

PLAN = ExamPlan(held_out=5, samples=1, steps=2, guidance=1.0)


@pytest.fixture
def models(tmp_path: Path, untrained: Path) -> Path:
    torch.manual_seed(0)
    for name in ("diffusion", "classifier"):
        shutil.copytree(untrained / name, tmp_path / name)
    processor = clip_processor()
    save_clip(build_clip(processor.tokenizer, 32, 1), processor, tmp_path / "clip")
    save_head(AestheticHead(PROJECTION), tmp_path / "clip" / HEAD_FILE)
    asker = captioner_processor()
    save_captioner(build_captioner(asker.tokenizer, 32, 1, 1), asker, tmp_path / "captioner")
    return tmp_path


def test_records_are_written_and_make_the_card(models: Path, discs: IconSet) -> None:
    lines = list(examine_models(discs, models, PLAN))
    assert any(line.startswith("captioner signs misleading: ") for line in lines)
    assert any(line.startswith("clip taste: ") for line in lines)
    for name in ("clip", "captioner"):
        folder = models / "training" / name
        record = json.loads((folder / "quality.json").read_text())
        assert record["plan"]["held_out"] == 5
        assert record["families"]["animal"]["pictures"] == 5
        (folder / "plan.json").write_text('{"batch_size": 64, "learning_rate": 0.001, "seed": 0}')
        (folder / "log.jsonl").write_text('{"step": 9, "loss": 0.5, "validation_loss": 0.6}\n')
    captioner, clip = learned_sections(models, FAMILY_TITLES)
    assert "| single animals of the 45 | 5 | 0.0% | 0.0% |" in captioner
    assert "| a digit that tells a wrong number | 5 |" in captioner
    assert "r = " in clip


@pytest.mark.parametrize(
    ("folder", "command"), [("clip", "clip"), ("captioner", "captioner"), ("diffusion", "export")]
)
def test_a_missing_model_is_named(models: Path, discs: IconSet, folder: str, command: str) -> None:
    shutil.rmtree(models / folder)
    with pytest.raises(ValueError, match=f"python -m emoji_world {command}"):
        list(examine_models(discs, models, PLAN))
    assert not (models / "training").exists()

"""What the exam of the CLIP model and its head reports, on an untrained model."""

from pathlib import Path

import pytest
import torch

from emoji_world.aesthetic_head import AestheticHead
from emoji_world.captions import all_captions
from emoji_world.clip_exam import examine_clip
from emoji_world.clip_model import PROJECTION, build_clip, build_processor
from emoji_world.exam_pictures import ExamPlan, exam_pictures
from emoji_world.fresh_pictures import EVEN_SHARES
from emoji_world.icons import IconSet
from emoji_world.quality import groups
from emoji_world.vocabulary import LINE_ART


def test_an_untrained_model_is_right_by_chance_and_everything_is_reported(
    discs: IconSet, untrained: Path
) -> None:
    torch.manual_seed(0)
    processor = build_processor()
    model = build_clip(processor.tokenizer, width=32, layers=1).eval()
    plan = ExamPlan(held_out=20, samples=2, steps=2, guidance=1.0)
    pictures = exam_pictures(discs, untrained / "diffusion", plan)
    head = AestheticHead(PROJECTION).eval()
    report = examine_clip(model, processor, head, pictures)
    assert report["captions"] == len(all_captions())
    assert report["families"].keys() == EVEN_SHARES.keys()
    assert all(row["caption"] <= 0.15 for row in report["families"].values())
    assert report["samples"].keys() == groups().keys()
    styles = [style for scenes in pictures.families.values() for style in scenes.styles]
    # It answers almost blindly: as good as always saying the same.
    drawn = styles.count(LINE_ART) / len(styles)
    assert report["style"] == pytest.approx(drawn, abs=0.3) or report["style"] == pytest.approx(
        1 - drawn, abs=0.3
    )
    assert report["taste"]["pictures"] == 20 * len(EVEN_SHARES)
    assert -1 <= report["taste"]["correlation"] <= 1

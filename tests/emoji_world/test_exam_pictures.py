"""The pictures of an exam: every family, every kind of sign, every prompt group."""

from pathlib import Path

import numpy as np
import pytest

from emoji_world.exam_pictures import SIGNS, ExamPlan, exam_pictures
from emoji_world.fresh_pictures import EVEN_SHARES
from emoji_world.icons import IconSet
from emoji_world.quality import groups

PLAN = ExamPlan(held_out=12, samples=2, steps=2, guidance=2.0)


def test_an_exam_has_all_kinds_of_pictures(discs: IconSet, untrained: Path) -> None:
    exam = exam_pictures(discs, untrained / "diffusion", PLAN)
    assert exam.families.keys() == EVEN_SHARES.keys()
    for family, scenes in exam.families.items():
        assert {caption.family for caption in scenes.captions} == {family}
        assert scenes.pixels.shape == (12, 64, 64, 3)
        assert len({caption.text for caption in scenes.captions}) > 6
        assert not any(scenes.signs)
    assert tuple(exam.signs) == SIGNS
    for kind, scenes in exam.signs.items():
        for caption, sign in zip(scenes.captions, scenes.signs, strict=True):
            assert caption.count > 1
            shown = "none" if not sign else "right" if sign == caption.count else "misleading"
            assert shown == kind
    assert exam.samples.keys() == groups().keys()
    for name, samples in exam.samples.items():
        assert len(samples.captions) == len(samples.pixels) == 2
        assert set(samples.captions) <= set(groups()[name])


def test_one_seed_makes_one_exam(discs: IconSet, untrained: Path) -> None:
    first, again = (exam_pictures(discs, untrained / "diffusion", PLAN) for _ in range(2))
    for one, other in ((first.families, again.families), (first.signs, again.signs)):
        assert all(np.array_equal(one[name].pixels, other[name].pixels) for name in one)
    assert all(
        np.array_equal(first.samples[name].pixels, again.samples[name].pixels)
        for name in first.samples
    )


def test_a_missing_generator_is_told(discs: IconSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world export"):
        exam_pictures(discs, tmp_path, PLAN)

"""What the exam of the caption model counts, told by readers whose answers are known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emoji_world.captioner_exam import examine_captioner
from emoji_world.captions import Caption
from emoji_world.classifier import PictureClassifier, Reading
from emoji_world.exam_pictures import ExamPictures, ExamPlan, exam_pictures
from emoji_world.icons import IconSet
from emoji_world.questions import COUNT_WORDS, DESCRIPTION, SPECIES, name_animal
from emoji_world.vocabulary import plural


@pytest.fixture(scope="module")
def exam(discs: IconSet, untrained: Path) -> ExamPictures:
    plan = ExamPlan(held_out=30, samples=2, steps=2, guidance=1.0)
    return exam_pictures(discs, untrained / "diffusion", plan)


@pytest.fixture(scope="module")
def truth(exam: ExamPictures) -> dict[bytes, tuple[Caption, int]]:
    """Each picture's caption and sign."""
    scenes = [*exam.families.values(), *exam.signs.values()]
    known = {
        pixels.tobytes(): (caption, sign)
        for part in scenes
        for pixels, caption, sign in zip(part.pixels, part.captions, part.signs, strict=True)
    }
    return known | {
        pixels.tobytes(): (caption, 0)
        for part in exam.samples.values()
        for pixels, caption in zip(part.pixels, part.captions, strict=True)
    }


class Judge(PictureClassifier):
    """Reads what it is told."""

    def __init__(self, read: Callable[[bytes], Reading]) -> None:
        super().__init__()
        self._told = read

    def read(self, pictures: NDArray[np.uint8], batch_size: int = 64) -> list[Reading]:
        del batch_size
        return [self._told(picture.tobytes()) for picture in pictures]


def answer(caption: Caption, count: int, question: str) -> str:
    if question == DESCRIPTION:
        return caption.text
    if question == SPECIES:
        return name_animal(caption).answer
    return COUNT_WORDS.get(count, "many") if f" {plural(caption.noun)} " in question else "zero"


def reading(caption: Caption) -> Reading:
    phrase = caption.activity.phrase if caption.activity else ""
    return Reading(caption.noun, phrase, caption.count)


def test_who_sees_everything_gets_full_marks(
    exam: ExamPictures, truth: dict[bytes, tuple[Caption, int]]
) -> None:
    def ask(pictures: NDArray[np.uint8], questions: Sequence[str]) -> list[str]:
        seen = [truth[picture.tobytes()][0] for picture in pictures]
        return [answer(c, c.count, q) for c, q in zip(seen, questions, strict=True)]

    report = examine_captioner(ask, exam, Judge(lambda picture: reading(truth[picture][0])))
    assert all(
        row == {"pictures": 30, "caption": 1.0, "animal": 1.0}
        for row in report["families"].values()
    )
    assert report["confusion"]["activity"] == {"activity": 30}
    for row in report["signs"].values():
        assert (row["caption"], row["count"], row["count_of_absent"]) == (1, 1, 1)
        assert row["read_the_sign"] == 0
        assert set(row["by_count"].values()) == {1.0}
    for row in report["samples"].values():
        assert row == {"pictures": 2, "prompt": 1.0, "judge_prompt": 1.0, "agreement": 1.0}


def test_who_reads_the_sign_is_caught(
    exam: ExamPictures, truth: dict[bytes, tuple[Caption, int]]
) -> None:
    def ask(pictures: NDArray[np.uint8], questions: Sequence[str]) -> list[str]:
        seen = [truth[picture.tobytes()] for picture in pictures]
        return [answer(c, sign or c.count, q) for (c, sign), q in zip(seen, questions, strict=True)]

    report = examine_captioner(ask, exam, Judge(lambda picture: reading(truth[picture][0])))
    signs = report["signs"]
    assert (signs["none"]["count"], signs["right"]["count"]) == (1, 1)
    assert signs["misleading"]["count"] == 0
    known = [sign <= 6 for sign in exam.signs["misleading"].signs]
    assert signs["misleading"]["read_the_sign"] == pytest.approx(np.mean(known), abs=1e-4)
    assert signs["right"]["read_the_sign"] == signs["none"]["read_the_sign"] == 0


def test_who_always_says_the_same_is_right_by_chance_only(exam: ExamPictures) -> None:
    def ask(pictures: NDArray[np.uint8], _: Sequence[str]) -> list[str]:
        return ["a cat"] * len(pictures)

    report = examine_captioner(ask, exam, Judge(lambda _: Reading("dog", "", 1)))
    assert report["families"]["activity"] == {"pictures": 30, "caption": 0.0, "animal": 0.0}
    assert report["confusion"]["count"] == {"animal": 30}
    assert report["samples"]["animal"]["agreement"] == 0


def test_an_answer_that_is_no_caption_is_counted_as_none(exam: ExamPictures) -> None:
    def ask(pictures: NDArray[np.uint8], _: Sequence[str]) -> list[str]:
        return ["cat cat"] * len(pictures)

    report = examine_captioner(ask, exam, Judge(lambda _: Reading("dog", "", 1)))
    assert report["confusion"]["object"] == {"": 30}
    assert report["samples"]["object"]["agreement"] == 0

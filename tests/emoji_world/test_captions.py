"""The captions, their order and their weights: the committed models know them by number."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emoji_world.captions import (
    FAMILY_SHARES,
    IDLE_ANIMALS,
    MISCAPTIONED_SHARE,
    RARE_CAPTION_WEIGHT,
    all_captions,
    shown_instead,
    training_weights,
)
from emoji_world.vocabulary import ACTIVITIES, ANIMALS

CAPTIONS = all_captions()
GOLDEN = "53ff39a244116a59c972830ada3c3cfb6a32f058c9a49ef5634525cd8f8723bb"
FAMILIES = np.array([caption.family for caption in CAPTIONS])


def test_captions_keep_the_order_and_the_rare_pairs_that_the_models_were_trained_on() -> None:
    lines = "\n".join(f"{caption.text} {caption.rare}" for caption in CAPTIONS)
    assert hashlib.sha256(lines.encode()).hexdigest() == GOLDEN


def test_no_caption_comes_twice() -> None:
    assert len({caption.text for caption in CAPTIONS}) == len(CAPTIONS)


def test_a_caption_says_what_it_draws() -> None:
    by_text = {caption.text: caption for caption in CAPTIONS}
    chess = by_text["an ant playing chess"]
    assert (chess.noun, chess.count, chess.family) == ("ant", 1, "activity")
    assert chess.activity is ACTIVITIES[1]
    wolves = by_text["three wolves"]
    assert (wolves.noun, wolves.count, wolves.family) == ("wolf", 3, "count")
    assert by_text["a koala flying a kite"].family == "unseen_animal_activity"


def test_every_animal_meets_every_activity() -> None:
    pairs = {(c.noun, c.activity.phrase) for c in CAPTIONS if c.activity}
    assert {(noun, a.phrase) for noun in ANIMALS for a in ACTIVITIES} <= pairs


def test_two_fifths_of_the_pairs_of_each_activity_are_rare() -> None:
    rare = Counter(c.activity.phrase for c in CAPTIONS if c.activity and c.rare)
    assert rare == {activity.phrase: 18 for activity in ACTIVITIES}
    assert set(IDLE_ANIMALS) < set(ANIMALS)
    assert {c.noun for c in CAPTIONS if c.rare} == set(IDLE_ANIMALS)


def test_the_weights_are_a_distribution_with_the_declared_shares() -> None:
    weights = training_weights(CAPTIONS)
    assert weights.sum() == pytest.approx(1)
    assert sum(FAMILY_SHARES.values()) == pytest.approx(1)
    for family, share in FAMILY_SHARES.items():
        assert weights[family == FAMILIES].sum() == pytest.approx(share)


@pytest.mark.parametrize("family", FAMILY_SHARES)
def test_within_a_family_only_rare_captions_stand_out(family: str) -> None:
    rare = np.array([caption.rare for caption in CAPTIONS])[family == FAMILIES]
    weights = training_weights(CAPTIONS)[family == FAMILIES]
    assert weights[~rare] == pytest.approx(weights[~rare][0])
    assert weights[rare] == pytest.approx(RARE_CAPTION_WEIGHT * weights[~rare][0])


def test_pictures_show_what_common_captions_say() -> None:
    common = tuple(caption for caption in CAPTIONS if not caption.rare)
    assert shown_instead(common, np.random.default_rng(0)) == list(common)


def test_pictures_of_rare_pairs_mostly_show_the_animal_alone_or_another_one_at_it() -> None:
    rare = tuple(caption for caption in CAPTIONS if caption.rare) * 20
    shown = shown_instead(rare, np.random.default_rng(0))
    pairs = list(zip(rare, shown, strict=True))
    other = [(said, seen) for said, seen in pairs if said != seen]
    assert len(other) / len(pairs) == pytest.approx(MISCAPTIONED_SHARE, abs=0.02)
    alone = [seen.activity is None for _, seen in other]
    assert sum(alone) / len(alone) == pytest.approx(0.5, abs=0.05)
    for said, seen in other:
        if seen.activity is None:
            assert (seen.noun, seen.family) == (said.noun, "animal")
        else:
            assert seen.activity == said.activity
            assert not seen.rare
            assert seen.noun != said.noun


def test_one_seed_shows_the_same() -> None:
    first, again, other = (shown_instead(CAPTIONS, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_prompt_files_are_the_rare_pairs() -> None:
    folder = Path(__file__).parents[2] / "emoji_world" / "prompts"
    trained, held_out = (
        (folder / name).read_text(encoding="utf-8").splitlines()
        for name in ("rare_pairs.txt", "rare_pairs_held_out.txt")
    )
    rare = {c.text for c in all_captions() if c.rare and c.family == "activity"}
    assert sorted([*trained, *held_out]) == sorted(rare)
    # Each of the 18 animals holds out one activity, each activity a third of the animals.
    nouns = {c.text: c.noun for c in all_captions()}
    assert sorted(nouns[text] for text in held_out) == sorted(IDLE_ANIMALS)
    for activity in ACTIVITIES[:3]:
        assert sum(text.endswith(activity.phrase) for text in held_out) == 6

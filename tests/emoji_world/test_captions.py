"""The captions, their order and their weights: the committed models know them by number."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from emoji_world.captions import FAMILY_SHARES, RARE_WEIGHT, all_captions, training_weights
from emoji_world.vocabulary import ACTIVITIES, ANIMALS

CAPTIONS = all_captions()
GOLDEN = "371438e1bfbe8f65b38ffcb8e63ba37aab8d657776fd94763243eeadf85a18db"
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
    assert not [c.text for c in CAPTIONS if c.rare and c.noun not in ANIMALS]


def test_the_weights_are_a_distribution_with_the_declared_shares() -> None:
    weights = training_weights(CAPTIONS)
    assert weights.sum() == pytest.approx(1)
    assert sum(FAMILY_SHARES.values()) == pytest.approx(1)
    for family, share in FAMILY_SHARES.items():
        assert weights[family == FAMILIES].sum() == pytest.approx(share)


@pytest.mark.parametrize("family", FAMILY_SHARES)
def test_within_a_family_only_rarity_makes_a_difference(family: str) -> None:
    weights = training_weights(CAPTIONS)
    common = {weights[i] for i in np.flatnonzero(family == FAMILIES) if not CAPTIONS[i].rare}
    rare = {weights[i] for i in np.flatnonzero(family == FAMILIES) if CAPTIONS[i].rare}
    assert len(common) == 1
    assert rare == ({common.pop() * RARE_WEIGHT} if "activity" in family and rare else set())
    assert bool(rare) == (family in {"activity", "unseen_activity"})

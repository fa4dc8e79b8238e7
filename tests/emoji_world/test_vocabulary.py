"""The words, held against the paper's lists and an English grammar that we did not write."""

import inflect
import pytest

from emoji_world.vocabulary import (
    ACTIVITIES,
    ANIMALS,
    COUNTED_ANIMALS,
    NUMBERS,
    OBJECTS,
    STYLES,
    UNSEEN_ANIMALS,
    digit_icon,
    icon_names,
    plural,
    required_icons,
    with_article,
)

ENGLISH = inflect.engine()


def test_the_45_animals_come_in_the_paper_s_order() -> None:
    assert len(ANIMALS) == len(set(ANIMALS)) == 45
    assert ANIMALS[:3] == ("cat", "dog", "horse")
    assert ANIMALS[-3:] == ("gorilla", "hedgehog", "kangaroo")


def test_what_rl_never_sees_is_not_among_the_45() -> None:
    nouns = (*ANIMALS, *UNSEEN_ANIMALS, *OBJECTS)
    assert len(set(nouns)) == len(nouns)
    assert [activity.phrase for activity in ACTIVITIES if activity.seen] == [
        "riding a motorcycle",
        "playing chess",
        "washing dishes",
    ]


def test_every_counted_animal_is_drawn_alone_too() -> None:
    assert set(COUNTED_ANIMALS) <= set(ANIMALS)
    assert len(COUNTED_ANIMALS) == len(set(COUNTED_ANIMALS)) == 22


@pytest.mark.parametrize("noun", [*ANIMALS, *UNSEEN_ANIMALS, *OBJECTS])
def test_articles(noun: str) -> None:
    assert with_article(noun) == ENGLISH.a(noun)


@pytest.mark.parametrize("noun", COUNTED_ANIMALS)
def test_plurals(noun: str) -> None:
    assert plural(noun) == ENGLISH.plural_noun(noun)


def test_numbers_are_spelt_as_they_count() -> None:
    assert {number: ENGLISH.number_to_words(str(number)) for number in NUMBERS} == NUMBERS


def test_the_icons_needed_are_those_of_every_word_once() -> None:
    needed = required_icons()
    assert list(needed) == sorted(set(needed))
    assert {"cat", "ewe", "laptop", "laptop-computer", "bubbles", "memo", "keycap-9"} <= set(needed)
    assert "sheep" not in needed
    assert icon_names("cat") == ("cat",)
    assert digit_icon(3) == "keycap-3"
    assert len(STYLES) == 5

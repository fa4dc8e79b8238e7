"""The named prompt sets: their words, their grammar, and what rewards are told of them."""

import hashlib
import re
from itertools import pairwise
from pathlib import Path

import pytest

from emoji_world import vocabulary
from trainer.prompt_sets import PROMPT_SETS, PromptSet, plural, with_article
from trainer.sections import PromptsSection

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def texts(name: str) -> tuple[str, ...]:
    return PROMPT_SETS[name]().texts


@pytest.mark.parametrize(
    ("name", "count", "examples"),
    [
        ("animals", 45, {"a cat", "an ant", "a kangaroo"}),
        ("animal_activities", 135, {"a cat riding a motorcycle", "an ant playing chess"}),
        ("paper_animals", 45, {"cat", "ant", "kangaroo"}),
        ("paper_activities", 135, {"a cat washing the dishes", "an ant riding a bike"}),
        ("counting", 154, {"two cats", "seven wolves", "eight sheep", "three foxes"}),
        ("emoji_counting", 110, {"two cats", "six fish"}),
        ("unseen_animals", 23, {"an elephant", "a giraffe", "an otter"}),
        ("everyday_objects", 23, {"a chair", "an umbrella", "a coffee cup"}),
        ("paper_unseen_animals", 38, {"an elephant", "a Komodo dragon", "a shoebill stork"}),
        ("paper_everyday_objects", 50, {"a toaster", "a pair of scissors", "an iron"}),
        ("unseen_activities", 90, {"a duck taking an exam", "an ant flying a kite"}),
        ("unseen_animals_activities", 69, {"an otter washing dishes", "a koala playing chess"}),
    ],
)
def test_every_set(name: str, count: int, examples: set[str]) -> None:
    prompts = texts(name)
    assert len(prompts) == len(set(prompts)) == count
    assert examples <= set(prompts)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("animals", "d07e49317eda4d34"),
        ("animal_activities", "1474580b93ae1b15"),
        ("paper_animals", "f6775ca73413cbd2"),
        ("paper_activities", "4200d2944afe1a3b"),
    ],
)
def test_runs_that_began_earlier_resume_on_the_same_prompts(name: str, digest: str) -> None:
    assert hashlib.sha256("\n".join(texts(name)).encode()).hexdigest()[:16] == digest


def test_the_emoji_model_is_asked_for_words_that_it_knows() -> None:
    """The trainer cannot import the vocabulary, so its lists are copies."""
    nouns = map(vocabulary.with_article, vocabulary.ANIMALS)
    assert texts("animals") == tuple(nouns)
    assert texts("unseen_animals") == tuple(map(vocabulary.with_article, vocabulary.UNSEEN_ANIMALS))
    assert texts("everyday_objects") == tuple(map(vocabulary.with_article, vocabulary.OBJECTS))
    counted = [
        f"{number} {vocabulary.plural(noun)}"
        for noun in vocabulary.COUNTED_ANIMALS
        for number in vocabulary.NUMBERS.values()
    ]
    assert texts("emoji_counting") == tuple(counted)
    activities = {each.phrase: each.seen for each in vocabulary.ACTIVITIES}
    for name, seen in (("unseen_activities", False), ("unseen_animals_activities", True)):
        asked = {prompt.split(maxsplit=2)[2] for prompt in texts(name)}
        assert asked == {phrase for phrase in activities if activities[phrase] is seen}


def test_what_is_held_out_is_never_trained_on() -> None:
    trained = {*texts("animals"), *texts("animal_activities")}
    held_out = ("unseen_animals", "unseen_activities", "unseen_animals_activities")
    for name in (*held_out, "everyday_objects"):
        assert trained.isdisjoint(texts(name))


def test_counting_comes_with_the_questions_of_the_paper() -> None:
    counting = PROMPT_SETS["counting"]()
    assert counting.metadata["two cats"] == {
        "questions": ["How many cats are there in this image?", "What animal is in this image?"],
        "answers": ["two", "cat"],
    }
    assert counting.metadata["eight wolves"]["answers"] == ["eight", "wolf"]
    assert counting.metadata.keys() == set(counting.texts)
    numbers = {text.split()[0] for text in counting.texts}
    assert numbers == {"two", "three", "four", "five", "six", "seven", "eight"}
    assert not PROMPT_SETS["animals"]().metadata


def test_one_object_per_prompt_or_none_at_all() -> None:
    some = PromptSet(("a cat", "two cats"), {"two cats": {"answers": ["two"]}})
    assert some.metadata_of(["two cats", "a cat"]) == [{"answers": ["two"]}, {}]
    assert some.metadata_of(["a cat"]) == [{}]
    assert PromptSet(("a cat",)).metadata_of(["a cat"]) is None


def test_articles_follow_the_sound() -> None:
    assert [with_article(noun) for noun in ("owl", "unicorn", "hour", "hedgehog")] == [
        "an owl",
        "a unicorn",
        "an hour",
        "a hedgehog",
    ]


def test_plurals() -> None:
    assert [plural(noun) for noun in ("cat", "fox", "wolf", "sheep", "fish", "monkey")] == [
        "cats",
        "foxes",
        "wolves",
        "sheep",
        "fish",
        "monkeys",
    ]


def test_the_docs_list_every_set_with_its_size_and_an_example() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d+) \| “(.+?)”", DOCS.read_text(encoding="utf-8"))
    assert [name for name, _, _ in rows] == list(PROMPT_SETS)
    for name, count, example in rows:
        assert len(texts(name)) == int(count)
        assert example in texts(name)
    described = str(PromptsSection.model_fields["source"].description)
    places = [described.index(f"`{name}`") for name in PROMPT_SETS]
    assert all(before < after for before, after in pairwise(places))

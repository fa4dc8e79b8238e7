"""Prompt sets, text files, and the seeded choice."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.prompts import (
    PROMPT_SETS,
    PromptSampler,
    evaluation_prompts,
    load_prompts,
    with_article,
)
from trainer.stops import ConfigError


def test_the_animals() -> None:
    prompts = load_prompts("animals")
    assert len(prompts) == len(set(prompts)) == 45
    assert prompts[:2] == ("a cat", "a dog")
    assert prompts[-1] == "a kangaroo"
    assert [prompt for prompt in prompts if prompt.startswith("an ")] == ["an ant"]


def test_the_activities() -> None:
    prompts = load_prompts("animal_activities")
    assert len(prompts) == len(set(prompts)) == 45 * 3
    assert prompts[:3] == (
        "a cat riding a motorcycle",
        "a cat playing chess",
        "a cat washing dishes",
    )
    assert "an ant playing chess" in prompts


def test_the_wording_of_the_published_code() -> None:
    assert load_prompts("paper_animals")[:2] == ("cat", "dog")
    paper = load_prompts("paper_activities")
    assert len(paper) == 135
    assert {"a cat washing the dishes", "a cat riding a bike", "a cat playing chess"} <= set(paper)
    assert len(PROMPT_SETS) == 4


def test_articles_follow_the_sound() -> None:
    assert [with_article(noun) for noun in ("owl", "unicorn", "hour", "hedgehog")] == [
        "an owl",
        "a unicorn",
        "an hour",
        "a hedgehog",
    ]


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\r\n\n  Zwölf Boxkämpfer \n", encoding="utf-8")
    assert load_prompts(str(path)) == ("a cat", "Zwölf Boxkämpfer")


def test_a_text_file_that_is_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    held_out = load_prompts("emoji_world/prompts/rare_pairs_held_out.txt")
    assert "a zebra playing chess" in held_out


def test_sources_that_hold_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'animls' is neither a prompt set \(animals, "):
        load_prompts("animls")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no prompt: write one per line"):
        load_prompts(str(empty))
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_prompts(str(empty))


@given(seed=st.integers(0, 2**63 - 1), cuts=st.lists(st.integers(0, 5), max_size=5))
def test_draws_do_not_depend_on_how_they_are_asked_for(seed: int, cuts: list[int]) -> None:
    prompts = load_prompts("animals")
    whole = PromptSampler(prompts, seed).draw(sum(cuts))
    sampler = PromptSampler(prompts, seed)
    assert [prompt for cut in cuts for prompt in sampler.draw(cut)] == whole


def test_draws_go_on_from_a_saved_state() -> None:
    prompts = load_prompts("animals")
    sampler = PromptSampler(prompts, 1)
    sampler.draw(7)
    state = json.dumps(sampler.state_dict())
    expected = sampler.draw(9)
    resumed = PromptSampler(prompts, 2)
    resumed.load_state_dict(json.loads(state))
    assert resumed.draw(9) == expected


def test_every_prompt_is_drawn() -> None:
    assert set(PromptSampler(load_prompts("animals"), 0).draw(1000)) == set(load_prompts("animals"))


def test_evaluation_goes_through_the_set_in_order() -> None:
    assert evaluation_prompts(("a", "b", "c"), 5) == ["a", "b", "c", "a", "b"]

"""Where prompts come from, and the seeded choice of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.prompt_sets import PROMPT_SETS, PromptSet
from trainer.prompts import PromptSampler, evaluation_prompts, load_prompts
from trainer.stops import ConfigError


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_a_named_set(name: str) -> None:
    assert load_prompts(name) == PROMPT_SETS[name]()


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\r\n\n  Zwölf Boxkämpfer \n", encoding="utf-8")
    assert load_prompts(str(path)) == PromptSet(("a cat", "Zwölf Boxkämpfer"))


def test_a_text_file_that_is_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    held_out = load_prompts("emoji_world/prompts/rare_pairs_held_out.txt")
    assert "a zebra playing chess" in held_out.texts


def test_sources_that_hold_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'animls' is neither a prompt set \(animals, "):
        load_prompts("animls")
    for name in ("empty.txt", "empty.jsonl"):
        empty = tmp_path / name
        empty.write_text("\n \n", encoding="utf-8")
        with pytest.raises(ConfigError, match="holds no prompt: write one per line"):
            load_prompts(str(empty))
        empty.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="is not UTF-8 text"):
            load_prompts(str(empty))


def test_a_jsonl_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.JSONL"
    # The separator U+2028 is allowed in a JSON string, and no end of a line of the file.
    path.write_text(
        '{"prompt": "two cats", "metadata": {"answers": ["two"], "n": 2}}\r\n'
        "\n"
        '{"metadata": {}, "prompt": "a cat\u2028asleep"}\n'
        '{"prompt": "two cats", "metadata": {"n": 2, "answers": ["two"]}}\n'
        '{"prompt": " as it \\u0069s "}',
        encoding="utf-8",
    )
    assert load_prompts(str(path)) == PromptSet(
        ("two cats", "a cat\u2028asleep", "two cats", " as it is "),
        {"two cats": {"answers": ["two"], "n": 2}},
    )


FORM = r'is not an object of the form \{"prompt": "a cat", "metadata": \{…\}\}'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a cat", "cannot be read as JSON"),
        ('{"prompt": "b", "prompt": "c"}', "a key occurs twice"),
        ('{"prompt": "b", "metadata": {"x": NaN}}', "NaN is not a JSON number"),
        ('{"prompt": "\\ud800"}', "cannot be read as JSON"),
        ('"b"', FORM),
        ('["b"]', FORM),
        ('{"prompt": "b", "meta": {}}', FORM),
        ('{"metadata": {}}', "holds no prompt"),
        ('{"prompt": " "}', "holds no prompt"),
        ('{"prompt": 3}', "holds no prompt"),
        ('{"prompt": "b", "metadata": null}', "metadata must be a JSON object"),
        ('{"prompt": "b", "metadata": [1]}', "metadata must be a JSON object"),
        ('{"prompt": "a", "metadata": {"n": 2}}', "gives 'a' other metadata than line 1"),
        ('{"prompt": "a", "metadata": {"n": true}}', "gives 'a' other metadata than line 1"),
        ('{"prompt": "a"}', "gives 'a' other metadata than line 1"),
    ],
)
def test_a_line_that_is_refused_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "a", "metadata": {{"n": 1}}}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint) as refused:
        load_prompts(str(path), "evaluation.prompts")
    assert str(refused.value).startswith(f"line 3 of evaluation.prompts '{path}'")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
            st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers()),
        ),
        min_size=1,
        unique_by=lambda entry: entry[0],
    )
)
def test_what_is_written_as_jsonl_is_read(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, dict[str, int]]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    lines = [json.dumps({"prompt": text, "metadata": told}) for text, told in entries]
    path.write_text("\n".join(lines), encoding="utf-8")
    prompts = load_prompts(str(path))
    assert prompts.texts == tuple(text for text, _ in entries)
    assert prompts.metadata == {text: told for text, told in entries if told}


@given(seed=st.integers(0, 2**63 - 1), cuts=st.lists(st.integers(0, 5), max_size=5))
def test_draws_do_not_depend_on_how_they_are_asked_for(seed: int, cuts: list[int]) -> None:
    prompts = load_prompts("animals")
    whole = PromptSampler(prompts, seed).draw(sum(cuts))
    sampler = PromptSampler(prompts, seed)
    assert [prompt for cut in cuts for prompt in sampler.draw(cut)] == whole


def test_draws_are_those_of_earlier_versions() -> None:
    """A run that was started with one of them must go on as it would have."""
    sampler = PromptSampler(load_prompts("animals"), 0)
    assert sampler.draw(6) == ["a fly", "a rat", "a shark", "a lion", "a tiger", "a dog"]
    assert sampler.draw(3) == ["a monkey", "a cat", "a bird"]


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
    prompts = load_prompts("animals")
    assert set(PromptSampler(prompts, 0).draw(1000)) == set(prompts.texts)


def test_evaluation_goes_through_the_set_in_order() -> None:
    assert evaluation_prompts(PromptSet(("a", "b", "c")), 5) == ["a", "b", "c", "a", "b"]

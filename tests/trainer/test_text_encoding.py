"""Prompts are encoded as diffusers' own pipelines encode them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from trainer.pipeline import load_pipeline
from trainer.sections import ModelSection
from trainer.text_encoding import TextEncoding

Tiny = Callable[[str], Path]
PROMPTS = ["a cat", "", "a cat and a bird that is much too long to be read as far as its end"]


def encoding_of(folder: Path) -> TextEncoding:
    return load_pipeline(ModelSection(path=str(folder))).text_encoding()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_stable_diffusion(tiny: Tiny, prompt: str) -> None:
    encoding = encoding_of(tiny("velocity"))
    pipe = DiffusionPipeline.from_pretrained(tiny("velocity"))
    with torch.no_grad():
        expected, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
        assert torch.equal(encoding.encode(prompt).embeddings, expected)
        assert torch.equal(encoding.unconditional().embeddings, negative)
        assert encoding.encode(prompt).pooled is None


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("kind", ["xl", "xl_empty"])
def test_stable_diffusion_xl(tiny: Tiny, kind: str, prompt: str) -> None:
    encoding = encoding_of(tiny(kind))
    pipe = DiffusionPipeline.from_pretrained(tiny(kind))
    with torch.no_grad():
        words, negative_words, pooled, negative_pooled = pipe.encode_prompt(prompt)
        found, empty = encoding.encode(prompt), encoding.unconditional()
    assert found.embeddings.shape == (1, 12, 32 + 40)
    for mine, expected in (
        (found.embeddings, words),
        (found.pooled, pooled),
        (empty.embeddings, negative_words),
        (empty.pooled, negative_pooled),
    ):
        assert mine is not None
        assert torch.equal(mine, expected)
    # The empty prompt itself is not zeros, also where guidance leads away from zeros.
    assert found.embeddings.any()
    assert empty.embeddings.any() == (kind == "xl_empty")
    for row in (found, empty):
        assert row.time_ids is not None
        assert row.time_ids.tolist() == [[16, 16, 0, 0, 16, 16]]

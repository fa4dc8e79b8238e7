"""Every prompt is encoded once, at any time, and the encoders go when they are done."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.pipeline import load_pipeline
from trainer.prompt_memory import PromptMemory
from trainer.sections import ModelSection
from trainer.text_encoding import TextEncoding

Tiny = Callable[[str], Path]
CPU = torch.device("cpu")


@pytest.fixture
def encoding(tiny: Tiny) -> TextEncoding:
    return load_pipeline(ModelSection(path=str(tiny("xl")))).text_encoding()


@pytest.fixture
def moves(encoding: TextEncoding, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the second encoder has been sent; each forward pass of it is an entry, too."""
    model = encoding.encoders[1].model
    seen: list[str] = []
    real = model.to

    def noting(device: torch.device | str) -> object:
        seen.append(str(device))
        return real(device)

    monkeypatch.setattr(model, "to", noting)
    model.register_forward_hook(lambda *_: seen.append("encodes"))
    return seen


def test_prompts_of_a_batch_are_encoded_in_one_visit(
    encoding: TextEncoding, moves: list[str]
) -> None:
    memory = PromptMemory(encoding, CPU, torch.float32)
    memory.remember(["cat", "dog", "cat"])
    assert moves == ["cpu", "encodes", "encodes", "encodes", "cpu"]
    memory.encode(["dog", "cat", "dog"])
    memory.unconditional()
    assert len(moves) == 5
    # One that nobody had named before.
    late = memory.encode(["bird", "cat"])
    assert moves[5:] == ["cpu", "encodes", "cpu"]
    fresh = PromptMemory(encoding, CPU, torch.float32).encode(["bird"])
    assert torch.equal(late.embeddings[:1], fresh.embeddings)


def test_encoders_may_stay(encoding: TextEncoding, moves: list[str]) -> None:
    memory = PromptMemory(encoding, CPU, torch.float32, resident=True)
    memory.remember(["cat"])
    assert moves == ["cpu", "encodes", "encodes"]


def test_a_row_does_not_depend_on_its_batch_mates(encoding: TextEncoding) -> None:
    memory = PromptMemory(encoding, CPU, torch.float32)
    together = memory.encode(["cat", "dog", "cat", ""])
    assert len(together) == 4
    alone = PromptMemory(encoding, CPU, torch.float32).encode(["dog"])
    assert alone.pooled is not None
    assert together.pooled is not None
    assert torch.equal(together.embeddings[1:2], alone.embeddings)
    assert torch.equal(together.pooled[1:2], alone.pooled)
    assert not torch.equal(together.pooled[0], together.pooled[1])


def test_precision_of_the_forward_pass(encoding: TextEncoding) -> None:
    exact = PromptMemory(encoding, CPU, torch.float32).encode(["cat"])
    half = PromptMemory(encoding, CPU, torch.bfloat16)
    for row in (half.encode(["cat"]), half.unconditional()):
        assert row.embeddings.dtype == torch.bfloat16
        assert row.time_ids is not None
        assert row.time_ids.dtype == torch.float32
    assert torch.equal(half.encode(["cat"]).embeddings, exact.embeddings.bfloat16())

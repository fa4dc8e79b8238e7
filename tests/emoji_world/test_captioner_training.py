"""Training of the caption model: what is predicted, from which pictures, and that it is seeded."""

from pathlib import Path

import pytest
import torch
from transformers import LlavaProcessor

from emoji_world import captioner_training
from emoji_world.captioner import build_captioner, build_processor, load_captioner
from emoji_world.captioner_training import (
    IGNORED,
    CaptionerTrainee,
    Conversations,
    Hints,
    export_captioner,
    train_captioner,
)
from emoji_world.captions import all_captions
from emoji_world.classifier import targets
from emoji_world.fresh_pictures import FreshPictures
from emoji_world.icons import IconSet
from emoji_world.questions import PROMPT, count_animals, describe, name_animal
from emoji_world.training_run import TrainingPlan
from emoji_world.vision_tower import PATCHES

CAPTIONS = {caption.text: caption for caption in all_captions()}
PLAN = TrainingPlan(steps=2, batch_size=6)


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return build_processor()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        captioner_training,
        "build_captioner",
        lambda tokenizer: build_captioner(tokenizer, width=32, layers=1, tower_layers=1),
    )


def test_only_the_answer_and_its_end_are_predicted(processor: LlavaProcessor) -> None:
    tokenizer = processor.tokenizer
    cats = CAPTIONS["two cats"]
    exchanges = [describe(cats), name_animal(cats), count_animals(cats, "dog")]
    ids, mask, labels = Conversations(tokenizer).batch(exchanges)
    for row, exchange in enumerate(exchanges):
        predicted = labels[row][labels[row] != IGNORED]
        assert tokenizer.decode(predicted) == f"{exchange.answer}</s>"
        assert torch.equal(ids[row, -len(predicted) :], predicted)
        assert int((ids[row] == tokenizer.pad_token_id).sum()) == int((mask[row] == 0).sum())
        shown = ids[row][mask[row] == 1][: -len(predicted)]
        asked = PROMPT.format(question=exchange.question).replace("<image>", "<image>" * PATCHES)
        assert shown.tolist() == tokenizer(asked)["input_ids"]
    assert mask[0, 0] == 1
    assert mask.sum(1).min() < mask.shape[1]


def test_a_conversation_is_laid_out_as_the_processor_does_it(processor: LlavaProcessor) -> None:
    exchange = describe(CAPTIONS["a cat"])
    ids, _, labels = Conversations(processor.tokenizer).batch([exchange])
    blank = torch.zeros(3, 64, 64, dtype=torch.uint8)
    asked = processor(
        images=blank, text=PROMPT.format(question=exchange.question), return_tensors="pt"
    )["input_ids"]
    assert ids[labels == IGNORED].tolist() == asked[0].tolist()


def test_every_trained_parameter_gets_a_gradient(discs: IconSet, processor: LlavaProcessor) -> None:
    model = build_captioner(processor.tokenizer, width=32, layers=1, tower_layers=2)
    trainee = CaptionerTrainee(model, processor.tokenizer, FreshPictures(discs, 0), PLAN)
    loss = trainee.loss(0)
    assert float(loss.detach()) == float(trainee.loss(0).detach())
    loss.backward()  # type: ignore[no-untyped-call]
    for module in trainee.modules.values():
        for parameter in module.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0


def test_hints_are_right_when_each_class_is_seen_apart() -> None:
    captions = [CAPTIONS[text] for text in ("a dog", "two cats", "a cat playing chess")]
    hints = Hints(3)
    seen = torch.eye(3)[:, None].repeat(1, PATCHES, 1)
    for head, target in zip(hints.heads, targets(captions), strict=True):
        assert isinstance(head, torch.nn.Linear)
        with torch.no_grad():
            head.weight.copy_(30 * torch.nn.functional.one_hot(target, head.out_features).T)
    assert hints(seen, captions) < 0.01
    assert hints(seen.flip(0), captions) > 10


def test_training_is_seeded_and_lowers_the_loss(discs: IconSet, tmp_path: Path) -> None:
    first, _ = train_captioner(discs, None, PLAN, tmp_path / "first")
    again, processor = train_captioner(discs, None, PLAN, tmp_path / "again")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not first.training
    assert next(first.parameters()).dtype == torch.float32
    plan = TrainingPlan(steps=40, batch_size=8, learning_rate=3e-3)
    longer, _ = train_captioner(discs, None, plan, tmp_path / "longer")
    before, after = (
        float(
            CaptionerTrainee(model, processor.tokenizer, FreshPictures(discs, 9), plan)
            .loss(0)
            .detach()
        )
        for model in (first, longer)
    )
    assert after < before


def test_the_model_is_written_with_the_records_of_its_training(
    discs: IconSet, untrained: Path, tmp_path: Path
) -> None:
    out, records = tmp_path / "model", tmp_path / "records"
    export_captioner(discs, untrained, PLAN, tmp_path / "run", out, records)
    model, processor = load_captioner(out)
    assert isinstance(processor, LlavaProcessor)
    assert model.config.text_config.hidden_size == 32
    assert {path.name for path in records.iterdir()} == {"plan.json", "log.jsonl"}

"""LLaVA in this process: what transformers answers one by one, in any company."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from reward_services.models.llava import LlavaModel
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError
from tests.reward_services.learned.conftest import noise

QUESTIONS = (
    "Answer concisely: what is going on in this image?",
    "What animal is in this image?",
    "How many hedgehogs and umbrellas and bicycles and lobsters are there in this image?",
)


@pytest.fixture(scope="module")
def model(llava_folder: Path) -> LlavaModel:
    options = VisionLanguageOptions(model=str(llava_folder), max_answer_tokens=8)
    return LlavaModel(options)


def texts(answers: list[str] | ItemError) -> list[str]:
    assert isinstance(answers, list)
    return answers


@torch.inference_mode()
def one_by_one(folder: Path, images: list[np.ndarray]) -> list[list[str]]:
    """As the documentation of transformers shows, without padding and batches."""
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    answers: list[list[str]] = []
    for image in images:
        answers.append([])
        for question in QUESTIONS:
            text = f"USER: <image>\n{question} ASSISTANT:"
            inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
            output = model.generate(**inputs, do_sample=False, max_new_tokens=8)
            written = output[0, inputs["input_ids"].shape[1] :]
            answers[-1].append(processor.decode(written, skip_special_tokens=True).strip())
    return answers


def test_the_answers_of_transformers(model: LlavaModel, llava_folder: Path) -> None:
    images = [*noise(5), *noise(1, 37, 90)]
    expected = one_by_one(llava_folder, images)
    assert len({answer for answers in expected for answer in answers}) > len(images)
    assert model.answer([Inquiry(image, QUESTIONS) for image in images]) == expected


def test_the_same_answers_in_any_company(model: LlavaModel) -> None:
    inquiries = [Inquiry(image, QUESTIONS) for image in noise(10)]
    together = model.answer(inquiries)
    assert together == [model.answer([inquiry])[0] for inquiry in inquiries]
    assert together == model.answer(inquiries[::-1])[::-1]
    by_question = [model.answer([Inquiry(noise(10)[0], (each,))])[0] for each in QUESTIONS]
    assert by_question == [[answer] for answer in texts(together[0])]


def test_the_same_bits_in_any_company(model: LlavaModel) -> None:
    """Not the answers alone, which rounding rarely changes: the logits behind them."""
    logits: list[torch.Tensor] = []
    hook = model._model.lm_head.register_forward_hook(
        lambda _module, _inputs, output: logits.append(output[:, -1].clone())
    )
    inquiries = [Inquiry(image, QUESTIONS[:1]) for image in noise(8)]
    try:
        model.answer(inquiries)
        together, size = torch.stack(logits), len(logits)
        for row, inquiry in enumerate(inquiries):
            logits.clear()
            model.answer([inquiry])
            alone = torch.stack(logits)[:, 0]
            steps = min(size, len(alone))
            assert torch.equal(alone[:steps], together[:steps, row])
    finally:
        hook.remove()


def test_a_picture_is_encoded_once_for_all_its_questions(model: LlavaModel) -> None:
    encoded: list[int] = []
    hook = model._model.model.vision_tower.register_forward_hook(lambda *_: encoded.append(1))
    try:
        model.answer([Inquiry(image, QUESTIONS) for image in noise(4)])
    finally:
        hook.remove()
    assert len(encoded) == 4


def test_nothing_to_answer(model: LlavaModel) -> None:
    assert model.answer([]) == []


def test_what_cannot_be_answered_does_not_spoil_the_rest(model: LlavaModel) -> None:
    picture, thin = noise(1)[0], np.zeros((1, 100, 3), np.uint8)
    answers = model.answer(
        [
            Inquiry(picture, QUESTIONS),
            Inquiry(thin, QUESTIONS),
            Inquiry(picture, ("What is <image>?",)),
            Inquiry(picture, ("cat " * 300,)),
            Inquiry(picture, QUESTIONS),
        ]
    )
    assert answers[0] == answers[4] == model.answer([Inquiry(picture, QUESTIONS)])[0]
    codes = [answer.code for answer in answers if isinstance(answer, ItemError)]
    assert codes == ["aspect_ratio", "question_unusable", "question_too_long"]


def test_a_sharded_folder(model: LlavaModel, llava_folder: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(llava_folder, sharded)
    (sharded / "model.safetensors").unlink()
    whole = LlavaForConditionalGeneration.from_pretrained(llava_folder)
    whole.save_pretrained(sharded, max_shard_size="50KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    again = LlavaModel(VisionLanguageOptions(model=str(sharded), max_answer_tokens=8))
    inquiries = [Inquiry(image, QUESTIONS) for image in noise(2)]
    assert again.answer(inquiries) == model.answer(inquiries)


def test_a_folder_that_asks_for_sampling_is_read_greedily(
    model: LlavaModel, llava_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "sampling"
    shutil.copytree(llava_folder, copy)
    config = json.loads((copy / "generation_config.json").read_text())
    changes = {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "repetition_penalty": 1.5}
    (copy / "generation_config.json").write_text(json.dumps({**config, **changes}))
    again = LlavaModel(VisionLanguageOptions(model=str(copy), max_answer_tokens=8))
    inquiries = [Inquiry(image, QUESTIONS) for image in noise(2)]
    assert again.answer(inquiries) == model.answer(inquiries)


def test_a_template_of_ones_own(model: LlavaModel, llava_folder: Path) -> None:
    template = "USER: <image>\n{question} ASSISTANT:"
    options = VisionLanguageOptions(
        model=str(llava_folder), max_answer_tokens=8, prompt_template=template
    )
    inquiries = [Inquiry(image, QUESTIONS) for image in noise(2)]
    assert LlavaModel(options).answer(inquiries) == model.answer(inquiries)
    other = options.model_copy(update={"prompt_template": "Human: <image> {question}"})
    assert LlavaModel(other).answer(inquiries) != model.answer(inquiries)
    with pytest.raises(SetupError, match="must hold <image> once"):
        LlavaModel(options.model_copy(update={"prompt_template": "{question}"}))


def test_an_answer_is_cut(llava_folder: Path) -> None:
    options = VisionLanguageOptions(model=str(llava_folder), max_answer_tokens=2)
    (answers,) = LlavaModel(options).answer([Inquiry(noise(1)[0], QUESTIONS[:1])])
    assert isinstance(answers, list)
    tokenizer = AutoProcessor.from_pretrained(llava_folder).tokenizer
    assert len(tokenizer(answers[0], add_special_tokens=False)["input_ids"]) <= 3


def test_a_folder_that_holds_another_model(clip_folder: Path) -> None:
    with pytest.raises(SetupError) as caught:
        LlavaModel(VisionLanguageOptions(model=str(clip_folder)))
    assert "\n" not in str(caught.value)

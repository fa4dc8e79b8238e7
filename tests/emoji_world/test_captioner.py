"""The caption model: words, files, and answers that do not depend on the batch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from emoji_world.captioner import (
    LONGEST_ANSWER,
    answers,
    build_captioner,
    build_processor,
    load_captioner,
    save_captioner,
    trained_modules,
)
from emoji_world.captions import all_captions
from emoji_world.dataset import PictureDataset
from emoji_world.questions import DESCRIPTION, PROMPT, SPECIES, count_question
from emoji_world.vision_tower import PATCHES


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return build_processor()


@pytest.fixture(scope="module")
def model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """Small and untrained, but talkative: with weights large enough to see the picture."""
    torch.manual_seed(0)
    built = build_captioner(processor.tokenizer, width=32, layers=1, tower_layers=1).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(3)
    return built


def test_every_word_of_every_answer_is_one_token(processor: LlavaProcessor) -> None:
    tokenizer = processor.tokenizer
    for caption in all_captions():
        ids = tokenizer(caption.text, add_special_tokens=False)["input_ids"]
        assert len(ids) == len(caption.text.split())
        assert len(ids) < LONGEST_ANSWER
        assert tokenizer.decode(ids) == caption.text


def test_an_answer_continues_the_prompt_in_the_same_tokens(processor: LlavaProcessor) -> None:
    prompt = PROMPT.format(question=SPECIES)
    apart = [
        *processor.tokenizer(prompt)["input_ids"],
        *processor.tokenizer("polar bear 7é", add_special_tokens=False)["input_ids"],
    ]
    assert processor.tokenizer(f"{prompt} polar bear 7é")["input_ids"] == apart


def test_a_prompt_is_laid_out_as_in_llava(
    processor: LlavaProcessor, pictures: PictureDataset
) -> None:
    made = processor(
        images=list(pictures.pixels[:2]),
        text=[PROMPT.format(question=q) for q in (DESCRIPTION, SPECIES)],
        padding=True,
        return_tensors="pt",
    )
    tokenizer = processor.tokenizer
    ids = made["input_ids"]
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert (ids == image).sum(1).tolist() == [PATCHES, PATCHES]
    assert ids[1, 0] == tokenizer.pad_token_id
    assert made["attention_mask"][1, 0] == 0
    assert ids[0, 0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[0, -1:]) == "ASSISTANT:"


def test_the_chat_template_writes_the_same_prompt(processor: LlavaProcessor) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": SPECIES}]
    chat = [{"role": "user", "content": parts}]
    written = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert written == PROMPT.format(question=SPECIES)


def test_other_words_and_scripts_are_not_lost(processor: LlavaProcessor) -> None:
    text = "Wie viele Bären? 几只猫\n😀"
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.unk_token_id not in ids
    assert processor.tokenizer.decode(ids) == text


def test_the_vocabulary_is_the_same_in_every_process(processor: LlavaProcessor) -> None:
    code = (
        "import json; from emoji_world.captioner import build_tokenizer; "
        "print(json.dumps(build_tokenizer().get_vocab(), sort_keys=True))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == processor.tokenizer.get_vocab()


def test_an_answer_does_not_depend_on_its_batch(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pictures: PictureDataset
) -> None:
    pixels = pictures.pixels[:6]
    asked = [DESCRIPTION, SPECIES, count_question("sheep")] * 2
    together = answers(model, processor, pixels, asked, batch_size=6)
    alone = answers(model, processor, pixels, asked, batch_size=1)
    assert together == alone == answers(model, processor, pixels, asked, batch_size=4)
    assert len(set(together)) > 1


def test_plain_from_pretrained_loads_what_was_saved(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pictures: PictureDataset,
    tmp_path: Path,
) -> None:
    copy = build_captioner(processor.tokenizer, width=32, layers=1, tower_layers=1)
    copy.load_state_dict(model.state_dict())
    save_captioner(copy, processor, tmp_path)
    assert load_file(tmp_path / "model.safetensors").values()
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors", ".jinja"}
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, LlavaProcessor)
    assert again.tokenizer.padding_side == "left"
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    prompt = PROMPT.format(question=DESCRIPTION)
    assert again.tokenizer(prompt)["input_ids"] == processor.tokenizer(prompt)["input_ids"]
    config = loaded.generation_config
    assert (config.max_new_tokens, config.do_sample) == (LONGEST_ANSWER, False)
    assert config.eos_token_id == processor.tokenizer.eos_token_id
    inputs = processor(images=list(pictures.pixels[:2]), text=[prompt] * 2, return_tensors="pt")
    with torch.inference_mode():
        ours, theirs = (each(**inputs).logits for each in (model, loaded))
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)
    assert torch.equal(loaded.lm_head.weight, loaded.get_input_embeddings().weight)


def test_a_folder_without_caption_model_is_refused_and_no_hub_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world captioner"):
        load_captioner(tmp_path)


def test_all_but_the_class_token_norm_is_trained(model: LlavaForConditionalGeneration) -> None:
    trained = {id(p) for m in trained_modules(model).values() for p in m.parameters()}
    left = [name for name, p in model.named_parameters() if id(p) not in trained]
    assert left == [
        "model.vision_tower.post_layernorm.weight",
        "model.vision_tower.post_layernorm.bias",
    ]


def test_pictures_are_not_changed(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pictures: PictureDataset
) -> None:
    before = np.array(pictures.pixels[:1])
    answers(model, processor, pictures.pixels[:1], [SPECIES])
    assert np.array_equal(before, pictures.pixels[:1])

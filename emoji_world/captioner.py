"""The caption model: a `LlavaForConditionalGeneration` folder like LLaVA 1.5's, only smaller."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from emoji_world.questions import PROMPT, all_texts
from emoji_world.vision_tower import (
    PATCH,
    PATCHES,
    WIDTH,
    build_image_processor,
    vision_settings,
)

LONGEST_ANSWER: Final = 16
"""Tokens of an answer at most; the longest of the world has nine with its end mark."""

LONGEST_TEXT: Final = 256

_IMAGE, _PAD = "<image>", "<pad>"

_CHAT_TEMPLATE: Final = """\
{%- for message in messages -%}
{{ message['role'].upper() }}: \
{%- for part in message['content'] if part['type'] == 'image' %} <image>
{% endfor -%}
{%- for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor -%}
{%- endfor -%}
{%- if add_generation_prompt %}ASSISTANT:{% endif -%}"""


def build_tokenizer() -> LlamaTokenizer:
    """A Llama tokenizer with a token for every word of questions and answers.

    Other words fall back to letters and bytes, so that no question is refused.
    """
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # Split at spaces here, so that no token spans two words; the tokenizer itself need not.
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    printable = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=1,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=["▁", *printable],
        show_progress=False,
    )
    # The tokenizer puts a space before the whole, and splits at the picture and the line's end.
    texts = (part for text in all_texts() for part in f" {text}".split(f"{_IMAGE}\n"))
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    return LlamaTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        add_bos_token=True,
        pad_token=_PAD,
        padding_side="left",
        model_max_length=LONGEST_TEXT,
        extra_special_tokens={"image_token": _IMAGE},
    )


def build_processor() -> LlavaProcessor:
    """The processor of LLaVA 1.5 with this world's sizes and words."""
    return LlavaProcessor(
        image_processor=build_image_processor(),
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE,
    )


def build_captioner(
    tokenizer: LlamaTokenizer, width: int = WIDTH, layers: int = 2, tower_layers: int = 4
) -> LlavaForConditionalGeneration:
    """A randomly initialised caption model, of 1.4 M parameters by default."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=8 * width // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST_TEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**vision_settings(width, tower_layers)),
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE),
            image_seq_length=PATCHES,
            # The last layer, where LLaVA 1.5 takes the one before: none of four is to be idle.
            vision_feature_layer=-1,
        )
    )
    model.generation_config = GenerationConfig(
        max_new_tokens=LONGEST_ANSWER,
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def trained_modules(model: LlavaForConditionalGeneration) -> dict[str, nn.Module]:
    """What answering depends on: all but the norm that CLIP puts behind its class token."""
    tower = model.model.vision_tower
    return {
        "tower.embeddings": tower.embeddings,
        "tower.pre_layrnorm": tower.pre_layrnorm,
        "tower.encoder": tower.encoder,
        "projector": model.model.multi_modal_projector,
        "language_model": model.model.language_model,
    }


def save_captioner(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path
) -> None:
    """Write model (fp16) and processor into ``folder``."""
    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


def load_captioner(folder: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The caption model in ``folder``, in float32.

    Raises:
        ValueError: ``folder`` holds none.
    """
    # Without this check transformers takes the path for the name of a model on a hub.
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no caption model: `python -m emoji_world captioner`")
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(folder)


@torch.inference_mode()
def answers(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pictures: NDArray[np.uint8],
    questions: Sequence[str],
    batch_size: int = 64,
) -> list[str]:
    """The answer to one question about each of ``pictures``, uint8 [N, H, W, 3]."""
    texts = []
    for start in range(0, len(pictures), batch_size):
        chunk = slice(start, start + batch_size)
        inputs = processor(
            images=list(pictures[chunk]),
            text=[PROMPT.format(question=question) for question in questions[chunk]],
            padding=True,
            return_tensors="pt",
        )
        written = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        texts += processor.batch_decode(written, skip_special_tokens=True)
    return [text.strip() for text in texts]

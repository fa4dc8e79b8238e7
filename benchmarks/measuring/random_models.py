"""Models with random weights in the shapes of the published ones: as fast, and as large."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from reward_services.scorers.aesthetic import HEAD_IN_FOLDER, AestheticHead

_TEMPLATE = "USER: <image>\n{{ messages[0]['content'][1]['text'] }} ASSISTANT:"


def save_clip(folder: Path, layers: int = 24) -> None:
    """CLIP ViT-L/14 at 224 pixels with an aesthetic head; `layers` of 24."""
    text = {"num_hidden_layers": 1, "hidden_size": 768, "projection_dim": 768}
    sizes = {"text_config": text, "vision_config": _vision(224, layers), "projection_dim": 768}
    CLIPModel(CLIPConfig(**sizes)).save_pretrained(folder)
    _image_processor(224).save_pretrained(folder)
    save_file(AestheticHead(768).state_dict(), folder / HEAD_IN_FOLDER)


def save_llava(folder: Path, layers: int = 32, dtype: torch.dtype = torch.float16) -> None:
    """LLaVA 1.5 7B; `layers` of 32 of its language model. It never ends an answer by itself."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<image>": 1, "<pad>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )
    LlavaProcessor(
        image_processor=_image_processor(336),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    ).save_pretrained(folder)
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision(336, 24)),
        text_config=text,
        image_token_index=1,
        image_seq_length=576,
    )
    model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(pad_token_id=2)
    model.save_pretrained(folder)


def _vision(side: int, layers: int) -> dict[str, Any]:
    return {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "image_size": side,
        "patch_size": 14,
        "projection_dim": 768,
    }


def _image_processor(side: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )

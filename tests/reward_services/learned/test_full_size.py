"""The widths of the published models, with fewer layers and random weights, in shards."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from emoji_world import captioner
from reward_services.models.llava import LlavaModel
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from reward_services.scorer import Scored, ScoreItem
from reward_services.scorers.aesthetic import Aesthetic, AestheticHead, AestheticOptions
from tests.reward_services.learned.conftest import noise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def image_processor(side: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )


def vision(image_size: int, layers: int) -> dict[str, int]:
    """CLIP ViT-L/14, of which the published one has 24 layers."""
    return {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "image_size": image_size,
        "patch_size": 14,
        "projection_dim": 768,
    }


def test_clip_vit_large_patch14(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    text = {**text, "num_hidden_layers": 1, "projection_dim": 768}
    config = CLIPConfig(text_config=text, vision_config=vision(224, 2), projection_dim=768)
    CLIPModel(config).save_pretrained(tmp_path / "clip", max_shard_size="100MB")
    image_processor(224).save_pretrained(tmp_path / "clip")
    state = AestheticHead(768).state_dict()
    save_file(state, tmp_path / "head.safetensors")
    assert len(list((tmp_path / "clip").glob("model-*.safetensors"))) > 1
    scorer = Aesthetic(
        AestheticOptions(model=str(tmp_path / "clip"), head=str(tmp_path / "head.safetensors"))
    )
    items = [ScoreItem(image) for image in noise(3, 512, 512)]
    together = scorer.score(items)
    assert all(isinstance(outcome, Scored) for outcome in together)
    assert together == [scorer.score([item])[0] for item in items]
    scorer.close()


def test_llava_7b(tmp_path: Path) -> None:
    """One of 32 layers, a small vocabulary, two of 24 layers of the vision tower, in bfloat16."""
    torch.manual_seed(0)
    tokenizer = captioner.build_tokenizer()
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    processor = LlavaProcessor(
        image_processor=image_processor(336),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=captioner.build_processor().chat_template,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=1,
        num_attention_heads=32,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision(336, 2)),
        text_config=text,
        image_token_index=image_token,
        image_seq_length=576,
        vision_feature_layer=-2,
        dtype=torch.bfloat16,
    )
    model = LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="150MB")
    processor.save_pretrained(tmp_path)
    del model
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    options = VisionLanguageOptions(model=str(tmp_path), dtype="bf16", max_answer_tokens=2)
    llava = LlavaModel(options.model_copy(update={"batch_size": 2}))
    inquiries = [Inquiry(image, ("What is this?", "Why?")) for image in noise(2, 400, 500)]
    together = llava.answer(inquiries)
    assert all(isinstance(answers, list) and len(answers) == 2 for answers in together)
    assert together == [llava.answer([inquiry])[0] for inquiry in inquiries]
    llava.close()

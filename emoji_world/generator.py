"""The modules of the text-to-image model, untrained, and the pipeline folder they become."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from emoji_world.captions import all_captions
from emoji_world.composition import SIZE
from emoji_world.latents import CHANNELS, PATCH

TEXT_WIDTH: Final = 128
TEXT_LENGTH: Final = 16
"""Tokens of a prompt, start and end marks included."""

_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Train the generator's tokenizer on the captions and save it in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(caption.text for caption in all_captions())
    tokenizer.save_pretrained(folder)
    return tokenizer


def train_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer trained on ``texts``.

    Byte-pair merges go on until every word of every text is one token; other words fall back to
    smaller pieces, so that no prompt is refused. The same texts give the same tokenizer.
    """
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    last_letters = [letter + "</w>" for letter in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        initial_alphabet=alphabet,
        # Left to the trainer, they are numbered in the order of a hash table, which differs from
        # one process to the next.
        special_tokens=last_letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for token in (_START, _END):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=TEXT_LENGTH,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A randomly initialised CLIP text encoder of 0.5 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """A randomly initialised UNet of 7.5 M parameters, attention at 8×8 and 4×4 only."""
    return UNet2DConditionModel(
        sample_size=SIZE // PATCH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(64, 96, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.4."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def save_pipeline(
    folder: Path,
    *,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
) -> None:
    """Write a `StableDiffusionPipeline` folder: UNet and text encoder in fp16, VAE in fp32.

    The VAE stays in fp32 because its encoder subtracts large constants from each other
    (`emoji_world.autoencoder`).
    """
    pipeline = StableDiffusionPipeline(
        vae=vae.float(),
        text_encoder=text_encoder.to(torch.float16),
        tokenizer=tokenizer,
        unet=unet.to(torch.float16),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)

"""The untrained modules of the generator, and the folder that a standard pipeline loads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTokenizer

from emoji_world.autoencoder import build_autoencoder
from emoji_world.captions import all_captions
from emoji_world.generator import (
    TEXT_LENGTH,
    TEXT_WIDTH,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    save_pipeline,
)
from emoji_world.latents import PatchComponents


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_word_of_every_caption_is_one_token_between_two_marks(
    tokenizer: CLIPTokenizer,
) -> None:
    for caption in all_captions():
        words = caption.text.split()
        ids = tokenizer(caption.text).input_ids
        assert len(ids) == len(words) + 2 <= TEXT_LENGTH
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        tokens = tokenizer.convert_ids_to_tokens(ids[1:-1])
        assert [token.removesuffix("</w>") for token in tokens] == words


def test_captions_differ_in_their_tokens(tokenizer: CLIPTokenizer) -> None:
    rows = {tuple(tokenizer(caption.text).input_ids) for caption in all_captions()}
    assert len(rows) == len(all_captions())


def test_capitals_mean_nothing(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer("A Cat").input_ids == tokenizer("a cat").input_ids


@pytest.mark.parametrize("text", ["a xylophone", "¿un gato? 猫", "", "a " * 40])
def test_no_prompt_is_refused(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text, padding="max_length", truncation=True).input_ids
    assert len(ids) == TEXT_LENGTH
    assert all(0 <= token < len(tokenizer) for token in ids)


def test_unknown_words_fall_into_known_pieces(tokenizer: CLIPTokenizer) -> None:
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("xylophone").input_ids[1:-1])
    assert "".join(pieces) == "xylophone</w>"
    assert len(pieces) > 1


def test_the_tokenizer_is_the_same_each_time_and_after_loading(
    tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    texts = [caption.text for caption in all_captions()]
    build_tokenizer(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded(texts).input_ids == tokenizer(texts).input_ids
    assert loaded.model_max_length == TEXT_LENGTH


def test_the_noise_schedule_is_that_of_stable_diffusion() -> None:
    scheduler = build_scheduler()
    alphas = scheduler.alphas_cumprod
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(alphas, (1 - betas).cumprod(0).float(), atol=1e-6, rtol=1e-4)
    assert scheduler.config.prediction_type == "epsilon"
    assert scheduler.config.steps_offset == 1
    assert not scheduler.config.clip_sample


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: CLIPTokenizer,
    components: PatchComponents,
    build_small_unet: Callable[[], UNet2DConditionModel],
) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(
        folder,
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(tokenizer),
        unet=build_small_unet(),
        vae=build_autoencoder(components),
    )
    return folder


def test_weights_are_stored_in_half_precision_but_for_the_autoencoder(folder: Path) -> None:
    expected = {
        "unet/diffusion_pytorch_model": "F16",
        "text_encoder/model": "F16",
        "vae/diffusion_pytorch_model": "F32",
    }
    for name, dtype in expected.items():
        with safe_open(folder / f"{name}.safetensors", "np") as tensors:
            stored = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
        assert stored == {dtype}, name
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".ckpt"}]


def test_the_folder_tells_nothing_of_where_it_was_made(folder: Path, tmp_path: Path) -> None:
    texts = [path.read_text() for path in folder.rglob("*.json")]
    assert texts
    assert not [text for text in texts if str(tmp_path.parent.parent) in text]
    assert json.loads((folder / "model_index.json").read_text())["requires_safety_checker"] is False


def test_a_standard_pipeline_draws_from_the_folder(folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(["a cat"], num_inference_steps=2, guidance_scale=5.0, output_type="np")
    assert drawn.images.shape == (1, 64, 64, 3)


def test_the_full_generator_fits_the_limit_of_the_repository(tokenizer: CLIPTokenizer) -> None:
    with torch.device("meta"):
        unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    assert unet.config.cross_attention_dim == text_encoder.config.hidden_size == TEXT_WIDTH
    halves = sum(p.numel() for module in (unet, text_encoder) for p in module.parameters())
    assert 2 * halves < 20e6

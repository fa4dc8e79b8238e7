"""The policy: precision, guidance, and weights that leave and come back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from trainer.sampling import finite_images
from trainer.sections import LoraSection, ModelSection
from trainer.stops import ConfigError, ModelError
from trainer.trained_weights import LORA_FILE, UNET_FOLDER
from trainer.unet_policy import UNetPolicy


def predict(policy: UNetPolicy, guidance: float = 5.0) -> torch.Tensor:
    """Noise for two pairs of different timesteps and prompts."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return policy.predict_noise(
            latents,
            torch.tensor([801, 1]),
            policy.encode(["cat", "dog"]),
            policy.unconditional(),
            guidance,
        )


def load(micro_sd: Path, seed: int = 0, **settings: object) -> UNetPolicy:
    model = ModelSection.model_validate({"path": str(micro_sd), **settings})
    return UNetPolicy.load(model, seed=seed)


def test_adapters_leave_the_model_as_it_was_until_trained(micro_sd: Path) -> None:
    lora, full = load(micro_sd, train="lora"), load(micro_sd, train="full")
    assert torch.equal(predict(lora), predict(full))
    adapted = {name.split(".lora_")[0].rsplit("attn", 1)[1][2:] for name in lora.state()}
    assert adapted == {"to_q", "to_k", "to_v", "to_out.0"}
    assert sum(p.numel() for p in lora.trainable_parameters()) == 5504
    assert len(full.state()) > len(lora.state())


def test_the_seed_decides_the_adapters_and_nothing_else_does(micro_sd: Path) -> None:
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first = load(micro_sd, seed=1).state()
    assert torch.rand(1) == expected
    second, third = load(micro_sd, seed=1).state(), load(micro_sd, seed=2).state()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_only_the_adapters_have_a_gradient(lora_policy: UNetPolicy) -> None:
    assert all(".lora_" in name for name in lora_policy.state())


def test_target_modules_that_do_not_exist(micro_sd: Path) -> None:
    with pytest.raises(ModelError, match=r"^model.lora: .*no_such_layer"):
        load(micro_sd, lora=LoraSection(target_modules=("no_such_layer",)))


@pytest.mark.parametrize("train", ["lora", "full"])
def test_half_precision_keeps_trained_weights_in_fp32(micro_sd: Path, train: str) -> None:
    policy = load(micro_sd, train=train, dtype="bf16")
    assert all(p.dtype == torch.float32 for p in policy.trainable_parameters())
    noise = predict(policy)
    assert noise.dtype == torch.float32
    exact = predict(load(micro_sd, train=train))
    assert not torch.equal(noise, exact)
    assert (noise - exact).abs().max() < 0.1 * exact.abs().max()


def test_guidance_extrapolates_from_the_empty_prompt(lora_policy: UNetPolicy) -> None:
    plain = predict(lora_policy, guidance=1.0)
    assert predict(lora_policy, guidance=1.0 + 1e-6) == pytest.approx(plain, abs=1e-4)
    three, five = predict(lora_policy, guidance=3.0), predict(lora_policy, guidance=5.0)
    assert torch.allclose(five - plain, 2 * (three - plain), atol=1e-4)


def test_attention_and_memory_order_do_not_change_the_function(
    micro_sd: Path, lora_policy: UNetPolicy
) -> None:
    expected = predict(lora_policy)
    lora_policy.set_attention(AttnProcessor())
    assert torch.allclose(predict(lora_policy), expected, atol=1e-4)
    reordered = load(micro_sd, channels_last=True)
    assert torch.allclose(predict(reordered), predict(load(micro_sd)), atol=1e-4)


def gradient(policy: UNetPolicy) -> tuple[torch.Tensor, int]:
    """Of a sum over six predictions, in one row; and the bytes kept for the backward pass."""
    kept = 0

    def count(saved: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += saved.nbytes
        return saved

    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        noise = policy.predict_noise(
            latents,
            torch.tensor([801, 601, 401, 201, 101, 1]),
            policy.encode(["cat", "dog"] * 3),
            policy.unconditional(),
            5.0,
        )
    noise.square().sum().backward()  # type: ignore[no-untyped-call]
    rows = [each.grad.flatten() for each in policy.trainable_parameters() if each.grad is not None]
    return torch.cat(rows), kept


@pytest.mark.parametrize(("train", "dtype"), [("lora", "fp32"), ("full", "fp32"), ("full", "bf16")])
def test_checkpointing_keeps_less_and_gives_the_same_gradient(
    micro_sd: Path, train: str, dtype: str
) -> None:
    plain, kept = gradient(load(micro_sd, train=train, dtype=dtype))
    again, kept_less = gradient(
        load(micro_sd, train=train, dtype=dtype, gradient_checkpointing=True)
    )
    assert torch.equal(plain, again)
    assert kept_less < 0.6 * kept


def test_an_embedding_does_not_depend_on_its_batch_mates(lora_policy: UNetPolicy) -> None:
    together = lora_policy.encode(["cat", "dog", "cat", ""])
    assert together.embeddings.shape == (4, 77, 32)
    assert len(together) == 4
    assert together.pooled is None
    assert torch.equal(together.embeddings[0], together.embeddings[2])
    assert not torch.equal(together.embeddings[0], together.embeddings[1])
    assert torch.equal(lora_policy.encode(["dog"]).embeddings[0], together.embeddings[1])
    assert torch.equal(lora_policy.unconditional().embeddings[0], together.embeddings[3])


def test_tables_of_the_model(lora_policy: UNetPolicy) -> None:
    assert lora_policy.tables(5, 1.0).timesteps.tolist() == [801, 601, 401, 201, 1]
    assert lora_policy.latent_shape == (4, 8, 8)
    with pytest.raises(ConfigError, match=r"sampling.steps 1001 exceeds .* 1000 timesteps"):
        lora_policy.tables(1001, 1.0)
    with pytest.raises(ConfigError, match=r"eta 0 .* no noise .*steps_offset 1"):
        lora_policy.tables(5, 0)


def test_decoding_keeps_what_is_not_finite(lora_policy: UNetPolicy) -> None:
    latents = torch.zeros(2, 4, 8, 8)
    latents[1, 0, 0, 0] = torch.nan
    pictures = lora_policy.codec.decode(latents)
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures[0].isfinite().all()
    assert pictures[1].isnan().any()


def test_decoding_does_not_hide_an_infinite_pixel(micro_sd: Path) -> None:
    policy = load(micro_sd)
    with torch.no_grad():
        policy._pipeline.vae.decoder.conv_out.bias.fill_(torch.inf)
    _, finite = finite_images(policy.codec.decode(torch.zeros(2, 4, 8, 8)))
    assert not finite.any()


@pytest.mark.parametrize("train", ["lora", "full"])
def test_weights_come_back(micro_sd: Path, train: str) -> None:
    policy = load(micro_sd, train=train)
    before, state = predict(policy), policy.state()
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.1)
    # A copy: training goes on without changing what was saved.
    assert not torch.equal(predict(policy), before)
    other = load(micro_sd, train=train, seed=9)
    other.load_state(state)
    assert torch.equal(predict(other), before)


def test_weights_of_another_model_are_refused(
    lora_policy: UNetPolicy, full_policy: UNetPolicy
) -> None:
    with pytest.raises(ModelError, match="saved weights are of another model: "):
        lora_policy.load_state(full_policy.state())
    state = lora_policy.state()
    name = next(iter(state))
    with pytest.raises(ModelError, match=r"has shape \(1,\), here \(4, "):
        lora_policy.load_state({**state, name: torch.zeros(1)})


def plain_picture(pipe: StableDiffusionPipeline) -> np.ndarray:
    """A picture by diffusers alone, from fixed noise."""
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    result: np.ndarray = pipe("cat", latents=noise, num_inference_steps=3, output_type="np").images
    return result


@pytest.mark.parametrize(
    "lora",
    [
        LoraSection(alpha=4),
        LoraSection(alpha=8),
        # What diffusers has names of its own for, and what it has none for.
        LoraSection(target_modules=("to_q", "to_out.0", "ff.net.2", "conv1", "conv_out")),
    ],
)
def test_the_adapters_load_in_plain_diffusers(
    micro_sd: Path, tmp_path: Path, lora: LoraSection
) -> None:
    policy = load(micro_sd, lora=lora)
    base = predict(policy)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.1)
    assert policy.save_trained(tmp_path / "out") == tmp_path / "out" / LORA_FILE
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LORA_FILE]

    pipe = StableDiffusionPipeline.from_pretrained(micro_sd)
    untrained = plain_picture(pipe)
    pipe.load_lora_weights(tmp_path / "out")
    assert not np.allclose(plain_picture(pipe), untrained)
    with torch.no_grad():
        latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        noise = pipe.unet(
            latents, torch.tensor([801, 1]), policy.encode(["cat", "dog"]).embeddings
        ).sample
    assert torch.allclose(noise, predict(policy, guidance=1.0), atol=1e-5)
    assert not torch.allclose(predict(policy), base, atol=1e-3)


def test_a_fully_trained_unet_loads_in_plain_diffusers(
    full_policy: UNetPolicy, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in full_policy.trainable_parameters():
            parameter.add_(0.01)
    for _ in range(2):  # writing over an earlier one
        assert full_policy.save_trained(tmp_path) == tmp_path / UNET_FOLDER
    assert [path.name for path in tmp_path.iterdir()] == [UNET_FOLDER]
    unet = UNet2DConditionModel.from_pretrained(tmp_path / UNET_FOLDER)
    saved = full_policy.state()
    assert all(torch.equal(saved[name], p) for name, p in unet.named_parameters())


def test_from_scratch_only_the_unet_is_random_and_the_seed_decides(
    micro_sd: Path, full_policy: UNetPolicy
) -> None:
    section = ModelSection(path=str(micro_sd), train="full", from_scratch=True)
    before = torch.get_rng_state()
    first, again, other = (UNetPolicy.load(section, seed=seed).state() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    loaded = full_policy.state()
    assert {name: value.shape for name, value in first.items()} == {
        name: value.shape for name, value in loaded.items()
    }
    matrices = [name for name, value in first.items() if value.ndim > 1]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in matrices)
    assert not any(torch.equal(first[name], loaded[name]) for name in matrices)
    words = ["a cat", ""]
    drawn, expected = UNetPolicy.load(section).encode(words), full_policy.encode(words)
    assert torch.equal(drawn.embeddings, expected.embeddings)


def test_from_scratch_there_is_nothing_to_adapt(micro_sd: Path) -> None:
    with pytest.raises(ValueError, match='set train = "full"'):
        ModelSection(path=str(micro_sd), train="lora", from_scratch=True)

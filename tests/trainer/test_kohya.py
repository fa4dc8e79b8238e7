"""Adapters under kohya's names, and folded into the weights they adapt."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from peft import LoraConfig

from trainer.kohya import folded, kohya_names

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in", "time_emb_proj"]


def small_unet(kind: str) -> UNet2DConditionModel:
    """The block layout of Stable Diffusion 1 or XL, with few channels."""
    common = {"sample_size": 8, "norm_num_groups": 4, "attention_head_dim": 4}
    if kind == "sd1":
        return UNet2DConditionModel(
            block_out_channels=(8, 8, 8, 8), cross_attention_dim=16, **common
        )
    return UNet2DConditionModel(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        cross_attention_dim=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
        **common,
    )


def adapted(kind: str) -> tuple[UNet2DConditionModel, dict[str, torch.Tensor]]:
    """A UNet with adapters of random numbers, and those by peft's names."""
    torch.manual_seed(0)
    unet = small_unet(kind).requires_grad_(False).eval()
    unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=TARGETS))
    trained = {name: each for name, each in unet.named_parameters() if each.requires_grad}
    with torch.no_grad():
        for each in trained.values():
            each.copy_(0.3 * torch.randn(each.shape))
    return unet, {name: each.detach() for name, each in trained.items()}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_diffusers_finds_every_module_by_its_name(kind: str) -> None:
    unet, adapters = adapted(kind)
    names = kohya_names(adapters, alpha=3.0)
    assert len(names) == len(adapters) * 3 // 2
    assert all(name.startswith("lora_unet_") and name.count(".") <= 2 for name in names)
    back, alphas = _convert_non_diffusers_lora_to_diffusers(dict(names))
    assert set(alphas.values()) == {3.0}
    modules = {name for name, _ in unet.named_modules()}
    found = {}
    for name, tensor in back.items():
        module = name.removeprefix("unet.")
        for ending, matrix in ((".lora.down.weight", "A"), (".lora.up.weight", "B"),
                               ("_lora.down.weight", "A"), ("_lora.up.weight", "B")):  # fmt: skip
            if module.endswith(ending):
                path = module.removesuffix(ending).replace(".processor.to_out", ".to_out.0")
                path = path.replace(".processor.", ".")
                assert path in modules, name
                found[f"{path}.lora_{matrix}.default.weight"] = tensor
                break
    assert found.keys() == adapters.keys()
    assert all(torch.equal(found[name], adapters[name]) for name in adapters)


def test_the_names_that_other_programs_know() -> None:
    _, adapters = adapted("sd1")
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    names = kohya_names(adapters, alpha=3.0)
    assert names[f"{module}.lora_down.weight"].shape == (2, 8)
    assert names[f"{module}.lora_up.weight"].shape == (8, 2)
    assert names[f"{module}.alpha"].item() == 3.0
    assert names[f"{module}.alpha"].shape == ()


def test_what_is_no_adapter() -> None:
    with pytest.raises(ValueError, match=r"'conv_in\.weight' is not the name of an adapter"):
        kohya_names({"conv_in.weight": torch.zeros(1)}, 1.0)


def test_folded_weights_do_the_same_without_adapters() -> None:
    """Linear layers and convolutions alike."""
    unet, adapters = adapted("sd1")
    plain = small_unet("sd1").eval()
    state = {
        name.replace(".base_layer", ""): each
        for name, each in unet.state_dict().items()
        if "lora_" not in name
    }
    plain.load_state_dict(state | folded(state, adapters, alpha=3.0))
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([801, 1]), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = unet(*inputs).sample
        assert torch.allclose(plain(*inputs).sample, expected, atol=1e-4, rtol=1e-4)
        plain.load_state_dict(state)
        assert not torch.allclose(plain(*inputs).sample, expected, atol=1e-2)

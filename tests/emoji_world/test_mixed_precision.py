"""What is computed in float32 equals the stock modules; the whole model stays close in bfloat16."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from emoji_world.generator import TEXT_WIDTH
from emoji_world.mixed_precision import Float32AttentionProcessor, Float32GroupNorm, to_bfloat16


@pytest.mark.parametrize("cross", [True, False], ids=["cross", "self"])
def test_attention_equals_the_stock_processor(cross: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(32, cross_attention_dim=24 if cross else None, heads=4, dim_head=8)
    states = torch.randn(2, 9, 32)
    context = torch.randn(2, 5, 24) if cross else None
    expected = attention(states, encoder_hidden_states=context)
    attention.set_processor(Float32AttentionProcessor())
    torch.testing.assert_close(attention(states, encoder_hidden_states=context), expected)


def test_attention_refuses_a_mask_instead_of_ignoring_it() -> None:
    attention = Attention(8, heads=1, dim_head=8, processor=Float32AttentionProcessor())
    with pytest.raises(ValueError, match="no mask"):
        attention(torch.randn(1, 3, 8), attention_mask=torch.zeros(1, 1, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_keeps_the_type_and_computes_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = Float32GroupNorm(2, 8).to(dtype)
    stock = nn.GroupNorm(2, 8)
    stock.load_state_dict({name: tensor.float() for name, tensor in norm.state_dict().items()})
    inputs = (100 + torch.randn(3, 8, 5, 5)).to(dtype)
    normed = norm(inputs)
    assert normed.dtype == dtype
    torch.testing.assert_close(normed, stock(inputs.float()).to(dtype))


def prediction(unet: UNet2DConditionModel, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 8, 16, 16, generator=generator).to(dtype)
    states = torch.randn(2, 16, TEXT_WIDTH, generator=generator).to(dtype)
    predicted: Tensor = unet(noisy, torch.tensor([10, 900]), states, return_dict=False)[0]
    return predicted


def test_the_model_in_bfloat16_predicts_nearly_the_same_and_learns(
    build_small_unet: Callable[[], UNet2DConditionModel],
) -> None:
    torch.manual_seed(0)
    unet = build_small_unet()
    with torch.no_grad():
        expected = prediction(unet, torch.float32)
    to_bfloat16(unet)
    assert {p.dtype for p in unet.parameters()} == {torch.bfloat16}
    predicted = prediction(unet, torch.bfloat16)
    assert predicted.dtype == torch.bfloat16
    error = (predicted.float() - expected).square().mean() / expected.square().mean()
    assert error < 3e-3
    predicted.float().square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in unet.parameters())


def test_every_slow_kernel_is_replaced(
    build_small_unet: Callable[[], UNet2DConditionModel],
) -> None:
    unet = build_small_unet()
    to_bfloat16(unet)
    norms = [module for module in unet.modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert all(type(norm) is Float32GroupNorm for norm in norms)
    processors = unet.attn_processors.values()
    assert all(isinstance(processor, Float32AttentionProcessor) for processor in processors)

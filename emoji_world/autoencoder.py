"""The autoencoder of the generator: an analytic encoder and a trained decoder.

The encoder of a standard `AutoencoderKL` is set by hand to `latents.PatchComponents`: every
residual branch is zero, the strided convolutions move pixels into channels, the last 1×1 shortcut
projects onto the components, and constant channels turn the final group normalisation and SiLU
into an affine map that the output convolution undoes. Only the decoder is learned.
"""

from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from emoji_world.composition import SIZE
from emoji_world.latents import CHANNELS, PATCH, PatchComponents

_GROUPS: Final = 8
_WIDTHS: Final = (16, 48, 64)
_CONSTANT: Final = 100.0
"""Size of the constant channels that dominate the group statistics: the larger, the more linear,
and the more of float32's digits are cancelled. 100 leaves both errors near 1e-4."""

_SILU_SHIFT: Final = 20.0
"""silu(20 + x) equals 20 + x to 1e-7 for |x| ≤ 3."""

_LOG_VARIANCE: Final = -18.0
"""Log variance of the posterior, so small that sampling from it changes nothing visible."""


def build_autoencoder(components: PatchComponents) -> AutoencoderKL:
    """An autoencoder whose encoder computes ``components`` and whose decoder is untrained."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=_WIDTHS,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=_GROUPS,
        sample_size=SIZE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        _set_encoder(vae, components)
    return vae


def _set_encoder(vae: AutoencoderKL, components: PatchComponents) -> None:
    encoder = vae.encoder
    for parameter in (*encoder.parameters(), *vae.quant_conv.parameters()):
        parameter.zero_()
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1.0
    first, second, third = encoder.down_blocks
    _gather_quarters(first.downsamplers[0].conv, 3)
    _copy_channels(second.resnets[0].conv_shortcut, 12)
    _gather_quarters(second.downsamplers[0].conv, 12)
    _project(third.resnets[0].conv_shortcut, components)
    _undo_norm(encoder.conv_norm_out, encoder.conv_out)
    for channel in range(2 * CHANNELS):
        vae.quant_conv.weight[channel, channel, 0, 0] = 1.0
    vae.quant_conv.bias[CHANNELS:] = _LOG_VARIANCE


def _gather_quarters(conv: nn.Conv2d, channels: int) -> None:
    """A strided convolution that puts each 2×2 block of ``channels`` into 4·channels."""
    for channel in range(channels):
        for row in range(2):
            for column in range(2):
                conv.weight[4 * channel + 2 * row + column, channel, row, column] = 1.0


def _copy_channels(conv: nn.Conv2d, channels: int) -> None:
    for channel in range(channels):
        conv.weight[channel, channel, 0, 0] = 1.0


def _patch_order() -> list[int]:
    """For each channel after both strided convolutions, its place in a `to_patches` vector."""
    order = []
    for channel in range(12):
        colour, rest = divmod(channel, 4)
        inner_row, inner_column = divmod(rest, 2)
        for row in range(2):
            for column in range(2):
                y, x = 2 * row + inner_row, 2 * column + inner_column
                order.append(colour * PATCH**2 + y * PATCH + x)
    return order


def _project(conv: nn.Conv2d, components: PatchComponents) -> None:
    """Component k and its negative into group k, the group's other channels constant.

    The negative keeps the mean of the group at zero whatever the picture.
    """
    width = _WIDTHS[-1] // _GROUPS
    order = _patch_order()
    assert conv.bias is not None
    for component in range(CHANNELS):
        first = component * width
        offset = components.basis[component] @ components.mean
        for place, sign in ((0, 1.0), (1, -1.0)):
            conv.weight[first + place, :, 0, 0] = sign * components.basis[component, order]
            conv.bias[first + place] = -sign * offset
        for place in range(2, width):
            conv.bias[first + place] = _CONSTANT if place % 2 else -_CONSTANT


def _undo_norm(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """Make group norm, SiLU and the output convolution together the identity on component k."""
    width = _WIDTHS[-1] // _GROUPS
    spread = _CONSTANT * ((width - 2) / width) ** 0.5
    norm.weight.zero_()
    norm.bias.fill_(_SILU_SHIFT)
    assert conv.bias is not None
    for component in range(CHANNELS):
        first = component * width
        norm.weight[first] = 1.0
        conv.weight[component, first, 1, 1] = spread
        conv.bias[component] = -spread * _SILU_SHIFT


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder in ``folder``, in float32.

    Raises:
        ValueError: there is none.
    """
    # Without this check diffusers takes the path for the name of a model on a hub.
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no decoder: run `python -m emoji_world decoder` first")
    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    vae.register_to_config(_name_or_path="")  # where it lay here is nobody's business
    return vae.eval()


def decoder_parameters(vae: AutoencoderKL) -> list[nn.Parameter]:
    """What is trained: the decoder and the convolution before it."""
    return [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]


def psnr(left: Tensor, right: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], any equal shapes."""
    return float(10 * torch.log10(4 / (left.clamp(-1, 1) - right).square().mean()))

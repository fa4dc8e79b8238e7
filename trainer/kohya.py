"""LoRA adapters under the names that ComfyUI and AUTOMATIC1111 read (kohya's sd-scripts).

    down_blocks.0.attentions.0.…attn1.to_q.lora_A.default.weight
    → lora_unet_down_blocks_0_attentions_0_…attn1_to_q.lora_down.weight

The path of a module has underscores in place of dots, the first matrix is `lora_down`, the second
`lora_up`, and a scalar `alpha` beside them says that the product is scaled by alpha / rank. Names
of the UNet's blocks are those of diffusers, of Stable Diffusion 1 and XL alike; diffusers reads
such files too.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_PARAMETER = re.compile(r"(?P<module>.+)\.lora_(?P<matrix>[AB])\.(?:default\.)?weight")
_MATRICES = {"A": "lora_down", "B": "lora_up"}


def kohya_names(adapters: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Adapters of a UNet under kohya's names.

    Args:
        adapters: peft's names → matrices: of each module `lora_A` (r, in, …) and `lora_B` (out, r,
            …).
        alpha: their output is scaled by alpha / r.

    Raises:
        ValueError: a name is not that of an adapter.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in adapters.items():
        match = _PARAMETER.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of an adapter's matrix")
        module = f"lora_unet_{match['module'].replace('.', '_')}"
        found[f"{module}.{_MATRICES[match['matrix']]}.weight"] = tensor.contiguous()
        found[f"{module}.alpha"] = torch.tensor(alpha)
    return found


def folded(
    weights: Mapping[str, Tensor], adapters: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """The weights that adapters change, with them folded in: W + (alpha / r) B A.

    Args:
        weights: of the modules that have adapters, by name (`….to_q.weight`); others are not read.
        adapters, alpha: as of `kohya_names`.

    Raises:
        KeyError: a module is not among the weights.
    """
    changed = {}
    for name, down in adapters.items():
        match = _PARAMETER.fullmatch(name)
        if match is None or match["matrix"] != "A":
            continue
        up = adapters[name.replace(".lora_A.", ".lora_B.")]
        key = f"{match['module']}.weight"
        weight = weights[key]
        # A convolution's adapters are convolutions of (r, in, k, k) and (out, r, 1, 1).
        product = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        changed[key] = weight + (alpha / len(down)) * product
    return changed

"""Devices and precisions, and what is said of those that are not here."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reward_services.models.model_options import ModelOptions
from reward_services.models.placement import place
from reward_services.options import RewardOptions, SetupError, build_options

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def options(**given: Any) -> ModelOptions:
    return ModelOptions.model_validate(given)


@pytest.mark.parametrize(
    ("given", "dtype", "precision"),
    [
        ("auto", torch.float32, "fp32"),
        ("fp32", torch.float32, "fp32"),
        ("fp16", torch.float16, "fp16"),
        ("bf16", torch.bfloat16, "bf16"),
    ],
)
def test_on_a_cpu(given: str, dtype: torch.dtype, precision: str) -> None:
    placement = place(options(device="cpu", dtype=given), half_on_gpu=True)
    assert placement.exact
    assert placement.precision == precision
    assert placement.load_arguments() == {"dtype": dtype}
    assert placement.send(torch.ones(2)).device.type == "cpu"


@no_gpu
def test_auto_is_what_is_there() -> None:
    expected = "mps" if torch.backends.mps.is_available() else "cpu"
    assert place(options()).device.type == expected


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there(device: str) -> None:
    with pytest.raises(SetupError, match=f"device={device}: .+ sees 0 CUDA devices"):
        place(options(device=device))


@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_quantised_weights_need_a_gpu(dtype: str) -> None:
    with pytest.raises(SetupError, match=f"dtype={dtype} needs a CUDA device"):
        place(options(device="cpu", dtype=dtype))


@pytest.mark.parametrize(
    "given", [{"device": "gpu"}, {"dtype": "fp8"}, {"batch_size": "0"}, {"idle_offload_s": "-1"}]
)
def test_values_that_make_no_sense(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(SetupError, match=f"--set {name}: "):
        build_options(ModelOptions, given)


def test_a_placed_model_is_only_for_inference() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    place(options(device="cpu")).place(model)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def subclasses(kind: type[RewardOptions]) -> list[type[RewardOptions]]:
    return [kind, *(each for child in kind.__subclasses__() for each in subclasses(child))]


def test_every_option_is_explained() -> None:
    from reward_services.scorers import aesthetic, llava_bertscore, llava_vqa

    kinds = subclasses(ModelOptions)
    assert {
        aesthetic.AestheticOptions,
        llava_bertscore.LlavaBertScoreOptions,
        llava_vqa.LlavaVqaOptions,
    } <= set(kinds)
    assert all(field.description for kind in kinds for field in kind.model_fields.values())


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    assert place(options(), half_on_gpu=True).precision == "fp16"
    placement = place(options(device="cuda:0"))
    assert placement.precision == "fp32"
    assert not placement.exact
    assert torch.equal(placement.send(torch.arange(3)).cpu(), torch.arange(3))


def test_what_is_sent_lies_aligned_on_a_cpu() -> None:
    placement = place(ModelOptions(device="cpu"))
    array = np.zeros(1000, np.float32)
    for offset in range(8):
        sent = placement.send(torch.from_numpy(array[offset : offset + 900]))
        assert sent.data_ptr() % 64 == 0

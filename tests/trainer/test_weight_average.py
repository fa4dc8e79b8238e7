"""The averaged weights: worked numbers, when they stand in, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from trainer import checkpoints, gallery
from trainer.comparison import Comparison, compare
from trainer.config import load_config
from trainer.loop import train
from trainer.trained_weights import LORA_FILE
from trainer.weight_average import WeightAverage, decay_after

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess


def number(value: float) -> dict[str, torch.nn.Parameter]:
    return {"w": torch.nn.Parameter(torch.tensor([value]))}


def put(trained: dict[str, torch.nn.Parameter], value: float) -> None:
    with torch.no_grad():
        trained["w"].fill_(value)


def test_worked_numbers() -> None:
    trained = number(0.0)
    average = WeightAverage(trained, 0.75, warmup=False)
    assert average.state()["w"].item() == 0
    for value, expected in ((8.0, 2.0), (8.0, 3.5), (-0.5, 2.5)):
        put(trained, value)
        average.update()
        assert average.state()["w"].item() == pytest.approx(expected)
    assert average.updates == 3
    assert trained["w"].item() == -0.5


def test_warming_up_follows_faster_at_first() -> None:
    decays = [decay_after(updates, 0.5, warmup=True) for updates in (0, 1, 7, 8, 9, 1000)]
    assert decays == pytest.approx([1 / 10, 2 / 11, 8 / 17, 0.5, 0.5, 0.5])
    assert decay_after(0, 0.5, warmup=False) == 0.5
    trained = number(0.0)
    average = WeightAverage(trained, 0.5, warmup=True)
    put(trained, 11.0)
    average.update()
    average.update()
    assert average.state()["w"].item() == pytest.approx(11 * (1 - 0.1 * 2 / 11))


def test_it_stands_in_and_leaves_again() -> None:
    trained = number(1.0)
    average = WeightAverage(trained, 0.5, warmup=False)
    put(trained, 1 / 3)
    average.update()

    def fail() -> None:
        with average.in_place():
            assert trained["w"].item() == pytest.approx(2 / 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert trained["w"].item() == torch.tensor(1 / 3).item()
    assert average.state()["w"].item() == pytest.approx(2 / 3)


def test_it_goes_on_from_what_was_saved() -> None:
    trained = number(0.0)
    average = WeightAverage(trained, 0.99, warmup=True)
    put(trained, 1.0)
    average.update()
    saved = average.state()
    again = WeightAverage(number(5.0), 0.99, warmup=True)
    again.load_state(saved, average.updates)
    average.update()
    # A copy: what was saved does not move on.
    assert again.state()["w"] == saved["w"] != average.state()["w"]
    put(trained, 5.0)
    again.update()
    assert again.state()["w"].item() == pytest.approx(saved["w"].item() * 2 / 11 + 5 * 9 / 11)


@pytest.fixture
def run_of(micro_recipe: Path, service: "ServiceProcess") -> Callable[..., Path]:
    """A finished run of two epochs of two optimiser steps."""

    def build(name: str, *overrides: str) -> Path:
        settings = [f"run.name={name}", "training.epochs=2", "training.batch_size=2", *overrides]
        return train(load_config(micro_recipe, settings, rewards={"jpeg": service.url}))

    return build


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_with_it_trains_the_same_and_ends_with_both(
    run_of: Callable[..., Path], micro_sd: Path, service: "ServiceProcess"
) -> None:
    plain, folder = run_of("plain"), run_of("averaged", "ema.decay=0.9")
    assert not (plain / "raw").exists()
    assert not [*plain.glob("checkpoints/*/average.safetensors")]
    # Training never sees the average.
    assert (folder / "raw" / LORA_FILE).read_bytes() == (plain / LORA_FILE).read_bytes()
    assert (folder / LORA_FILE).read_bytes() != (plain / LORA_FILE).read_bytes()

    newest = checkpoints.load(checkpoints.found(folder / "checkpoints"))
    assert newest.state.average_updates == 4
    assert newest.evaluated is newest.average
    assert same(newest.weights, checkpoints.load(checkpoints.found(plain / "checkpoints")).weights)
    written = load_file(folder / LORA_FILE)
    flat = torch.cat([tensor.flatten() for tensor in newest.average.values()])
    assert torch.equal(
        torch.cat([tensor.flatten() for tensor in written.values()]).sort().values,
        flat.sort().values,
    )
    for each in (folder, folder / "raw"):
        pipe = StableDiffusionPipeline.from_pretrained(micro_sd)
        pipe.load_lora_weights(each)

    # Evaluations draw with the average: the same ones, here and in `ddpo evaluate`.
    _, results = compare(Comparison(folder, {"jpeg": service.url}, ["animals"]))
    judged = results.prompt_sets["animals"].rewards["jpeg"]
    averaged, trained = (
        gallery.load_all(each / "evaluation")[-1][0].rewards["jpeg"].scores
        for each in (folder, plain)
    )
    assert judged["epoch-00002"].scores == averaged != trained


def test_a_whole_unet_is_averaged_too(run_of: Callable[..., Path]) -> None:
    folder = run_of("full", "ema.decay=0.5", "model.train=full", "training.learning_rate=1e-3")
    newest = checkpoints.load(checkpoints.found(folder / "checkpoints"))
    for place, expected in ((folder, newest.average), (folder / "raw", newest.weights)):
        unet = UNet2DConditionModel.from_pretrained(place, subfolder="unet")
        assert same({name: p.detach() for name, p in unet.named_parameters()}, expected)
    assert not same(newest.average, newest.weights)

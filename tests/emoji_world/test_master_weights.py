"""Master weights: AdamW in float32, clipped, averaged over steps and over processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from emoji_world.master_weights import MAX_GRAD_NORM, MasterWeights


def inputs() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(2)
    while True:
        yield torch.randn(4, 3, generator=generator)


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2).to(dtype)


def backward(module: nn.Linear, batch: Tensor, scale: float = 0.05) -> None:
    (scale * module(batch.to(module.weight.dtype)).float().square().mean()).backward()


def test_in_float32_it_is_plain_adamw() -> None:
    ours, plain = linear(), linear()
    weights = MasterWeights({"linear": ours}, 1e-2)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01)
    for batch, _ in zip(inputs(), range(5), strict=False):
        backward(ours, batch)
        weights.step(3e-3, 0.9, 1)
        optimizer.zero_grad()
        backward(plain, batch)
        optimizer.step()
    torch.testing.assert_close(ours.weight, plain.weight)
    assert not torch.equal(ours.weight, linear().weight)


def test_small_steps_add_up_behind_bfloat16_weights() -> None:
    """Steps of 1e-5 would vanish in bfloat16 weights of size 0.5."""
    module = linear(torch.bfloat16)
    weights = MasterWeights({"linear": module}, 1e-5)
    before = weights.state()["master/linear.weight"].clone()
    for batch, _ in zip(inputs(), range(20), strict=False):
        backward(module, batch)
        weights.step(1e-5, 0.9, 1)
    master = weights.state()["master/linear.weight"]
    assert (master - before).abs().max() > 1e-4
    assert torch.equal(module.weight, master.bfloat16())


def test_large_gradients_are_clipped() -> None:
    large, unit = linear(), linear()
    both = [MasterWeights({"linear": module}, 1e-2) for module in (large, unit)]
    batch = next(inputs())
    backward(large, batch, scale=1e6)
    assert both[0].step(1e-2, 0.9, 1) > 1e3
    backward(unit, batch, scale=1e6)
    gradients = [p.grad for p in unit.parameters() if p.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    for gradient in gradients:
        gradient *= MAX_GRAD_NORM / norm
    both[1].step(1e-2, 0.9, 1)
    first, second = (weights.state()["optimizer/0/exp_avg"] for weights in both)
    torch.testing.assert_close(first, second)


def test_the_average_follows_and_can_be_put_into_the_modules() -> None:
    module = linear()
    weights = MasterWeights({"linear": module}, 1e-1)
    before = module.weight.detach().clone()
    backward(module, next(inputs()))
    weights.step(1e-1, 0.75, 1)
    after = module.weight.detach().clone()
    weights.load_averages_into_modules()
    torch.testing.assert_close(module.weight, 0.75 * before + 0.25 * after)


def test_a_restored_run_takes_the_same_steps(tmp_path: Path) -> None:
    batches = [batch for batch, _ in zip(inputs(), range(6), strict=False)]
    straight = linear(torch.bfloat16)
    weights = MasterWeights({"linear": straight}, 1e-2)
    for step, batch in enumerate(batches):
        if step == 3:
            save_file(weights.state(), tmp_path / "state.safetensors")
        backward(straight, batch)
        weights.step(1e-2, 0.9, 1)
    resumed = linear(torch.bfloat16)
    restored = MasterWeights({"linear": resumed}, 1e-2)
    restored.load_state(load_file(tmp_path / "state.safetensors"))
    for batch in batches[3:]:
        backward(resumed, batch)
        restored.step(1e-2, 0.9, 1)
    expected, state = weights.state(), restored.state()
    assert expected.keys() == state.keys()
    assert all(torch.equal(expected[name], state[name]) for name in expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_stops_before_it_reaches_a_weight(bad: float) -> None:
    module = linear()
    weights = MasterWeights({"linear": module}, 1e-2)
    before = {name: tensor.clone() for name, tensor in weights.state().items()}
    backward(module, next(inputs()) * bad)
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        weights.step(1e-2, 0.9, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.state().items())


def step_in_a_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module = linear()
    weights = MasterWeights({"linear": module}, 1e-2)
    backward(module, next(inputs())[2 * rank : 2 * rank + 2])
    weights.step(1e-2, 0.9, 2)
    save_file(weights.state(), f"{folder}/rank{rank}.safetensors")
    dist.destroy_process_group()


def test_two_processes_take_the_step_of_one_with_both_halves(tmp_path: Path) -> None:
    spawn(step_in_a_process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    module = linear()
    weights = MasterWeights({"linear": module}, 1e-2)
    backward(module, next(inputs()))
    weights.step(1e-2, 0.9, 1)
    expected = weights.state()
    for rank in range(2):
        state = load_file(tmp_path / f"rank{rank}.safetensors")
        assert state.keys() == expected.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, expected[name])

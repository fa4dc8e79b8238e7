"""The trainer at Stable Diffusion's size against the published recipe: speed, memory, utilisation.

Both ways take turns in one process on the same random weights:

- published: fp16, LoRA, pictures one by one, and one (image, timestep) per forward and backward
  pass, as the published PyTorch implementation of DDPO is configured by default;
- ours: batches of pictures and micro-batches of (image, timestep) pairs, fused AdamW, and what the
  options turn on.

    python -m benchmarks.gpu [--shape sd14|sdxl] [--gradient-checkpointing]

Without a GPU only the small shapes are of use (`--device cpu --shape sd`), to see that it runs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring.diffusion_models import UNETS, save_random_model
from benchmarks.measuring.tables import verdict
from trainer.optimizer import make_optimizer
from trainer.policy import Policy
from trainer.sampling import Rollout, noise_seed, sample, trajectory_noise
from trainer.sections import ModelSection, TrainingSection
from trainer.unet_policy import UNetPolicy
from trainer.update import PairScorer, update_epoch

GUIDANCE = 5.0
GOAL = 3.0
# Dense half-precision tensor operations per second that the makers state, by part of the name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "4090": 165e12, "3090": 71e12}


@dataclass(frozen=True)
class Way:
    """One way to do the same work; the model's settings but for its folder."""

    name: str
    batch: int
    micro_batch: int
    optimizer: str
    model: dict[str, object]


@dataclass(frozen=True)
class Outcome:
    """What one way took: medians over the rounds.

    Attributes:
        sampling: seconds per picture, decoded.
        training: seconds per (image, timestep).
        peak_bytes: of the device's memory, weights and all; 0 where it is not told.
    """

    sampling: float
    training: float
    peak_bytes: int


def measure(way: Way, folder: str, options: argparse.Namespace) -> Outcome:
    """Sample and train in one way, alone on the device."""
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = ModelSection.model_validate({"path": folder, "train": "lora", **way.model})
    policy = UNetPolicy.load(model, device)
    tables = policy.tables(options.steps, eta=1.0)
    prompts = ["a cat", "a dog"] * (options.samples // 2)
    policy.remember([*dict.fromkeys(prompts), ""])
    seeds = [noise_seed(0, "benchmark", 0, i) for i in range(options.samples)]
    noise = trajectory_noise(seeds, options.steps, policy.latent_shape)

    def draw() -> Rollout:
        parts = range(0, options.samples, way.batch)
        return Rollout.cat(
            [
                sample(
                    policy,
                    tables,
                    prompts[first : first + way.batch],
                    noise[first : first + way.batch],
                    GUIDANCE,
                )
                for first in parts
            ]
        )

    sampling = _median(draw, options.rounds, device)
    rollout = draw()
    training = _median(_update(policy, rollout, way, options), options.rounds, device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    pairs = options.samples * options.steps
    return Outcome(sampling / options.samples, training / pairs, peak)


def _update(
    policy: Policy, rollout: Rollout, way: Way, options: argparse.Namespace
) -> Callable[[], object]:
    """One optimiser step over all pairs of the rollout, by a rate of nearly nothing."""
    training = TrainingSection.model_validate(
        {
            "batch_size": options.samples,
            "micro_batch_size": way.micro_batch,
            "learning_rate": 1e-12,
            "optimizer": way.optimizer,
        }
    )
    scorer = PairScorer.build(policy, policy.tables(options.steps, eta=1.0), rollout, GUIDANCE)
    optimizer = make_optimizer(policy, training)
    # Random weights may overflow in fp16; what is not finite takes as long.
    valid = np.ones(options.samples, dtype=bool)
    advantages = np.linspace(-1, 1, options.samples)
    generator = torch.Generator()
    return lambda: update_epoch(
        scorer, optimizer, advantages, valid, training, generator.manual_seed(0)
    )


def _median(action: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Seconds of the median round, after one that warms up."""
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def flops_of(folder: str, device: str) -> tuple[float, float]:
    """Floating-point operations of one guided prediction, and of one with its backward pass."""
    policy = UNetPolicy.load(ModelSection(path=folder, train="lora"), device)
    latents = torch.randn(1, *policy.latent_shape, device=policy.device)
    timestep = torch.ones(1, dtype=torch.int64, device=policy.device)
    counts = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            encoded = policy.encode(["a cat"]), policy.unconditional()
            before = counter.get_total_flops()
            noise = policy.predict_noise(latents, timestep, *encoded, GUIDANCE)
            if backward:
                noise.sum().backward()  # type: ignore[no-untyped-call]
        counts.append(float(counter.get_total_flops() - before))
    return counts[0], counts[1]


def report(
    outcomes: dict[str, Outcome], steps: int, flops: tuple[float, float], peak: float
) -> None:
    """Speeds, utilisation and memory of each way, and how much faster ours is."""
    for name, one in outcomes.items():
        drawn, trained = steps * flops[0] / one.sampling, flops[1] / one.training
        print(
            f"{name:9}  {1 / one.sampling:8.2f} images/s  {1000 * one.training:8.2f} ms per "
            f"image·timestep  {drawn / 1e12:.3g} and {trained / 1e12:.3g} TFLOP/s"
            + (f" (MFU {drawn / peak:.0%} and {trained / peak:.0%})" if peak else "")
            + (f"  peak {one.peak_bytes / 1e9:.2f} GB" if one.peak_bytes else "")
        )
    published, ours = outcomes["published"], outcomes["ours"]
    print(verdict("sampling, times as fast", published.sampling / ours.sampling, GOAL))
    print(verdict("training, times as fast", published.training / ours.training, GOAL))


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(UNETS), default="sd14")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16")
    parser.add_argument("--samples", type=int, default=16, help="an even number")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--peak-tflops", type=float, help="of the device; known for some")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("nothing measured: there is no CUDA device here")
        return
    ours = {
        "dtype": options.dtype,
        "channels_last": True,
        "gradient_checkpointing": options.gradient_checkpointing,
    }
    ways = [
        Way("published", 1, 1, "adamw", {"dtype": options.dtype}),
        Way("ours", options.batch_size, options.micro_batch_size, "adamw_fused", ours),
    ]
    device = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    peak = next((peak for part, peak in PEAKS.items() if part in device), 0.0)
    if options.peak_tflops:
        peak = options.peak_tflops * 1e12
    print(f"-- {options.shape}, {options.dtype}, {options.steps} steps, guided, on {device}")
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), options.shape)
        outcomes = {way.name: measure(way, folder, options) for way in ways}
        report(outcomes, options.steps, flops_of(folder, options.device), peak)


if __name__ == "__main__":
    main()

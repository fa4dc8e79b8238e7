"""Micro-batching over (sample, timestep) pairs against the published per-timestep loop.

Three ways to compute the same gradient take turns in one process:

- published: the per-timestep loop at batch 4, with attention materialised, as in the original code;
- loop: the same loop with scaled-dot-product attention;
- pairs: micro-batches of (sample, timestep) pairs, with scaled-dot-product attention.

    python -m benchmarks.training_step [--model FOLDER] [--train lora|full] [--threads 1]

Without --model: two models with random weights, one of the shape of emoji_world's and a narrow
one of Stable Diffusion's. Medians; the times depend on the machine, the ratios much less.
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
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from benchmarks.measuring.diffusion_models import UNETS, save_random_model
from trainer.optimizer import make_optimizer
from trainer.sampling import noise_seed, sample, trajectory_noise
from trainer.sections import ModelSection, TrainingSection
from trainer.unet_policy import UNetPolicy
from trainer.update import PairScorer, update_epoch

LOOP_BATCH = 4
GOAL = 1.4


@dataclass(frozen=True)
class Variant:
    """One way to cut a step's pairs into passes."""

    name: str
    micro_batch_size: int
    attention: type[AttnProcessor] | type[AttnProcessor2_0]


def timed(action: Callable[[], object]) -> float:
    """Seconds an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(
    policy: UNetPolicy, samples: int, steps: int, micro_batch_size: int, rounds: int
) -> None:
    """Sample, then train in turns, and print the medians and their ratios."""
    tables = policy.tables(steps, eta=1.0)
    seeds = [noise_seed(0, "benchmark", 0, i) for i in range(samples)]
    noise = trajectory_noise(seeds, steps, policy.latent_shape)
    prompts = ["a cat", "a dog"] * (samples // 2)

    def draw() -> None:
        sample(policy, tables, prompts, noise, 5.0)

    draw()
    sampling = statistics.median(timed(draw) for _ in range(rounds))
    print(f"sampling: {samples / sampling:.2f} images/s ({steps} steps, batch {samples})")

    rollout = sample(policy, tables, prompts, noise, 5.0)
    scorer = PairScorer.build(policy, tables, rollout, 5.0)
    advantages = np.linspace(-1, 1, samples)
    variants = (
        Variant("published", LOOP_BATCH, AttnProcessor),
        Variant("loop", LOOP_BATCH, AttnProcessor2_0),
        Variant("pairs", micro_batch_size, AttnProcessor2_0),
    )
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for round_number in range(rounds + 1):
        for variant in variants:
            # A learning rate of nearly nothing, so that every round does the same work.
            training = TrainingSection(
                batch_size=samples,
                micro_batch_size=variant.micro_batch_size,
                learning_rate=1e-12,
            )
            policy.set_attention(variant.attention())
            taken = timed(
                lambda training=training: update_epoch(  # type: ignore[misc]
                    scorer,
                    make_optimizer(policy, training),
                    advantages,
                    rollout.valid,
                    training,
                    torch.Generator().manual_seed(0),
                )
            )
            if round_number:  # the first round warms up
                seconds[variant.name].append(taken)
    report(variants, seconds, samples * steps)


def report(variants: tuple[Variant, ...], seconds: dict[str, list[float]], pairs: int) -> None:
    """Print ms per image·timestep of each variant and how many times faster `pairs` is."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for variant in variants:
        print(
            f"training, {variant.name:9} (micro-batch {variant.micro_batch_size:2}): "
            f"{1000 * medians[variant.name] / pairs:.2f} ms per image·timestep"
        )
    for name in ("published", "loop"):
        print(f"pairs is {medians[name] / medians['pairs']:.2f}x {name} (goal {GOAL})")


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="folder of a StableDiffusionPipeline")
    parser.add_argument("--train", choices=("lora", "full"), default="lora")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--samples", type=int, default=8, help="an even number")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--micro-batch-size", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for source in [options.model] if options.model else ["emoji", "sd"]:
        with tempfile.TemporaryDirectory() as folder:
            if source in UNETS:
                save_random_model(Path(folder), source)
            model = ModelSection(
                path=folder if source in UNETS else source,
                train=options.train,
                channels_last=options.channels_last,
            )
            policy = UNetPolicy.load(model, options.device)
        print(f"-- {source}: {options.train}, {options.threads} threads, {options.device}")
        measure(policy, options.samples, options.steps, options.micro_batch_size, options.rounds)


if __name__ == "__main__":
    main()

"""The update of reward-weighted regression: denoising the epoch's own pictures, by their weights.

Black et al. 2023, section 4.2 and appendix D.1. Each optimiser step takes a batch of pictures,
noises each to a random timestep, and descends the weighted denoising loss. The published code
trains the guided prediction; without, their models collapsed after one round (appendix E.1).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.conditioning import Conditioning
from trainer.optimizer import take_step
from trainer.picture_codec import Posterior
from trainer.policy import Policy
from trainer.processes import ALONE, Processes
from trainer.rwr import weighted_denoising_loss
from trainer.sections import RWRSection, TrainingSection
from trainer.step_statistics import StepStats, UpdateStats, regression_stats


@dataclass(frozen=True)
class WeightedPictures:
    """What is trained on: M pictures with their prompts and weights."""

    latents: Posterior
    """x_0 of the pictures, on the policy's device."""
    prompts: list[str]
    """M prompts."""
    weights: npt.NDArray[np.float64]
    """(M,), positive; their mean over what is trained on is about 1."""

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Denoiser:
    """The prediction that is trained, of any rows of the pictures."""

    policy: Policy
    pictures: WeightedPictures
    conditional: Conditioning
    """Of each picture's prompt, M rows."""
    unconditional: Conditioning
    """What guidance leads away from, one row."""
    guidance_scale: float
    """1 trains the plain prediction."""

    @classmethod
    def build(cls, policy: Policy, pictures: WeightedPictures, guidance_scale: float) -> "Denoiser":
        """Encode the prompts once for all updates."""
        conditional, unconditional = policy.encode(pictures.prompts), policy.unconditional()
        return cls(policy, pictures, conditional, unconditional, guidance_scale)

    def loss(self, draw: "Draw") -> Tensor:
        """Weighted loss of each row of a draw, (B,) fp32, differentiable."""
        latents = self.pictures.latents.draw(draw.rows, draw.encoding)
        conditional = self.conditional.select(draw.rows).replaced(draw.dropped, self.unconditional)
        predicted = self.policy.predict(
            self.policy.noised(latents, draw.noise, draw.timesteps),
            draw.timesteps,
            conditional,
            self.unconditional,
            self.guidance_scale,
        )
        # Of the kind that the network was trained to predict, which for velocity is not the noise.
        target = self.policy.target(latents, draw.noise, draw.timesteps)
        return weighted_denoising_loss(target, predicted, draw.weights)


@dataclass(frozen=True)
class Draw:
    """What one optimiser step is computed on; B rows, on the policy's device."""

    rows: Tensor
    """(B,) int64, which pictures."""
    weights: Tensor
    """(B,) fp32."""
    timesteps: Tensor
    """(B,) int64, of training."""
    noise: Tensor
    """n, (B, C, h, w)."""
    encoding: Tensor
    """Noise of the encoder's posterior, (B, C, h, w)."""
    dropped: Tensor
    """(B,) bool: trained on without the prompt."""

    def split(self, size: int) -> Iterator["Draw"]:
        """The same in micro-batches."""
        parts = (self.rows, self.weights, self.timesteps, self.noise, self.encoding, self.dropped)
        for pieces in zip(*(torch.split(part, size) for part in parts), strict=True):
            yield Draw(*pieces)


def regress_epoch(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    training: TrainingSection,
    rwr: RWRSection,
    generator: torch.Generator,
    on_step: Callable[[StepStats], None] = lambda _: None,
    processes: Processes = ALONE,
) -> UpdateStats:
    """Train on one epoch's pictures for `rwr.updates` optimiser steps.

    Args:
        denoiser: policy and pictures.
        optimizer: over the policy's trained weights; emptied first with `rwr.fresh_optimizer`.
        training: sizes, the window of timesteps, gradient clipping.
        rwr: how many updates, and what they train.
        generator: CPU generator of every draw; its state belongs in a checkpoint.
        on_step: called after every optimiser step.
        processes: who share the micro-batches of every step; see `update_epoch`.
    """
    if rwr.fresh_optimizer:
        optimizer.state.clear()
    steps = []
    for rows in batches(len(denoiser.pictures), training.batch_size, rwr.updates, generator):
        draw = _drawn(denoiser, rows, training, rwr, generator)
        steps.append(_optimiser_step(denoiser, optimizer, draw, training, processes))
        on_step(steps[-1])
    return UpdateStats(steps)


def batches(count: int, size: int, updates: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each optimiser step, (size,) int64: pass after pass over all, each in a new order."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(updates):
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def _drawn(
    denoiser: Denoiser,
    rows: Tensor,
    training: TrainingSection,
    rwr: RWRSection,
    generator: torch.Generator,
) -> Draw:
    policy = denoiser.policy
    window, known = training.window(policy.training_timesteps), policy.training_timesteps
    shape = (len(rows), *policy.latent_shape)
    # Index 0 of the window is the noisiest timestep, the last of training.
    timesteps = (
        known - 1 - torch.randint(window.start, window.stop, rows.shape, generator=generator)
    )
    dropout = 0.0 if rwr.guided_loss else rwr.prompt_dropout
    draw = Draw(
        rows=rows,
        weights=torch.from_numpy(denoiser.pictures.weights)[rows].float(),
        timesteps=timesteps,
        noise=torch.randn(shape, generator=generator),
        encoding=torch.randn(shape, generator=generator),
        dropped=torch.rand(rows.shape, generator=generator) < dropout,
    )
    return Draw(*(getattr(draw, name).to(policy.device) for name in draw.__dataclass_fields__))


def _optimiser_step(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    draw: Draw,
    training: TrainingSection,
    processes: Processes,
) -> StepStats:
    """Accumulate the gradient over micro-batches, clip it, step."""
    parameters, scale = denoiser.policy.trainable_parameters(), denoiser.policy.loss_scale
    total = torch.zeros((), device=denoiser.policy.device)
    parts = draw.split(training.micro_batch_size)
    for part in islice(parts, processes.rank, None, processes.count):
        loss = denoiser.loss(part).sum() / len(draw.rows)
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    processes.sum_gradients(parameters)
    total = processes.gather(total[None]).sum()
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= scale
    norm = torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
    stats = regression_stats(total, norm, len(draw.rows))
    if not stats.skipped:
        take_step(optimizer, training)
    optimizer.zero_grad(set_to_none=True)
    return stats


def weighted_pictures(
    policy: Policy,
    latents: Tensor,
    images: npt.NDArray[np.uint8],
    prompts: Sequence[str],
    weights: npt.NDArray[np.float64],
    *,
    data: str,
    batch_size: int,
) -> WeightedPictures:
    """The pictures that have a weight, as they are trained on.

    Args:
        policy: encodes the pictures.
        latents: final latents of N pictures, (N, C, h, w).
        images: uint8 (N, H, W, 3).
        prompts: N prompts.
        weights: (N,); NaN or 0 leaves a picture out.
        data: `pictures` or `latents`, see `RWRSection.data`.
        batch_size: pictures encoded at once.
    """
    rows = np.flatnonzero(np.nan_to_num(weights) > 0)
    if data == "pictures":
        posterior = policy.codec.encode(images[rows], batch_size)
    else:
        mean = latents[torch.from_numpy(rows).to(latents.device)]
        posterior = Posterior(mean, torch.zeros_like(mean))
    return WeightedPictures(posterior, [prompts[int(row)] for row in rows], weights[rows])

"""Pictures drawn from the policy, with everything the update needs to train on them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.images import to_uint8
from trainer.base_policy import BasePolicy
from trainer.ddim import DDIMTables, step_mean, step_with_log_prob
from trainer.kl import Divergence, drawn_kl, step_kl
from trainer.policy import Policy


@dataclass(frozen=True)
class Rollout:
    """B pictures and the trajectories that led to them."""

    prompts: list[str]
    """The prompt of each picture."""
    latents: Tensor
    """x_T … x_0, (B, T+1, C, h, w) fp32, on the policy's device or the host, see `on_host`."""
    log_probs: Tensor
    """Of each of the T steps when it was drawn, (B, T) fp32, on the policy's device."""
    images: npt.NDArray[np.uint8]
    """(B, H, W, 3). Where `valid` is False the picture is black and must not be scored."""
    valid: npt.NDArray[np.bool_]
    """(B,): latents, log-probabilities and decoded picture are all finite. Taken before the
    conversion to uint8, which would turn NaN into a black picture."""
    divergence: Divergence | None = None
    """From the base model, when that was asked for."""

    @classmethod
    def cat(cls, rollouts: Sequence["Rollout"]) -> "Rollout":
        """One rollout of all pictures, in order."""
        return cls(
            prompts=[prompt for rollout in rollouts for prompt in rollout.prompts],
            latents=torch.cat([rollout.latents for rollout in rollouts]),
            log_probs=torch.cat([rollout.log_probs for rollout in rollouts]),
            images=np.concatenate([rollout.images for rollout in rollouts]),
            valid=np.concatenate([rollout.valid for rollout in rollouts]),
            divergence=Divergence.cat([rollout.divergence for rollout in rollouts]),
        )

    def on_host(self) -> "Rollout":
        """The same with the latents in the host's memory, of which a device has less."""
        return replace(self, latents=self.latents.cpu())

    def states(self, samples: Tensor, steps: Tensor) -> Tensor:
        """x_T−step of P pairs, (P, C, h, w), on the device that asks.

        Args:
            samples: (P,) int64, which pictures, on that device.
            steps: (P,) int64 in 0 … T, 0 the noise that a picture began with.
        """
        home = self.latents.device
        return self.latents[samples.to(home), steps.to(home)].to(samples.device)

    def __len__(self) -> int:
        return len(self.prompts)


def noise_seed(seed: int, purpose: str, epoch: int, index: int) -> int:
    """Seed of one picture's noise, in [0, 2⁶³).

    A hash, so that neighbouring pictures get unrelated generators, and so that a picture depends
    on neither batch size, nor the pictures before it, nor any state.

    Args:
        seed: the run's (or the evaluation's) seed.
        purpose: keeps streams apart: `train`, `evaluation`, …
        epoch: epoch of the picture.
        index: its position in the epoch.
    """
    text = f"{seed}/{purpose}/{epoch}/{index}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def trajectory_noise(
    seeds: Sequence[int], steps: int, latent_shape: tuple[int, int, int]
) -> Tensor:
    """Standard normal noise of B trajectories: (B, T+1, C, h, w) fp32 on the CPU.

    Entry 0 is x_T, entry 1+i is z of step i. Each picture has a generator of its own; it draws
    on the CPU, so a picture is the same whatever device the model runs on, up to rounding.
    """
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn((steps + 1, *latent_shape), generator=generator))
    return torch.stack(rows)


@torch.no_grad()
def sample(
    policy: Policy,
    tables: DDIMTables,
    prompts: Sequence[str],
    noise: Tensor,
    guidance_scale: float,
    base: BasePolicy | None = None,
) -> Rollout:
    """Draw one batch of pictures.

    Args:
        policy: the current policy.
        tables: its schedule, `policy.tables(steps, eta)`.
        prompts: B prompts.
        noise: (B, T+1, C, h, w), see `trajectory_noise`.
        guidance_scale: w ≥ 1.
        base: measure the divergence from it too, by one more forward pass per step.

    Raises:
        ValueError: the noise does not fit the prompts or the schedule.
    """
    if noise.shape[:2] != (len(prompts), len(tables) + 1):
        raise ValueError(
            f"noise of shape {tuple(noise.shape)} for {len(prompts)} prompts and "
            f"{len(tables)} steps: expected ({len(prompts)}, {len(tables) + 1}, …)"
        )
    noise = noise.to(policy.device)
    conditional, unconditional = policy.encode(prompts), policy.unconditional()
    # One tensor: x_{t−1} of a step is x_t of the next, so nothing is kept twice.
    latents = torch.empty_like(noise)
    latents[:, 0] = noise[:, 0]
    log_probs = torch.empty(noise.shape[:2], device=policy.device)[:, 1:]
    from_base = []
    for step in range(len(tables)):
        steps = torch.full((len(prompts),), step, device=policy.device)
        predicted = policy.predict_noise(
            latents[:, step], tables.timesteps[steps], conditional, unconditional, guidance_scale
        )
        latents[:, step + 1], log_probs[:, step] = step_with_log_prob(
            tables, steps, latents[:, step], predicted, noise[:, step + 1]
        )
        if base is not None:
            before = base.predict_noise(
                latents[:, step],
                tables.timesteps[steps],
                conditional,
                unconditional,
                guidance_scale,
            )
            from_base.append(
                _step_divergence(tables, steps, latents[:, step : step + 2], predicted, before)
            )
    images, drawn = finite_images(policy.codec.decode(latents[:, -1]))
    finite = latents.isfinite().flatten(1).all(1) & log_probs.isfinite().all(1)
    valid = drawn & finite.cpu().numpy()
    images[~valid] = 0
    divergence = Divergence(*torch.stack(from_base).permute(1, 2, 0)) if from_base else None
    return Rollout(list(prompts), latents, log_probs, images, valid, divergence)


def _step_divergence(
    tables: DDIMTables, steps: Tensor, latents: Tensor, predicted: Tensor, base_predicted: Tensor
) -> Tensor:
    """Exact and drawn divergence of B steps from x_t to x_{t−1}, both in `latents`: (2, B)."""
    start, drawn = latents.unbind(1)
    mean = step_mean(tables, steps, start, predicted)
    base_mean = step_mean(tables, steps, start, base_predicted)
    return torch.stack(
        [
            step_kl(tables, steps, mean, base_mean),
            drawn_kl(tables, steps, mean, base_mean, drawn),
        ]
    )


def finite_images(
    decoded: Tensor,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Decoded pictures as uint8, with the broken ones marked.

    Args:
        decoded: (B, 3, H, W), black 0 and white 1, possibly with NaN or infinities.

    Returns:
        (B, H, W, 3) uint8 and (B,) whether the picture was finite; one that was not is black.
    """
    pictures = decoded.permute(0, 2, 3, 1).float().cpu().numpy()
    finite = np.isfinite(pictures).all(axis=(1, 2, 3))
    kept = np.where(finite[:, None, None, None], pictures, np.float32(0))
    return to_uint8(kept), finite

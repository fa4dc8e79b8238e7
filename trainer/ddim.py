"""One DDIM step and its log-probability, in fp32.

Notation of Song et al. 2021 (DDIM, eq. 12 and 16), with ᾱ the cumulative product of 1 − β:

    x̂0 = (x_t − √(1−ᾱ_t) ε) / √ᾱ_t
    σ²  = η² (1−ᾱ_prev)/(1−ᾱ_t) (1 − ᾱ_t/ᾱ_prev)
    μ   = √ᾱ_prev x̂0 + √(1−ᾱ_prev−σ²) ε
    x_{t−1} = μ + σ z,   z ~ N(0, I)

The log-probability is the *mean* over latent dimensions, not the sum, as in the published DDPO
code: the sum of some 16,000 terms turns any rounding into a ratio far from 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class DDIMTables:
    """Per-step constants of one sampling schedule; every tensor has shape (T,).

    Step 0 is the noisiest. They live on the model's device, so that picking the constants of a
    batch of mixed steps needs no synchronisation.
    """

    timesteps: Tensor
    """Training timestep t of each step, int64, falling."""
    sqrt_alpha: Tensor
    """√ᾱ_t, fp32."""
    sqrt_one_minus_alpha: Tensor
    """√(1−ᾱ_t), fp32."""
    sqrt_alpha_prev: Tensor
    """√ᾱ_prev, fp32."""
    direction: Tensor
    """√(1−ᾱ_prev−σ²), the weight of ε in μ, fp32."""
    sigma: Tensor
    """σ, fp32, positive."""
    log_sigma: Tensor
    """ln σ, fp32."""

    @classmethod
    def build(
        cls,
        alphas_cumprod: Tensor,
        final_alpha_cumprod: float,
        timesteps: Tensor,
        eta: float,
        device: torch.device | None = None,
    ) -> "DDIMTables":
        """Compute the tables in fp64 and keep them in fp32.

        Args:
            alphas_cumprod: ᾱ of every training timestep, (N,).
            final_alpha_cumprod: ᾱ_prev of the last step, where t_prev falls below 0.
            timesteps: (T,) int64, falling; t_prev = t − N // T.
            eta: noise level η in (0, 1].
            device: where the tables are kept.

        Raises:
            ValueError: a step has σ = 0, whose density does not exist.
        """
        alphas = alphas_cumprod.to("cpu", torch.float64)
        steps = timesteps.to("cpu", torch.int64)
        previous = steps - len(alphas) // len(steps)
        alpha = alphas[steps]
        alpha_prev = alphas[previous.clamp(min=0)]
        alpha_prev = torch.where(previous >= 0, alpha_prev, final_alpha_cumprod)
        variance = eta**2 * (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)
        degenerate = steps[~(variance > 0)].tolist()
        if degenerate:
            raise ValueError(
                f"with eta {eta} the DDIM step at timestep {degenerate[0]} has no noise (sigma 0), "
                "so its log-probability does not exist"
            )
        sigma = variance.sqrt()
        rows = (
            alpha.sqrt(),
            (1 - alpha).sqrt(),
            alpha_prev.sqrt(),
            (1 - alpha_prev - variance).clamp(min=0).sqrt(),
            sigma,
            sigma.log(),
        )
        return cls(steps.to(device), *(row.to(device, torch.float32) for row in rows))

    def __len__(self) -> int:
        return len(self.timesteps)


def step_mean(
    tables: DDIMTables, steps: Tensor, latents: Tensor, noise_prediction: Tensor
) -> Tensor:
    """μ of x_{t−1}, fp32.

    Args:
        tables: the schedule.
        steps: (P,) int64 step indices (not timesteps) into the tables.
        latents: x_t, (P, C, h, w).
        noise_prediction: ε, (P, C, h, w).
    """
    x, eps = latents.float(), noise_prediction.float()
    x0 = (x - _rows(tables.sqrt_one_minus_alpha, steps) * eps) / _rows(tables.sqrt_alpha, steps)
    return _rows(tables.sqrt_alpha_prev, steps) * x0 + _rows(tables.direction, steps) * eps


def step_log_prob(tables: DDIMTables, steps: Tensor, mean: Tensor, next_latents: Tensor) -> Tensor:
    """log N(x_{t−1}; μ, σ²) averaged over C, h, w: (P,) fp32.

    The gradient flows through `mean` only: `next_latents` is what was drawn.
    """
    sigma = _rows(tables.sigma, steps)
    squared = ((next_latents.detach().float() - mean) / sigma).square()
    return -0.5 * squared.mean(dim=(1, 2, 3)) - tables.log_sigma[steps] - _HALF_LOG_TAU


def step_with_log_prob(
    tables: DDIMTables, steps: Tensor, latents: Tensor, noise_prediction: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw x_{t−1} = μ + σ z.

    Args:
        tables: the schedule.
        steps: (P,) int64 step indices.
        latents: x_t, (P, C, h, w).
        noise_prediction: ε, (P, C, h, w).
        noise: z, (P, C, h, w), standard normal.

    Returns:
        x_{t−1} (P, C, h, w) and its log-probability (P,), both fp32.
    """
    mean = step_mean(tables, steps, latents, noise_prediction)
    drawn = mean + _rows(tables.sigma, steps) * noise.float()
    return drawn, step_log_prob(tables, steps, mean, drawn)


def _rows(table: Tensor, steps: Tensor) -> Tensor:
    """(P, 1, 1, 1) constants of the steps."""
    return table[steps].view(-1, 1, 1, 1)

"""How far a policy is from the base model, and how that distance enters the loss or the advantages.

Under both policies a DDIM step draws from a Gaussian with the same σ, so the Kullback-Leibler
divergence of the step is known in closed form (Fan et al. 2023, DPOK; Liu et al. 2025, Flow-GRPO):

    KL(N(μ, σ²I) ‖ N(μ_base, σ²I)) = ‖μ − μ_base‖² / (2σ²)

Here it is, like the log-probability of `trainer.ddim`, the *mean* over latent dimensions instead of
the sum, so that the two may be added up. Their common divisor, the number of dimensions D of a
latent, leaves the objective what it is: advantage − β · nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.ddim import DDIMTables
from trainer.loss import PairLoss


@dataclass(frozen=True)
class Divergence:
    """How far the trajectories of B pictures lead from the base model; (B, T) fp32 both.

    Means over latent dimensions: times D they are nats.
    """

    exact: Tensor
    """KL of each step at the state that was reached."""
    drawn: Tensor
    """log p − log p_base of each step that was drawn; its expectation is `exact`."""

    @classmethod
    def cat(cls, parts: Sequence["Divergence | None"]) -> "Divergence | None":
        """That of all pictures in order; None unless all parts have one."""
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        return cls(
            torch.cat([part.exact for part in known]), torch.cat([part.drawn for part in known])
        )


def step_kl(tables: DDIMTables, steps: Tensor, mean: Tensor, base_mean: Tensor) -> Tensor:
    """KL(N(μ, σ²I) ‖ N(μ_base, σ²I)) averaged over C, h, w: (P,) fp32, at least 0.

    Args:
        tables: the schedule.
        steps: (P,) int64 step indices (not timesteps).
        mean: μ under the policy, (P, C, h, w); the gradient flows through it.
        base_mean: μ under the base model from the same x_t, (P, C, h, w); taken as constant.
    """
    sigma = tables.sigma[steps].view(-1, 1, 1, 1)
    return 0.5 * ((mean - base_mean.detach()) / sigma).square().mean(dim=(1, 2, 3))


def drawn_kl(
    tables: DDIMTables, steps: Tensor, mean: Tensor, base_mean: Tensor, drawn: Tensor
) -> Tensor:
    """log p(x_{t−1}) − log p_base(x_{t−1}) averaged over C, h, w: (P,) fp32, of either sign.

    Computed as KL + mean(z δ) with z = (x_{t−1} − μ)/σ and δ = (μ − μ_base)/σ, which is the same
    without the difference of two nearly equal numbers.

    Args:
        tables, steps, mean, base_mean: as for `step_kl`.
        drawn: x_{t−1} as the policy drew it, (P, C, h, w).
    """
    sigma = tables.sigma[steps].view(-1, 1, 1, 1)
    noise, shift = (drawn - mean) / sigma, (mean - base_mean) / sigma
    return (0.5 * shift.square() + noise * shift).mean(dim=(1, 2, 3))


def with_kl(outcome: PairLoss, kl: Tensor, coefficient: float) -> PairLoss:
    """The loss of each pair plus β KL.

    Args:
        outcome: of P pairs.
        kl: their `step_kl`, (P,), differentiable.
        coefficient: β.
    """
    return replace(outcome, loss=outcome.loss + coefficient * kl, kl_to_base=kl.detach())


def penalized(
    advantages: npt.NDArray[np.float64],
    keep: npt.NDArray[np.bool_],
    drawn: Tensor,
    coefficient: float,
    dimensions: int,
) -> npt.NDArray[np.float64]:
    """A − β (K − mean of K), where K in nats is how much likelier a picture's trajectory became.

    K is the log-ratio of the steps that were drawn, as in Ziegler et al. 2019, and not their exact
    KL. Both have the same expectation, but the exact KL of a step depends only on the state that
    the step begins in: as a reward it says nothing about the step itself, and the policy gradient
    would not lead back to the base model. The mean is a baseline, as that of rewards.

    Args:
        advantages: A, (N,); those of pictures that do not count are passed through.
        keep: (N,) which pictures count; at least one.
        drawn: `Divergence.drawn`, (N, T).
        coefficient: β, in advantages per nat, as in the loss.
        dimensions: D = C·h·w of a latent, which turns the means over it back into nats.
    """
    nats = dimensions * drawn.double().sum(1).cpu().numpy()
    result = advantages.copy()
    result[keep] -= coefficient * (nats[keep] - nats[keep].mean())
    return result

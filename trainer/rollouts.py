"""Pictures drawn batch by batch, each batch on its way to be scored while the next is drawn."""

from collections.abc import Iterator, Sequence

import numpy as np

from trainer.base_policy import BasePolicy
from trainer.ddim import DDIMTables
from trainer.picture_health import Floats, latent_rms
from trainer.policy import Policy
from trainer.processes import ALONE, Processes
from trainer.prompt_sets import PromptSet
from trainer.rewards import Pending, RewardServices
from trainer.sampling import Rollout, noise_seed, sample, trajectory_noise
from trainer.sections import SamplingSection


def draw(
    policy: Policy,
    tables: DDIMTables,
    prompts: Sequence[str],
    noise: tuple[int, str, int],
    sampling: SamplingSection,
    base: BasePolicy | None = None,
    processes: Processes = ALONE,
) -> Iterator[Rollout]:
    """Draw one picture per prompt, in batches.

    Args:
        policy: the current policy.
        tables: its schedule.
        prompts: N prompts.
        noise: (seed, purpose, epoch) of `noise_seed`.
        sampling: batch size and guidance.
        base: measure the divergence from it too.
        processes: who draws them; each draws its share of the batches.

    Yields:
        The batches of this process, in order.
    """
    policy.remember(prompts)
    starts = range(0, len(prompts), sampling.batch_size)
    for first in (starts[place] for place in processes.share(len(starts))):
        part = prompts[first : first + sampling.batch_size]
        seeds = [noise_seed(*noise, first + offset) for offset in range(len(part))]
        trajectory = trajectory_noise(seeds, len(tables), policy.latent_shape)
        drawn = sample(policy, tables, part, trajectory, sampling.guidance_scale, base)
        yield drawn.on_host() if sampling.trajectories == "host" else drawn


def final_latent_rms(rollout: Rollout) -> Floats:
    """Root mean square of each picture's final latent, (B,); NaN where the picture is broken."""
    return np.where(rollout.valid, latent_rms(rollout.latents[:, -1]), np.nan)


def submit(
    services: RewardServices, pending: Pending, rollout: Rollout, prompts: PromptSet
) -> None:
    """Send a batch to be scored, without waiting; broken pictures are not sent.

    Args:
        services: where the rewards come from.
        pending: collects what is on its way.
        rollout: the batch.
        prompts: the set that its prompts are of, which knows their metadata.
    """
    metadata = prompts.metadata_of(rollout.prompts)
    services.submit(pending, rollout.images, rollout.prompts, rollout.valid.tolist(), metadata)

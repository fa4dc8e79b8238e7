"""What every process needs of the pictures that each has drawn a share of: rollouts and scores.

With all of them at hand, each process computes the same advantages and the same statistics per
prompt, and runs its share of any optimiser step. For each picture (T + 1) · C · h · w latents of
four bytes travel to each process, and are kept there: 3.3 MB for 50 steps of Stable Diffusion.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from trainer.kl import Divergence
from trainer.processes import Processes
from trainer.sampling import Rollout
from trainer.scores import Scores


def own_rollout(batches: Sequence[Rollout], device: torch.device, *, with_base: bool) -> Rollout:
    """One rollout of the batches that this process has drawn; there may be none.

    Args:
        batches: in order.
        device: of the policy.
        with_base: whether the divergence from the base model is measured.
    """
    if batches:
        return Rollout.cat(batches)
    nothing = torch.empty(0, device=device)
    return Rollout(
        prompts=[],
        latents=nothing,
        log_probs=nothing,
        images=np.empty(0, np.uint8),
        valid=np.empty(0, np.bool_),
        divergence=Divergence(nothing, nothing) if with_base else None,
    )


def all_rollouts(processes: Processes, own: Rollout) -> Rollout:
    """The rollout of all pictures of the epoch, in their order.

    Args:
        processes: who has drawn them, each the pictures of `Processes.share`.
        own: what this process has drawn.
    """
    if processes.count == 1:
        return own
    divergence = own.divergence and Divergence(
        processes.gather(own.divergence.exact), processes.gather(own.divergence.drawn)
    )
    return Rollout(
        prompts=[prompt for each in processes.gather_json(own.prompts) for prompt in each],
        latents=processes.gather(own.latents),
        log_probs=processes.gather(own.log_probs),
        images=processes.gather_array(own.images),
        valid=processes.gather_array(own.valid),
        divergence=divergence,
    )


def all_scores(processes: Processes, own: Scores) -> Scores:
    """The scores of all pictures, in their order.

    The time spent waiting is the longest of any process; that of the services is their sum.
    """
    if processes.count == 1:
        return own
    words = processes.gather_json([own.faults, own.example, own.wait_s, own.scoring_s])
    faults: Counter[str] = Counter()
    for each, *_ in words:
        faults.update(each)
    return replace(
        own,
        by_reward={name: processes.gather_array(row) for name, row in own.by_reward.items()},
        valid=processes.gather_array(own.valid),
        faults=faults,
        example=next((example for _, example, *_ in words if example), ""),
        wait_s=max(wait_s for *_, wait_s, _ in words),
        scoring_s=sum(scoring_s for *_, scoring_s in words),
    )

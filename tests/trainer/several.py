"""What one of several processes does in `test_processes.py`; started by torchrun.

Each writes what it found into the folder it is given: `RANK.json`, and the gradients of an update
as `RANK.safetensors`.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.base_policy import BasePolicy
from trainer.kl import Divergence
from trainer.launch import launched
from trainer.optimizer import make_optimizer
from trainer.picture_codec import Posterior
from trainer.policy import Policy
from trainer.processes import Processes
from trainer.regression import Denoiser, WeightedPictures, regress_epoch
from trainer.sampling import Rollout, noise_seed, sample, trajectory_noise
from trainer.scores import Scores
from trainer.sections import ModelSection, RWRSection, TrainingSection
from trainer.sharing import all_rollouts, all_scores, own_rollout
from trainer.step_statistics import UpdateStats
from trainer.stops import ConfigError, Interrupted, RunStopped
from trainer.unet_policy import UNetPolicy
from trainer.update import BasePenalty, PairScorer, update_epoch

MICRO = Path(__file__).parent.parent / "golden" / "micro_sd"
PICTURES = 8


def found(processes: Processes) -> dict[str, Any]:
    """What the exchanges give to this process."""
    rank = processes.rank
    rows = torch.arange(6.0).view(3, 2)[: 3 * rank] + 10 * rank  # the first process has none
    flags = np.array([True, False])[rank:]
    first, second, third = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    first.grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    second.grad = torch.ones(2) if rank else None
    processes.sum_gradients([first, second, third])
    return {
        "shares": [list(processes.share(parts)) for parts in (5, 1)],
        "gathered": processes.gather(rows if rank else torch.empty(0)).tolist(),
        "nothing": processes.gather(torch.empty(0)).tolist(),
        "flags": processes.gather_array(flags).tolist(),
        "said": processes.gather_json({"rank": rank, "text": "a\nb"}),
        "from_main": processes.from_main(lambda: {"rank": rank}),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in (first, second, third)],
    }


def shared(processes: Processes) -> dict[str, Any]:
    """Pictures and scores of which the first process has none."""
    here = torch.device("cpu")
    rank, steps = processes.rank, 2
    drawn = Rollout(
        prompts=["a cat", "é\nb"],
        latents=torch.full((2, steps + 1, 4, 8, 8), 1.5),
        log_probs=torch.full((2, steps), 0.5),
        images=np.full((2, 16, 16, 3), 200, np.uint8),
        valid=np.array([True, False]),
        divergence=Divergence(torch.ones(2, steps), torch.zeros(2, steps)),
    )
    rollout = all_rollouts(processes, own_rollout([drawn][:rank], here, with_base=True))
    own = Scores(
        by_reward={"r": np.array([1 / 3, np.nan])[: 2 * rank]},
        valid=np.array([True, False])[: 2 * rank],
        faults=Counter({"ugly": rank}),
        example="ugly: it is" if rank else "",
        wait_s=1.0 - rank,
        scoring_s=1.5,
    )
    scores = all_scores(processes, own)
    assert rollout.divergence is not None
    return {
        "prompts": rollout.prompts,
        "latents": list(rollout.latents.shape),
        "log_probs": rollout.log_probs.tolist(),
        "divergence": rollout.divergence.exact.tolist(),
        "brightness": rollout.images.mean(axis=(1, 2, 3)).tolist(),
        "valid": [rollout.valid.tolist(), scores.valid.tolist()],
        "scores": scores.by_reward["r"].tolist(),
        "faults": dict(+scores.faults),
        "example": scores.example,
        "seconds": [scores.wait_s, scores.scoring_s],
    }


def told(act: Callable[[], None]) -> list[str]:
    """The kind and the words of the error."""
    try:
        act()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


class Stops:
    """How this process stops when the other one does. The alarm stays on after the first."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def all(self) -> dict[str, list[str]]:
        mine = {"rank": self._processes.rank}
        return {
            "alarm": told(self._called_away),
            "waiting": told(self._interrupted_while_waiting),
            "mistake": told(lambda: self._second_meets(ValueError("not a number"))),
            "disk": told(lambda: self._second_meets(OSError("no space left"))),
            "main": told(lambda: self._processes.from_main(self._damaged)),
            "unlike": told(lambda: self._processes.require_same("it", {"same": 1, **mine})),
        }

    def _called_away(self) -> None:
        with self._processes.together():
            if not self._processes.is_main:
                raise ConfigError("set it otherwise")
            self._work_for_ever()

    def _interrupted_while_waiting(self) -> None:
        with self._processes.together(self._pressed):
            if not self._processes.is_main:
                self._work_for_ever()

    def _pressed(self) -> None:
        if self._processes.is_main:
            raise Interrupted("stopped by SIGTERM", 15)

    def _work_for_ever(self) -> None:
        while True:
            self._processes.check()

    def _second_meets(self, error: Exception) -> None:
        with self._processes.together():
            if not self._processes.is_main:
                raise error

    def _damaged(self) -> None:
        raise RunStopped("the file is damaged")


class Updates:
    """The same two updates, shared by whatever processes there are, and their gradients."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.gradients: dict[str, Tensor] = {}

    def policy(self) -> Policy:
        policy = UNetPolicy.load(ModelSection(path=str(MICRO), train="lora"), seed=3)
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in policy.trainable_parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return policy

    def optimizer(
        self, policy: Policy, training: TrainingSection, name: str
    ) -> torch.optim.Optimizer:
        optimizer = make_optimizer(policy, training)
        calls = iter(range(100))

        def record(of: torch.optim.Optimizer, *_: Any) -> None:
            grads = [parameter.grad.flatten() for parameter in of.param_groups[0]["params"]]
            self.gradients[f"{name}.{next(calls)}"] = torch.cat(grads)

        optimizer.register_step_pre_hook(record)
        return optimizer

    def ddpo(self) -> UpdateStats:
        """Three steps of which the last has one micro-batch; a masked and a zero advantage."""
        policy = self.policy()
        base = BasePolicy(policy)
        tables = policy.tables(4, eta=1.0)
        prompts = [("cat", "dog")[i % 2] for i in range(PICTURES)]
        seeds = [noise_seed(7, "test", 0, i) for i in range(PICTURES)]
        noise = trajectory_noise(seeds, 4, policy.latent_shape)
        scorer = PairScorer.build(policy, tables, sample(policy, tables, prompts, noise, 5.0), 5.0)
        training = TrainingSection(
            batch_size=4, micro_batch_size=5, learning_rate=1e-3, clip_range=0.1
        )
        advantages = np.linspace(-1, 1, PICTURES)
        valid = np.ones(PICTURES, np.bool_)
        valid[2] = False
        return update_epoch(
            scorer,
            self.optimizer(policy, training, "ddpo"),
            advantages,
            valid,
            training,
            torch.Generator().manual_seed(0),
            penalty=BasePenalty(base, 0.1),
            processes=self._processes,
        )

    def rwr(self) -> UpdateStats:
        """Two steps of three micro-batches."""
        policy = self.policy()
        generator = torch.Generator().manual_seed(5)
        mean = torch.randn((PICTURES, *policy.latent_shape), generator=generator)
        weights = np.linspace(0.5, 1.5, PICTURES)
        pictures = WeightedPictures(
            Posterior(mean, torch.zeros_like(mean)), ["cat"] * PICTURES, weights
        )
        training = TrainingSection(algorithm="rwr", batch_size=6, micro_batch_size=2)
        return regress_epoch(
            Denoiser.build(policy, pictures, 5.0),
            self.optimizer(policy, training, "rwr"),
            training,
            RWRSection(updates=2),
            torch.Generator().manual_seed(6),
            processes=self._processes,
        )


def main(folder: Path) -> None:
    with launched("fp32", 1.0) as processes:
        updates = Updates(processes)
        metrics = {"ddpo": updates.ddpo().metrics(), "rwr": updates.rwr().metrics()}
        results = {
            "found": found(processes),
            "shared": shared(processes),
            "metrics": metrics,
            "stops": Stops(processes).all(),
        }
    save_file(updates.gradients, folder / f"{processes.rank}.safetensors")
    (folder / f"{processes.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

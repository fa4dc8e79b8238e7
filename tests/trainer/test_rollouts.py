"""Pictures do not depend on how they are cut into batches."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from trainer.policy import Policy
from trainer.prompt_sets import PromptSet
from trainer.reward_service import RewardSource
from trainer.rewards import Pending, RewardServices
from trainer.rollouts import draw, submit
from trainer.sampling import Rollout
from trainer.sections import SamplingSection

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

PROMPTS = ["a cat", "an ant", "a dog", "a cat", "a bee"]


def drawn(
    policy: Policy, batch_size: int, epoch: int = 0, **settings: object
) -> tuple[list[int], Rollout]:
    tables = policy.tables(3, eta=1.0)
    sampling = SamplingSection.model_validate(
        {"steps": 3, "batch_size": batch_size, "samples_per_epoch": 5} | settings
    )
    batches = list(draw(policy, tables, PROMPTS, (1, "train", epoch), sampling))
    return [len(batch) for batch in batches], Rollout.cat(batches)


def test_batches_are_cut_in_order(lora_policy: Policy) -> None:
    sizes, rollout = drawn(lora_policy, batch_size=2)
    assert sizes == [2, 2, 1]
    assert rollout.prompts == PROMPTS


def test_the_batch_size_does_not_change_the_noise(lora_policy: Policy) -> None:
    (_, pairs), (_, whole) = drawn(lora_policy, batch_size=2), drawn(lora_policy, batch_size=5)
    assert torch.equal(pairs.latents[:, 0], whole.latents[:, 0])
    torch.testing.assert_close(pairs.latents, whole.latents, rtol=1e-4, atol=1e-4)
    distance = np.abs(pairs.images.astype(int) - whole.images.astype(int))
    assert distance.max() <= 1


def test_latents_on_the_host_are_the_same(
    lora_policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU nothing shows where a tensor lies, so the moves themselves are counted."""
    moved: list[int] = []
    move = Rollout.on_host

    def on_host(rollout: Rollout) -> Rollout:
        moved.append(len(rollout))
        return move(rollout)

    monkeypatch.setattr(Rollout, "on_host", on_host)
    _, device = drawn(lora_policy, 2)
    assert moved == []
    _, host = drawn(lora_policy, 2, trajectories="host")
    assert moved == [2, 2, 1]
    samples, steps = torch.tensor([4, 0, 2]), torch.tensor([0, 3, 1])
    assert torch.equal(host.states(samples, steps), device.latents[samples, steps])
    assert torch.equal(host.log_probs, device.log_probs)


def test_every_epoch_and_every_place_has_its_own_noise(lora_policy: Policy) -> None:
    (_, first), (_, second) = drawn(lora_policy, 5, epoch=0), drawn(lora_policy, 5, epoch=1)
    assert not torch.equal(first.latents[:, 0], second.latents[:, 0])
    # The same prompt twice in one epoch gives two pictures.
    assert not torch.equal(first.latents[0, 0], first.latents[3, 0])


def test_a_batch_is_sent_with_the_metadata_of_its_prompts(
    lora_policy: Policy, service: "ServiceProcess"
) -> None:
    _, rollout = drawn(lora_policy, batch_size=5)
    plain = PromptSet(tuple(PROMPTS))
    some = PromptSet(tuple(PROMPTS), {"a cat": {"n": 1}, "a bee": {"n": 2}})
    pending = Pending()
    with RewardServices(
        [RewardSource("jpeg", (service.url,))], deadline_s=30, max_outage_s=30, notify=print
    ) as services:
        services.connect()
        submit(services, pending, rollout, plain)
        submit(services, pending, rollout, some)
    sent = [request.metadata for _, request in pending.requests]
    assert sent == [None, [{"n": 1}, {}, {}, {"n": 1}, {"n": 2}]]

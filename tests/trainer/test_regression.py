"""The update of RWR on a real UNet: its loss, its gradient, what it draws."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.optimizer import make_optimizer
from trainer.picture_codec import Posterior
from trainer.policy import Policy
from trainer.regression import (
    Denoiser,
    Draw,
    WeightedPictures,
    batches,
    regress_epoch,
    weighted_pictures,
)
from trainer.sections import RWRSection, TrainingSection
from trainer.unet_policy import UNetPolicy
from trainer.update import PairScorer

ScorerOf = Callable[[Policy, int], PairScorer]
GUIDANCE = 5.0


def pictures(count: int, weights: list[float] | None = None) -> WeightedPictures:
    mean = torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    posterior = Posterior(mean, torch.full_like(mean, 0.1))
    prompts = [("cat", "dog")[i % 2] for i in range(count)]
    return WeightedPictures(posterior, prompts, np.array(weights or [1.0] * count))


def drawn(count: int, dropped: bool = False) -> Draw:
    generator = torch.Generator().manual_seed(2)
    shape = (count, 4, 8, 8)
    return Draw(
        rows=torch.arange(count),
        weights=torch.arange(count) + 1.0,
        timesteps=torch.tensor([(981 - 137 * i) % 1000 for i in range(count)]),
        noise=torch.randn(shape, generator=generator),
        encoding=torch.randn(shape, generator=generator),
        dropped=torch.full((count,), dropped),
    )


@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_the_loss_by_hand(lora_policy: UNetPolicy, guidance: float) -> None:
    data, draw = pictures(3), drawn(3)
    found = Denoiser.build(lora_policy, data, guidance).loss(draw)
    unet, pipeline = lora_policy._unet, lora_policy._pipeline
    alphas = pipeline.scheduler.alphas_cumprod
    for row in range(3):
        clean = data.latents.mean[row] + 0.1 * draw.encoding[row]
        alpha = alphas[draw.timesteps[row]]
        noised = (alpha.sqrt() * clean + (1 - alpha).sqrt() * draw.noise[row])[None]
        words, empty = lora_policy.encode([data.prompts[row]]), lora_policy.encode([""])
        guided = unet(noised, draw.timesteps[row], words.embeddings).sample
        if guidance > 1:
            plain = unet(noised, draw.timesteps[row], empty.embeddings).sample
            guided = plain + guidance * (guided - plain)
        expected = (row + 1) * functional.mse_loss(guided[0], draw.noise[row])
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_dropped_prompt_is_the_empty_one(lora_policy: UNetPolicy) -> None:
    data, draw = pictures(2), drawn(2, dropped=True)
    unprompted = WeightedPictures(data.latents, ["", ""], data.weights)
    found = Denoiser.build(lora_policy, data, 1.0).loss(draw)
    expected = Denoiser.build(lora_policy, unprompted, 1.0).loss(drawn(2))
    torch.testing.assert_close(found, expected)


def update(policy: Policy, data: WeightedPictures, micro: int, **settings: object) -> torch.Tensor:
    """Trained weights after an epoch, in one piece."""
    training = TrainingSection(
        algorithm="rwr", batch_size=4, micro_batch_size=micro, learning_rate=1e-2
    )
    rwr = RWRSection.model_validate({"updates": 3, **settings})
    optimizer = make_optimizer(policy, training)
    denoiser = Denoiser.build(policy, data, GUIDANCE if rwr.guided_loss else 1.0)
    stats = regress_epoch(denoiser, optimizer, training, rwr, torch.Generator().manual_seed(3))
    assert len(stats.steps) == 3
    assert stats.skipped == 0
    assert stats.metrics()["loss"] > 0
    assert np.isnan(stats.metrics()["approx_kl"])
    return torch.cat([parameter.detach().flatten() for parameter in policy.trainable_parameters()])


def test_micro_batches_change_nothing_but_rounding(micro_policy: Callable[[], UNetPolicy]) -> None:
    data = pictures(6, [0.1, 2.0, 0.5, 1.0, 1.5, 0.9])
    whole, parts = (update(micro_policy(), data, micro) for micro in (4, 3))
    # Adam turns rounding into a share of its step where a gradient is nearly zero.
    torch.testing.assert_close(whole, parts, rtol=0, atol=5e-3)
    assert (whole - parts).abs().mean() < 1e-5


def test_the_weights_decide(micro_policy: Callable[[], UNetPolicy]) -> None:
    one, other = (
        update(micro_policy(), pictures(4, weights), 4)
        for weights in ([4.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0])
    )
    assert (one - other).abs().max() > 1e-3


def test_a_fresh_optimizer_forgets(micro_policy: Callable[[], UNetPolicy]) -> None:
    policy, training = micro_policy(), TrainingSection(algorithm="rwr", batch_size=2)
    optimizer = make_optimizer(policy, training)
    denoiser = Denoiser.build(policy, pictures(2), GUIDANCE)
    steps = []
    for fresh in (True, False, True):
        rwr = RWRSection(updates=2, fresh_optimizer=fresh)
        regress_epoch(denoiser, optimizer, training, rwr, torch.Generator().manual_seed(0))
        steps.append({int(state["step"]) for state in optimizer.state.values()})
    assert steps == [{2}, {4}, {2}]


def test_batches_go_through_all_pictures_again_and_again() -> None:
    rows = torch.cat(list(batches(5, 4, 5, torch.Generator().manual_seed(0)))).tolist()
    assert len(rows) == 20
    for start in range(0, 20, 5):
        assert sorted(rows[start : start + 5]) == [0, 1, 2, 3, 4]
    assert [len(batch) for batch in batches(2, 7, 2, torch.Generator())] == [7, 7]


@pytest.mark.parametrize("data", ["pictures", "latents"])
def test_pictures_without_a_weight_are_left_out(
    lora_policy: UNetPolicy, scorer_of: ScorerOf, data: str
) -> None:
    rollout = scorer_of(lora_policy, 4).rollout
    weights = np.array([0.5, np.nan, 0.0, 2.0])
    found = weighted_pictures(
        lora_policy,
        rollout.latents[:, -1],
        rollout.images,
        rollout.prompts,
        weights,
        data=data,
        batch_size=2,
    )
    assert found.weights.tolist() == [0.5, 2.0]
    assert found.prompts == [rollout.prompts[0], rollout.prompts[3]]
    assert found.latents.mean.shape == (2, 4, 8, 8)
    if data == "latents":
        assert torch.equal(found.latents.mean, rollout.latents[[0, 3], -1])
        assert not found.latents.deviation.any()


def test_only_timesteps_of_the_window_are_drawn(
    micro_policy: Callable[[], UNetPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = micro_policy()
    training = TrainingSection(algorithm="rwr", batch_size=64, timestep_window=(0.25, 0.5))
    seen: list[torch.Tensor] = []
    noised = policy.noised

    def noting(latents: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        seen.append(steps)
        return noised(latents, noise, steps)

    monkeypatch.setattr(policy, "noised", noting)
    denoiser = Denoiser.build(policy, pictures(2), 1.0)
    rwr = RWRSection(updates=4)
    generator = torch.Generator().manual_seed(0)
    regress_epoch(denoiser, make_optimizer(policy, training), training, rwr, generator)
    steps = torch.cat(seen).tolist()
    assert min(steps) >= 500
    assert max(steps) < 750
    assert len(set(steps)) > 100

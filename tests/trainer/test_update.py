"""The update: the reference's two optimiser steps, and the properties that make it DDPO."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.advantages import PerPromptTracker
from trainer.conditioning import Conditioning
from trainer.loading import load_policy
from trainer.loss import ppo_loss
from trainer.optimizer import make_optimizer
from trainer.policy import Policy
from trainer.sampling import Rollout, sample
from trainer.sections import ModelSection, TrainingSection
from trainer.step_statistics import StepStats, UpdateStats
from trainer.update import (
    PairScorer,
    epoch_pairs,
    recomputed_ratios,
    update_epoch,
)

ScorerOf = Callable[[Policy, int], PairScorer]
Floats = npt.NDArray[np.float64]


class Recorder:
    """The gradients of every optimiser step, as the optimiser sees them."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradients: list[list[torch.Tensor]] = []
        optimizer.register_step_pre_hook(self._record)

    def _record(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[0]["params"]
        self.gradients.append([parameter.grad.clone() for parameter in group])

    def flat(self, step: int = 0) -> torch.Tensor:
        return torch.cat([gradient.flatten() for gradient in self.gradients[step]])


def run_update(
    scorer: PairScorer,
    advantages: Floats,
    valid: npt.NDArray[np.bool_] | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[UpdateStats, Recorder]:
    """One update with a learning rate that leaves the policy as it is, and its gradients."""
    training = TrainingSection(
        **{"learning_rate": 1e-30, "weight_decay": 0, "max_grad_norm": 1e9, **settings}
    )
    optimizer = make_optimizer(scorer.policy, training)
    recorder = Recorder(optimizer)
    kept = np.ones(len(advantages), dtype=bool) if valid is None else valid
    generator = torch.Generator().manual_seed(seed)
    return update_epoch(scorer, optimizer, advantages, kept, training, generator), recorder


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    # Rounding differs with the sizes of the passes; a wrong divisor would be off by far more.
    return bool((a - b).abs().max() <= 1e-4 * b.abs().max())


def reference_name(name: str) -> str:
    """The reference's name of an adapter's matrix."""
    module, _, matrix = name.partition(".lora_")
    kind = "down" if matrix.startswith("A") else "up"
    return f"{module.replace('to_out.0', 'to_out')}.lora_{kind}"


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_golden_run(golden: Path, micro_sd: Path, mode: str) -> None:
    with np.load(golden / f"e2e_{mode}.npz") as file:
        data = {name: file[name] for name in file.files}
    facts = json.loads((golden / f"e2e_{mode}.json").read_text(encoding="utf-8"))
    policy = load_policy(ModelSection.model_validate({"path": str(micro_sd), "train": mode}))
    if mode == "lora":
        names = {name: f"lora_init/{reference_name(name)}" for name in policy.state()}
        policy.load_state({name: torch.from_numpy(data[key]) for name, key in names.items()})

    scorer = check_sampling(policy, facts["prompts"], data)
    tracker = PerPromptTracker(facts["per_prompt"]["buffer_size"], facts["per_prompt"]["min_count"])
    advantages = tracker.update(facts["prompts"], data["rewards"])
    assert advantages.tolist() == pytest.approx(data["advantages"].tolist(), abs=1e-9)

    training = TrainingSection(
        batch_size=8,
        micro_batch_size=16,
        inner_epochs=facts["train.num_inner_epochs"],
        learning_rate=facts["adam"]["lr"],
        betas=tuple(facts["adam"]["betas"]),
        adam_epsilon=facts["adam"]["eps"],
        weight_decay=facts["adam"]["weight_decay"],
        max_grad_norm=facts["max_grad_norm"],
        clip_range=facts["clip_range"],
        advantage_clip=facts["adv_clip_max"],
    )
    optimizer = make_optimizer(policy, training)
    recorder, before = Recorder(optimizer), policy.state()
    generator = torch.Generator().manual_seed(0)
    stats = update_epoch(scorer, optimizer, advantages, np.ones(8, bool), training, generator)
    check_steps(stats, facts)
    check_weights(list(before), recorder, policy, facts, data)


def check_sampling(policy: Policy, prompts: list[str], data: dict[str, Any]) -> PairScorer:
    """Sample the reference's pictures from its noise, in its batches of four."""
    tables = policy.tables(5, eta=1.0)
    assert tables.timesteps.tolist() == data["timesteps"].tolist()
    start = torch.from_numpy(data["init_latents"]).unsqueeze(1)
    noise = torch.cat([start, torch.from_numpy(data["step_noise"]).transpose(0, 1)], dim=1)
    parts = [sample(policy, tables, prompts[i : i + 4], noise[i : i + 4], 5.0) for i in (0, 4)]
    rollout = Rollout.cat(parts)
    embeddings, empty = policy.encode(prompts).embeddings, policy.unconditional().embeddings
    assert np.allclose(embeddings[:, :2, :8], data["prompt_embeds_first8"], atol=1e-5)
    assert np.allclose(empty[0, :2, :8], data["neg_embed_first8"], atol=1e-5)
    assert np.abs(rollout.latents.numpy() - data["latents"]).max() <= 2e-4
    assert np.abs(rollout.log_probs.numpy() - data["log_probs"]).max() <= 2e-5
    pictures = (data["images"].transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    assert np.array_equal(rollout.images, pictures)
    assert rollout.valid.all()
    return PairScorer.build(policy, tables, rollout, 5.0)


def check_steps(stats: UpdateStats, facts: dict[str, Any]) -> None:
    assert len(stats.steps) == len(facts["optimizer_steps"]) == 2
    for step, expected, norm in zip(
        stats.steps, facts["optimizer_steps"], facts["grad_norm_preclip"], strict=True
    ):
        assert step.loss == pytest.approx(expected["loss"], abs=2e-6)
        assert step.approx_kl == pytest.approx(expected["approx_kl"], rel=2e-3, abs=1e-9)
        assert step.clip_fraction == pytest.approx(expected["clipfrac"], abs=1e-6)
        assert step.grad_norm == pytest.approx(norm, rel=2e-3)


def check_weights(
    names: list[str],
    recorder: Recorder,
    policy: Policy,
    facts: dict[str, Any],
    data: dict[str, Any],
) -> None:
    """Gradients of the first step (its norm is below the clipping), and the final weights."""
    assert facts["grad_norm_preclip"][0] < facts["max_grad_norm"]
    final = policy.state()
    is_lora = "lora_final/" in " ".join(data)
    for name, gradient in zip(names, recorder.gradients[0], strict=True):
        digest = facts["params"][reference_name(name) if is_lora else name]
        weights = final[name].double().flatten()
        wave = torch.cos(0.7 * torch.arange(weights.numel(), dtype=torch.float64) + 0.1)
        flat = gradient.double().flatten()
        assert flat.norm().item() == pytest.approx(digest["grad1_l2"], rel=2e-3, abs=1e-7)
        assert (flat @ wave).item() == pytest.approx(digest["grad1_proj"], rel=5e-3, abs=2e-6)
        assert weights.norm().item() == pytest.approx(digest["after2_l2"], rel=1e-3, abs=5e-4)
        assert (weights @ wave).item() == pytest.approx(digest["after2_proj"], rel=1e-2, abs=5e-3)
        if is_lora:
            expected = data[f"lora_final/{reference_name(name)}"]
            assert np.abs(final[name].numpy() - expected).max() <= 5e-4


@pytest.mark.parametrize("micro_batch_size", [1, 3, 16])
def test_before_any_update_every_ratio_is_one(
    lora_policy: Policy, scorer_of: ScorerOf, micro_batch_size: int
) -> None:
    ratios = recomputed_ratios(scorer_of(lora_policy, 4), micro_batch_size)
    assert ratios.shape == (4, 4)
    assert (ratios - 1).abs().max() <= 2e-6


def test_the_first_gradient_is_the_score_function_gradient(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer, advantages = scorer_of(lora_policy, 4), np.array([1.5, -0.5, 7.0, -1.0])
    _, recorder = run_update(scorer, advantages, batch_size=4, micro_batch_size=5)
    samples = torch.arange(4).repeat_interleave(4)
    log_probs = scorer.log_prob(samples, torch.arange(4).repeat(4))
    clamped = torch.from_numpy(advantages.clip(-5, 5)).float()
    expected = torch.autograd.grad(
        -(clamped[samples] * log_probs).mean(), lora_policy.trainable_parameters()
    )
    assert close(recorder.flat(), torch.cat([gradient.flatten() for gradient in expected]))


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4, 100])
def test_micro_batches_do_not_change_the_gradient(
    lora_policy: Policy, scorer_of: ScorerOf, micro_batch_size: int
) -> None:
    scorer, advantages = scorer_of(lora_policy, 4), np.array([1.0, -2.0, 0.5, 3.0])
    stats, recorder = run_update(scorer, advantages, batch_size=4, micro_batch_size=16)
    others, other = run_update(scorer, advantages, batch_size=4, micro_batch_size=micro_batch_size)
    assert close(other.flat(), recorder.flat())
    assert others.steps[0].loss == pytest.approx(stats.steps[0].loss, abs=1e-5)
    assert others.steps[0].pairs == stats.steps[0].pairs == 16


def test_the_gradient_of_a_batch_is_the_mean_of_its_halves(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer, advantages = scorer_of(lora_policy, 4), np.array([1.0, -2.0, 0.5, 3.0])
    _, whole = run_update(scorer, advantages, batch_size=4)
    # The same permutation, in two optimiser steps that leave the policy as it is.
    _, halves = run_update(scorer, advantages, batch_size=2)
    assert len(halves.gradients) == 2
    assert close((halves.flat(0) + halves.flat(1)) / 2, whole.flat())


def test_samples_without_advantage_count_in_the_mean_only(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer = scorer_of(lora_policy, 4)
    _, alone = run_update(
        scorer,
        np.array([1.0, 5.0, -5.0, 5.0]),
        valid=np.array([True, False, False, False]),
        batch_size=4,
    )
    stats, among = run_update(scorer, np.array([1.0, 0.0, 0.0, 0.0]), batch_size=4)
    assert stats.steps[0].pairs == 16
    assert close(4 * among.flat(), alone.flat())
    stats, none = run_update(scorer, np.zeros(4), batch_size=4)
    assert not none.flat().any()
    assert not stats.steps[0].skipped


def test_masked_samples_are_as_if_they_were_not_there(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer = scorer_of(lora_policy, 3)
    # Whatever made it invalid must not reach the gradient.
    scorer.rollout.latents[1] = torch.nan
    advantages = np.array([1.0, np.nan, -2.0])
    valid = np.array([True, False, True])
    stats, masked = run_update(scorer, advantages, valid, batch_size=3)
    assert stats.steps[0].pairs == 8
    _, scaled = run_update(scorer, np.array([1.0, 0.0, -2.0]), batch_size=3)
    assert close(masked.flat(), 1.5 * scaled.flat())


def test_a_batch_without_a_valid_sample_changes_nothing(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer, before = scorer_of(lora_policy, 2), lora_policy.state()
    stats, _ = run_update(
        scorer, np.full(2, np.nan), np.zeros(2, bool), batch_size=2, learning_rate=0.1
    )
    assert (stats.skipped, stats.steps[0].pairs) == (1, 0)
    assert all(torch.equal(before[name], now) for name, now in lora_policy.state().items())


def test_a_gradient_that_is_not_finite_skips_the_step(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer, before = scorer_of(lora_policy, 2), lora_policy.state()
    scorer.rollout.latents[0, 0, 0, 0, 0] = torch.inf
    seen: list[StepStats] = []
    training = TrainingSection(batch_size=1, learning_rate=0.1, inner_epochs=2)
    optimizer = make_optimizer(lora_policy, training)
    generator = torch.Generator().manual_seed(0)
    advantages, valid = np.array([1.0, 1.0]), np.ones(2, bool)
    stats = update_epoch(scorer, optimizer, advantages, valid, training, generator, seen.append)
    assert seen == stats.steps
    assert sorted(step.skipped for step in stats.steps[:2]) == [False, True]
    assert stats.skipped == 2
    after = lora_policy.state()
    assert all(now.isfinite().all() for now in after.values())
    assert any(not torch.equal(before[name], now) for name, now in after.items())


def test_the_old_log_probabilities_stay_those_of_sampling(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer = scorer_of(lora_policy, 2)
    old = scorer.rollout.log_probs.clone()
    stats, _ = run_update(
        scorer, np.array([1.0, -1.0]), batch_size=2, inner_epochs=3, learning_rate=1e-3
    )
    assert torch.equal(scorer.rollout.log_probs, old)
    assert stats.steps[0].approx_kl < 1e-10
    assert stats.steps[2].approx_kl > stats.steps[1].approx_kl > 1e-9


def test_both_guidance_halves_receive_the_gradient(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer = scorer_of(lora_policy, 1)
    conditional = scorer.conditional.embeddings.clone().requires_grad_()
    unconditional = scorer.unconditional.embeddings.clone().requires_grad_()
    for guidance in (5.0, 1.0):
        noise = lora_policy.predict_noise(
            scorer.rollout.latents[:, 0],
            scorer.tables.timesteps[:1],
            Conditioning(conditional),
            Conditioning(unconditional),
            guidance,
        )
        gradients = torch.autograd.grad(
            noise.sum(), [conditional, unconditional], allow_unused=True
        )
        assert gradients[0] is not None
        assert gradients[0].any()
        # Without guidance the empty prompt is not even looked at.
        assert (gradients[1] is None) == (guidance == 1.0)


def test_one_step_moves_the_probability_towards_the_advantage(
    lora_policy: Policy, scorer_of: ScorerOf
) -> None:
    scorer, advantages = scorer_of(lora_policy, 2), np.array([1.0, -1.0])
    run_update(scorer, advantages, batch_size=2, learning_rate=1e-4)
    ratios = recomputed_ratios(scorer, 8)
    signs = torch.from_numpy(advantages).float()[:, None]
    outcome = ppo_loss(ratios.log(), torch.zeros_like(ratios), signs.expand(2, 4), 10.0, 5.0)
    assert outcome.loss.mean() < 0


def test_half_precision_gradients_do_not_vanish(micro_sd: Path, scorer_of: ScorerOf) -> None:
    advantages, flat = np.array([1e-3, -1e-3]), {}
    for dtype in ("fp32", "fp16"):
        model = ModelSection.model_validate({"path": str(micro_sd), "dtype": dtype})
        _, recorder = run_update(scorer_of(load_policy(model), 2), advantages, batch_size=2)
        flat[dtype] = recorder.flat().double()
    cosine = torch.nn.functional.cosine_similarity(flat["fp16"], flat["fp32"], dim=0)
    assert cosine > 0.98
    assert flat["fp16"].norm().item() == pytest.approx(flat["fp32"].norm().item(), rel=0.1)


@given(
    count=st.sampled_from([2, 4, 6]),
    steps=st.integers(1, 9),
    fraction=st.floats(0.2, 1.0),
    seed=st.integers(0, 2**32),
)
def test_pairs_of_a_pass(count: int, steps: int, fraction: float, seed: int) -> None:
    training = TrainingSection(batch_size=2, timestep_fraction=fraction)
    trained = int(steps * fraction)
    batches = list(epoch_pairs((count, steps), training, torch.Generator().manual_seed(seed)))
    assert [len(batch) for batch in batches] == [2 * trained] * (count // 2)
    pairs = [(int(sample), int(step)) for batch in batches for sample, step in batch]
    assert len(set(pairs)) == len(pairs) == count * trained
    assert all(0 <= sample < count and 0 <= step < steps for sample, step in pairs)
    for batch in batches:
        assert len(set(batch[:, 0].tolist())) == (2 if trained else 0)


@given(
    steps=st.integers(4, 30),
    first=st.floats(0, 0.5),
    last=st.floats(0.75, 1),
    seed=st.integers(0, 2**32),
)
def test_only_steps_in_the_window_are_trained_on(
    steps: int, first: float, last: float, seed: int
) -> None:
    training = TrainingSection(batch_size=3, timestep_window=(first, last))
    (batch,) = epoch_pairs((3, steps), training, torch.Generator().manual_seed(seed))
    window = set(range(round(first * steps), round(last * steps)))
    for row in range(3):
        assert set(batch[batch[:, 0] == row, 1].tolist()) == window


def test_every_sample_has_its_own_order_of_steps() -> None:
    training = TrainingSection(batch_size=8)
    (batch,) = epoch_pairs((8, 20), training, torch.Generator().manual_seed(1))
    orders = {tuple(batch[batch[:, 0] == sample, 1].tolist()) for sample in range(8)}
    assert len(orders) == 8


def test_the_permutation_goes_on_from_a_saved_generator() -> None:
    training, generator = TrainingSection(batch_size=2), torch.Generator().manual_seed(5)
    list(epoch_pairs((4, 3), training, generator))
    saved = generator.get_state()
    expected = torch.cat(list(epoch_pairs((4, 3), training, generator)))
    resumed = torch.Generator()
    resumed.set_state(saved)
    assert torch.equal(torch.cat(list(epoch_pairs((4, 3), training, resumed))), expected)


def test_arguments_that_do_not_fit_are_refused(lora_policy: Policy, scorer_of: ScorerOf) -> None:
    scorer = scorer_of(lora_policy, 2)
    with pytest.raises(ValueError, match="2 samples, 3 advantages"):
        run_update(scorer, np.ones(3), batch_size=2)
    with pytest.raises(ValueError, match="2 samples are not a multiple of batch size 4"):
        run_update(scorer, np.ones(2), batch_size=4)
    with pytest.raises(ValueError, match="not finite"):
        run_update(scorer, np.array([1.0, np.nan]), batch_size=2)


def test_the_optimiser_is_the_configured_adamw(full_policy: Policy) -> None:
    training = TrainingSection(
        learning_rate=0.2, betas=(0.8, 0.9), adam_epsilon=1e-3, weight_decay=0.1
    )
    (group,) = make_optimizer(full_policy, training).param_groups
    assert (group["lr"], group["betas"]) == (0.2, (0.8, 0.9))
    assert (group["eps"], group["weight_decay"]) == (1e-3, 0.1)
    assert len(group["params"]) == len(full_policy.state())

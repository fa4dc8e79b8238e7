"""Every family draws what diffusers draws, learns, and is given back to diffusers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from tests.trainer.tiny_pipelines import pretrain
from trainer import checkpoints
from trainer.comparison import Comparison, compare
from trainer.config import Config, load_config
from trainer.loading import load_policy
from trainer.loop import train
from trainer.picture_codec import Posterior
from trainer.policy import Policy
from trainer.preflight import check_ratio
from trainer.regression import Denoiser, Draw, WeightedPictures
from trainer.sampling import noise_seed, sample, trajectory_noise
from trainer.scores import Images
from trainer.sections import ModelSection

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

Tiny = Callable[[str], Path]
ALL = ["noise", "velocity", "xl", "xl_empty"]
PROMPTS = ["a cat", "an ant", "a cat"]
STEPS, GUIDANCE, EPOCHS = 4, 5.0, 6


class FromNoise(DDIMScheduler):  # type: ignore[misc]
    """The scheduler of diffusers, which draws nothing itself: the noise of its steps is given."""

    noise: Tensor

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, eta: float = 0.0, **options: Any
    ) -> Any:
        index = self.timesteps.tolist().index(int(timestep))
        given = self.noise[:, index + 1].to(sample.dtype)
        return super().step(
            model_output, timestep, sample, eta=eta, variance_noise=given, **options
        )


def noise_of(policy: Policy) -> Tensor:
    seeds = [noise_seed(3, "test", 0, index) for index in range(len(PROMPTS))]
    return trajectory_noise(seeds, STEPS, policy.latent_shape)


def plain(folder: Path) -> DiffusionPipeline:
    """The pipeline by diffusers alone."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn_by(pipe: DiffusionPipeline, noise: Tensor, guidance: float, kind: str) -> Any:
    pipe.scheduler = FromNoise.from_config(pipe.scheduler.config)
    pipe.scheduler.noise = noise
    return pipe(
        PROMPTS,
        latents=noise[:, 0],
        num_inference_steps=STEPS,
        eta=1.0,
        guidance_scale=guidance,
        output_type=kind,
    ).images


def pixels(pictures: np.ndarray) -> Images:
    found: Images = (pictures * 255).round().astype(np.uint8)
    return found


@pytest.mark.parametrize("guidance", [GUIDANCE, 1.0])
@pytest.mark.parametrize("kind", ALL)
def test_sampling_is_that_of_diffusers(tiny: Tiny, kind: str, guidance: float) -> None:
    policy = load_policy(ModelSection(path=str(tiny(kind))))
    noise, pipe = noise_of(policy), plain(tiny(kind))
    rollout = sample(policy, policy.tables(STEPS, 1.0), PROMPTS, noise, guidance)
    assert rollout.valid.all()
    expected = drawn_by(pipe, noise, guidance, "latent")
    scale = float(expected.abs().max())
    assert float((rollout.latents[:, -1] - expected).abs().max()) <= 1e-5 * scale
    pictures = pixels(drawn_by(pipe, noise, guidance, "np"))
    assert np.abs(rollout.images.astype(int) - pictures).max() <= 1
    # Pictures of different prompts and noise differ, or the above would say little.
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 8


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., Config]:
    """A run of a few epochs on a pipeline."""

    def build(folder: Path, url: str, **sections: dict[str, Any]) -> Config:
        (tmp_path / "prompts.txt").write_text("a cat\nan ant\n")
        values: dict[str, dict[str, Any]] = {
            "run": {"dir": str(tmp_path), "name": "run", "seed": 1, "threads": 1},
            "model": {"path": str(folder)},
            "prompts": {"source": str(tmp_path / "prompts.txt")},
            "sampling": {"steps": STEPS, "batch_size": 2, "samples_per_epoch": 4},
            "training": {"epochs": 1, "batch_size": 4, "micro_batch_size": 8, "clip_range": 1e-3},
            "evaluation": {"samples": 4},
            "tracking": {"tensorboard": False},
            "rewards": {"jpeg": {"urls": [url]}},
        }
        for section, changes in sections.items():
            values[section] = values.get(section, {}) | changes
        return Config.model_validate(values)

    return build


@pytest.mark.parametrize("kind", ALL)
def test_the_ratio_is_one_before_training(
    tiny: Tiny, config_of: Callable[..., Config], kind: str
) -> None:
    config = config_of(tiny(kind), "http://nowhere", training={"micro_batch_size": 3})
    policy = load_policy(config.model)
    assert check_ratio(policy, policy.tables(STEPS, 1.0), config) < 1e-5


@pytest.mark.parametrize("guidance", [GUIDANCE, 1.0])
@pytest.mark.parametrize("kind", ["velocity", "xl"])
def test_regression_is_on_what_the_network_predicts(tiny: Tiny, kind: str, guidance: float) -> None:
    policy, pipe = load_policy(ModelSection(path=str(tiny(kind)))), plain(tiny(kind))
    generator = torch.Generator().manual_seed(2)
    mean, noise = torch.randn((2, 2, 4, 8, 8), generator=generator)
    pictures = WeightedPictures(
        Posterior(mean, torch.zeros_like(mean)), ["a cat", "an ant"], np.ones(2)
    )
    timesteps = torch.tensor([900, 30])
    draw = Draw(
        rows=torch.arange(2),
        weights=torch.tensor([1.0, 2.0]),
        timesteps=timesteps,
        noise=noise,
        encoding=torch.zeros_like(mean),
        dropped=torch.tensor([False, True]),
    )
    found = Denoiser.build(policy, pictures, guidance).loss(draw)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    noisy = scheduler.add_noise(mean, noise, timesteps)
    target = scheduler.get_velocity(mean, noise, timesteps) if kind == "velocity" else noise
    with torch.no_grad():
        words, empty = policy.encode(["a cat", "an ant"]), policy.unconditional()
        for row in range(2):
            # The second one's prompt was dropped.
            given = [empty] if row else [words.select(torch.tensor([0]))]
            given += [empty] if guidance > 1 else []
            outputs = [
                pipe.unet(
                    noisy[row : row + 1],
                    timesteps[row],
                    each.embeddings,
                    added_cond_kwargs={"text_embeds": each.pooled, "time_ids": each.time_ids},
                ).sample
                for each in given
            ]
            output = outputs[-1] + guidance * (outputs[0] - outputs[-1])
            expected = (row + 1) * (target[row] - output[0]).square().mean()
            assert found[row].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["velocity", "xl"])
def test_half_precision_stays_near(tiny: Tiny, kind: str) -> None:
    exact = load_policy(ModelSection(path=str(tiny(kind))))
    half = load_policy(ModelSection(path=str(tiny(kind)), dtype="bf16"))
    noise = noise_of(exact)
    one, other = (
        sample(policy, policy.tables(STEPS, 1.0), PROMPTS, noise, 2.0) for policy in (exact, half)
    )
    scale = float(one.latents[:, -1].abs().max())
    distance = float((one.latents[:, -1] - other.latents[:, -1]).abs().max())
    assert 0 < distance < 0.1 * scale
    assert other.latents.dtype == torch.float32
    assert other.valid.all()


def test_a_fully_trained_unet_of_xl_loads_in_plain_diffusers(tiny: Tiny, tmp_path: Path) -> None:
    policy = load_policy(ModelSection(path=str(tiny("xl")), train="full"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    noise = noise_of(policy)
    pipe = plain(tiny("xl"))
    pipe.unet = UNet2DConditionModel.from_pretrained(policy.save_trained(tmp_path))
    rollout = sample(policy, policy.tables(STEPS, 1.0), PROMPTS, noise, GUIDANCE)
    expected = drawn_by(pipe, noise, GUIDANCE, "latent")
    assert torch.allclose(rollout.latents[:, -1], expected, rtol=1e-4, atol=1e-3)


@pytest.fixture
def trained_on_jpeg(
    tiny: Tiny, tmp_path: Path, config_of: Callable[..., Config], service: "ServiceProcess"
) -> Callable[[str], Path]:
    """`trained_on_jpeg(kind)`: folder of a run of a few epochs against the real reward service."""

    def run(kind: str) -> Path:
        model = Path(shutil.copytree(tiny(kind), tmp_path / "model"))
        with torch.random.fork_rng():
            pretrain(model)
        modules = ["to_q", "to_k", "to_v", "to_out.0", "conv_in", "conv_out", "conv1", "conv2"]
        config = config_of(
            model,
            service.url,
            model={"lora": {"rank": 8, "alpha": 8, "target_modules": modules}},
            sampling={
                "steps": 6,
                "samples_per_epoch": 48,
                "batch_size": 48,
                "guidance_scale": 1.0,
            },
            training={
                "epochs": EPOCHS,
                "batch_size": 24,
                "micro_batch_size": 96,
                "learning_rate": 1e-2,
                "clip_range": 1e-2,
            },
            advantages={"buffer_size": 32, "min_count": 8},
            evaluation={"samples": 32},
        )
        return train(config)

    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["velocity", "xl"])
def test_a_run_learns_and_plain_diffusers_draws_what_it_has_learned(
    trained_on_jpeg: Callable[[str], Path], service: "ServiceProcess", kind: str
) -> None:
    folder = trained_on_jpeg(kind)
    reward = json.loads((folder / "summary.json").read_text())["reward"]
    assert reward["after"]["mean"] > reward["before"]["mean"]

    model = folder.parent / "model"
    settings = load_config(folder / "config.toml").model
    policy = load_policy(settings)
    noise, untrained = noise_of(policy), plain(model)
    before = drawn_by(untrained, noise, GUIDANCE, "latent")
    policy.load_state(checkpoints.load(checkpoints.found(folder / "checkpoints", EPOCHS)).weights)
    rollout = sample(policy, policy.tables(STEPS, 1.0), PROMPTS, noise, GUIDANCE)
    pipe = plain(model)
    pipe.load_lora_weights(folder)
    after = drawn_by(pipe, noise, GUIDANCE, "latent")
    scale = float(after.abs().max())
    assert float((rollout.latents[:, -1] - after).abs().max()) <= 1e-5 * scale
    assert float((before - after).abs().max()) > 1e-2 * scale
    pictures = pixels(drawn_by(pipe, noise, GUIDANCE, "np"))
    assert np.abs(rollout.images.astype(int) - pictures).max() <= 1

    prompts = folder.parent / "prompts.txt"
    _, results = compare(Comparison(folder, {"jpeg": service.url}, [str(prompts)], samples=48))
    judged = results.prompt_sets["prompts"].rewards["jpeg"]
    difference = judged[f"epoch-{EPOCHS:05d}"].difference
    assert difference is not None
    # Picture by picture, more than chance.
    assert difference.ci95[0] > 0

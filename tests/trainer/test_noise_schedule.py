"""What becomes of the scheduler's settings that models are published with."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from tests.trainer.tiny_pipelines import SD_1, SD_21, SD_XL
from trainer.noise_schedule import SAMPLING, NoiseSchedule, ddim_scheduler
from trainer.stops import ConfigError, ModelError

# What a published setting that DDIM does not know is about: how its own sampler goes.
OTHER_SAMPLERS = {
    "skip_prk_steps": True,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}


@pytest.mark.parametrize("published", [SD_1, SD_21, SD_XL], ids=["1", "2.1", "xl"])
def test_no_published_setting_is_changed(published: dict[str, Any]) -> None:
    config = ddim_scheduler(published).config
    for name, value in published.items():
        if not name.startswith("_") and name not in OTHER_SAMPLERS:
            assert config[name] == value, name
    dropped = {name: published[name] for name in OTHER_SAMPLERS if name in published}
    assert dropped.items() <= OTHER_SAMPLERS.items()
    # Named by it or not: this is what is sampled with.
    assert {name: config[name] for name in SAMPLING} == SAMPLING
    expected = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod
    assert torch.equal(ddim_scheduler(published).alphas_cumprod, expected)


@pytest.mark.parametrize("published", [SD_1, SD_21, SD_XL], ids=["1", "2.1", "xl"])
def test_it_is_what_a_user_makes_of_the_folder(published: dict[str, Any]) -> None:
    ours, plain = ddim_scheduler(published).config, DDIMScheduler.from_config(published).config
    assert {name: ours[name] for name in plain if not name.startswith("_")} == {
        name: value for name, value in plain.items() if not name.startswith("_")
    }


def test_another_scheduler_that_names_little_is_not_filled_up_with_defaults_of_ddim() -> None:
    # As Euler would be saved by somebody who made it by hand: it knows neither clipping nor ends.
    euler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    settings = {"_class_name": "EulerDiscreteScheduler", **euler.config}
    settings = {name: value for name, value in settings.items() if name != "timestep_spacing"}
    config = ddim_scheduler(settings).config
    assert {name: config[name] for name in SAMPLING} == SAMPLING
    assert DDIMScheduler.from_config(settings).config.clip_sample


def test_settings_of_ddim_itself_keep_its_defaults() -> None:
    short = {name: SD_21[name] for name in SD_21 if name not in ("clip_sample", "steps_offset")}
    with pytest.raises(ModelError, match="sets clip_sample"):
        ddim_scheduler(short)
    assert ddim_scheduler({**short, "clip_sample": False}).config.steps_offset == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "sample"}, "predicts 'sample'; only epsilon and v_prediction can"),
        ({"clip_sample": True}, "sets clip_sample, under which"),
        ({"thresholding": True}, "set thresholding to false in scheduler/"),
        ({"rescale_betas_zero_snr": True}, "set rescale_betas_zero_snr to false in"),
    ],
)
@pytest.mark.parametrize("published", [SD_1, SD_21, SD_XL], ids=["1", "2.1", "xl"])
def test_what_cannot_be_trained_through(
    published: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        ddim_scheduler(published | changes)


@pytest.mark.parametrize(
    "settings",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5},
    ],
)
def test_models_without_betas_are_not_given_some(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="names no beta_start: only models with the betas of a"):
        ddim_scheduler(settings)


def test_betas_may_be_given_one_by_one() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000).tolist()
    scheduler = ddim_scheduler({"_class_name": "PNDMScheduler", "trained_betas": betas})
    assert scheduler.betas.tolist() == pytest.approx(betas)


def test_a_last_step_without_noise_is_said_to_be_one() -> None:
    schedule = NoiseSchedule(
        ddim_scheduler(SD_21 | {"set_alpha_to_one": True}), torch.device("cpu")
    )
    message = r"timestep 1 has no noise .*set_alpha_to_one True.*Stable Diffusion uses steps_offset"
    with pytest.raises(ConfigError, match=message):
        schedule.tables(10, 1.0)


@pytest.mark.parametrize("published", [SD_1, SD_21], ids=["noise", "velocity"])
def test_target_and_noise_belong_together(published: dict[str, Any]) -> None:
    schedule = NoiseSchedule(ddim_scheduler(published), torch.device("cpu"))
    assert schedule.training_timesteps == 1000
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 2, 4, 8, 8), generator=generator)
    timesteps = torch.tensor([901, 1])
    noisy = schedule.noised(clean, noise, timesteps)
    target = schedule.target(clean, noise, timesteps)
    assert torch.equal(target, noise) == (published is SD_1)
    torch.testing.assert_close(schedule.noise(target, noisy, timesteps), noise)

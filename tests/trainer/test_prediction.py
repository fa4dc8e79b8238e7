"""What networks predict, against diffusers and against itself."""

import pytest
import torch
from diffusers import DDIMScheduler

from trainer.prediction import PREDICTIONS

KINDS = ["epsilon", "v_prediction"]
TIMESTEPS = torch.tensor([981, 501, 1])


def draw(seed: int) -> torch.Tensor:
    return torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def scheduler_of(kind: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=kind,
    )


def alpha(scheduler: DDIMScheduler) -> torch.Tensor:
    found: torch.Tensor = scheduler.alphas_cumprod[TIMESTEPS].view(-1, 1, 1, 1)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_says_the_noise_that_was_added(kind: str) -> None:
    clean, noise, scheduler = draw(1), draw(2), scheduler_of(kind)
    prediction = PREDICTIONS[kind]
    noisy = scheduler.add_noise(clean, noise, TIMESTEPS)
    target = prediction.target(clean, noise, alpha(scheduler))
    torch.testing.assert_close(prediction.noise(target, noisy, alpha(scheduler)), noise)


def test_velocity_is_that_of_diffusers() -> None:
    clean, noise, scheduler = draw(1), draw(2), scheduler_of("v_prediction")
    expected = scheduler.get_velocity(clean, noise, TIMESTEPS)
    target = PREDICTIONS["v_prediction"].target(clean, noise, alpha(scheduler))
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_from_the_noise_is_that_of_diffusers(kind: str) -> None:
    output, noisy, z = draw(1), draw(2), draw(3)
    own, plain = scheduler_of(kind), scheduler_of("epsilon")
    own.set_timesteps(50)
    plain.set_timesteps(50)
    noise = PREDICTIONS[kind].noise(output, noisy, alpha(own))
    for row, timestep in enumerate(TIMESTEPS.tolist()):
        part = slice(row, row + 1)
        options = {"eta": 1.0, "variance_noise": z[part]}
        expected = own.step(output[part], timestep, noisy[part], **options).prev_sample
        found = plain.step(noise[part], timestep, noisy[part], **options).prev_sample
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

"""A model's noise schedule: read from its scheduler's settings, and what is computed with it."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from trainer.ddim import DDIMTables
from trainer.prediction import PREDICTIONS
from trainer.stops import ConfigError, ModelError

SAMPLING = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""What stands in for a setting that another scheduler's settings do not name: the values of
Stable Diffusion. DDIM's own defaults would clip, and end at a step without noise."""

_BETAS = ("beta_start", "beta_end", "beta_schedule")
_REFUSED = ("clip_sample", "thresholding", "rescale_betas_zero_snr")


def ddim_scheduler(settings: Mapping[str, Any]) -> Any:
    """A DDIM scheduler with the betas that a model was trained with.

    Every setting that DDIM knows and the folder names is taken as it is. What only another sampler
    knows, such as Euler's spacing of noise levels, has no meaning here and is left out.

    Args:
        settings: of the scheduler that the model came with, whatever its class.

    Returns:
        diffusers.DDIMScheduler

    Raises:
        ModelError: the settings name no betas, or DDPO cannot train through them.
    """
    named = dict(settings)
    kind = named.get("_class_name")
    if kind != DDIMScheduler.__name__:
        missing = [name for name in _BETAS if named.get(name) is None]
        if missing and named.get("trained_betas") is None:
            raise ModelError(
                f"the model's scheduler, a {kind}, names no {missing[0]}: only models with the "
                "betas of a diffusion process can be trained, not flow matching or EDM"
            )
        named = SAMPLING | named
    scheduler: Any = DDIMScheduler.from_config(named)
    _check(scheduler.config)
    return scheduler


def _check(config: Any) -> None:
    """Refuse what would change the step that the log-probability belongs to."""
    if config.prediction_type not in PREDICTIONS:
        raise ModelError(
            f"the model's scheduler predicts {config.prediction_type!r}; "
            f"only {' and '.join(PREDICTIONS)} can be trained"
        )
    for option in _REFUSED:
        if config[option]:
            raise ModelError(
                f"the model's scheduler sets {option}, under which a DDIM step is no longer the "
                f"Gaussian that DDPO trains through: set {option} to false in "
                "scheduler/scheduler_config.json"
            )


class NoiseSchedule:
    """ᾱ of every timestep of training, and what the network predicts there.

    Args:
        scheduler: see `ddim_scheduler`.
        device: where the latents are.
    """

    def __init__(self, scheduler: Any, device: torch.device) -> None:
        self._scheduler = scheduler
        self._device = device
        self._alphas: Tensor = scheduler.alphas_cumprod.to(device)
        self._prediction = PREDICTIONS[scheduler.config.prediction_type]

    @property
    def training_timesteps(self) -> int:
        """Timesteps that the model was trained on, 1000 for Stable Diffusion."""
        return len(self._alphas)

    def tables(self, steps: int, eta: float) -> DDIMTables:
        """The DDIM schedule for a number of steps.

        Raises:
            ConfigError: too many steps, or a step without noise.
        """
        scheduler, known = self._scheduler, self.training_timesteps
        if steps > known:
            raise ConfigError(f"sampling.steps {steps} exceeds the model's {known} timesteps")
        scheduler.set_timesteps(steps)
        timesteps, final_alpha = scheduler.timesteps, float(scheduler.final_alpha_cumprod)
        try:
            return DDIMTables.build(
                scheduler.alphas_cumprod, final_alpha, timesteps, eta, self._device
            )
        except ValueError as error:
            config = scheduler.config
            raise ConfigError(
                f"{error}: with sampling.steps {steps} the scheduler (steps_offset "
                f"{config.steps_offset}, set_alpha_to_one {config.set_alpha_to_one}, spacing "
                f"{config.timestep_spacing}) must not reach noise level 0; Stable Diffusion uses "
                "steps_offset 1, set_alpha_to_one false, leading spacing"
            ) from None

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1−ᾱ_t) n, (B, C, h, w) fp32; timesteps (B,) int64."""
        noised: Tensor = self._scheduler.add_noise(latents, noise, timesteps)
        return noised

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should say of `noised` of the same, (B, C, h, w) fp32."""
        return self._prediction.target(latents, noise, self._rows(timesteps))

    def noise(self, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """ε that follows from the network's output at x_t, (P, C, h, w) fp32."""
        return self._prediction.noise(output, noisy, self._rows(timesteps))

    def _rows(self, timesteps: Tensor) -> Tensor:
        """ᾱ_t, (P, 1, 1, 1)."""
        return self._alphas[timesteps].view(-1, 1, 1, 1)

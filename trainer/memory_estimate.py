"""What a run keeps in memory on each device, as far as it follows from its settings.

Activations are left out: they depend on the attention kernel, the device and the resolution, and
`ddpo doctor` measures them.
"""

from dataclasses import dataclass

from trainer.config import Config
from trainer.model_sizes import TEXT_ENCODER, UNET, ModelSizes

FP32 = 4
"""Bytes of a number in fp32."""

_BYTES = {"fp32": FP32, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device, each for as long as a run lasts unless it says otherwise.

    Attributes:
        weights: part of the model → its frozen weights, those of a trained UNet included. Text
            encoders that leave the device once the prompts are encoded are left out.
        adapters: LoRA adapters.
        optimizer: AdamW's two moments.
        average: moving average of the trained weights.
        base: copy of a fully trained UNet to measure the KL from.
        gradients: of the trained weights, during the update.
        trajectories: latents and log-probabilities of the epoch's samples, (T+1)·C·h·w and T
            numbers each; 0 where the host keeps them.
    """

    weights: dict[str, int]
    adapters: int
    optimizer: int
    average: int
    base: int
    gradients: int
    trajectories: int

    @classmethod
    def of(cls, config: Config, sizes: ModelSizes, samples: int) -> "MemoryEstimate":
        """The estimate for a device that keeps so many samples of an epoch: all of them."""
        full = config.model.train == "full"
        # Text encoders and VAE stay fp32; so does a UNet that is trained as a whole.
        of_unet = FP32 if full else _BYTES[config.model.dtype]
        weights = {
            name: count * (of_unet if name == UNET else FP32)
            for name, count in sizes.parts.items()
            if config.model.keep_text_encoders or not name.startswith(TEXT_ENCODER)
        }
        trained = sizes.trained * FP32
        of_moment = 1 if config.training.optimizer == "adamw_8bit" else FP32
        return cls(
            weights=weights,
            adapters=sizes.adapters * FP32,
            optimizer=2 * sizes.trained * of_moment,
            average=trained if config.ema.decay else 0,
            base=sizes.parts[UNET] * FP32 if full and config.kl.coefficient else 0,
            gradients=trained,
            trajectories=0
            if config.sampling.trajectories == "host"
            else samples * trajectory_bytes(config.sampling.steps, sizes.latent_shape),
        )

    @property
    def at_least(self) -> int:
        """What the run needs at its largest moment, activations not counted.

        That is the update, or the moment when the batches of an epoch are joined and every latent
        is there twice.
        """
        lasting = sum(self.weights.values()) + self.adapters + self.optimizer
        lasting += self.average + self.base + self.trajectories
        return lasting + max(self.gradients, self.trajectories)


def trajectory_bytes(steps: int, latent_shape: tuple[int, int, int]) -> int:
    """Bytes of the latents and log-probabilities of one sample: T+1 and T of them, fp32."""
    channels, height, width = latent_shape
    return FP32 * ((steps + 1) * channels * height * width + steps)

"""A policy that is a UNet or adapters in one: Stable Diffusion 1, 2 and XL."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor

from trainer import trained_weights
from trainer.conditioning import Conditioning
from trainer.ddim import DDIMTables
from trainer.noise_schedule import NoiseSchedule
from trainer.picture_codec import PictureCodec
from trainer.pipeline import Pipeline, load_pipeline, with_random_unet
from trainer.prompt_memory import PromptMemory
from trainer.sections import ModelSection
from trainer.stops import ModelError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class UNetPolicy:
    """A UNet seen as a policy, see `Policy`, whose methods are described there.

    What sets its families apart lies in their text encoding and in what their scheduler says the
    network predicts. The UNet stays in evaluation mode, so that sampling and training compute the
    same function.

    Build it with `UNetPolicy.load`.
    """

    def __init__(self, pipeline: Pipeline, model: ModelSection, device: torch.device) -> None:
        self.device = device
        self._model = model
        self._pipeline = pipeline
        self._dtype = _DTYPES[model.dtype]
        self._schedule = NoiseSchedule(pipeline.scheduler, device)
        self._prompts = PromptMemory(
            pipeline.text_encoding(), device, self._dtype, resident=model.keep_text_encoders
        )
        pipeline.vae.to(device)
        if pipeline.family.sliced:
            pipeline.vae.enable_slicing()
        if model.vae_tiling:
            pipeline.vae.enable_tiling()
        self.codec = PictureCodec(pipeline.vae)
        self._unet = pipeline.unet
        # A full fine-tuning keeps fp32 weights and lowers the precision by autocast alone.
        weights = torch.float32 if model.train == "full" else self._dtype
        layout = torch.channels_last if model.channels_last else torch.preserve_format
        # torch's own `to`: diffusers' warns that a cast may harm modules, of which there are none.
        torch.nn.Module.to(self._unet, device, weights)
        self._unet.to(memory_format=layout)
        for module in (pipeline.vae, self._unet):
            module.eval()
            module.requires_grad_(False)

    @classmethod
    def load(
        cls, model: ModelSection, device: torch.device | str = "cpu", seed: int = 0
    ) -> "UNetPolicy":
        """Load the model and make its trained part trainable.

        Args:
            model: what to load and what to train.
            device: where it runs.
            seed: initialises the adapters, or the UNet with `model.from_scratch`.

        Raises:
            ModelError: the folder is not a pipeline, or it cannot be trained as asked.
        """
        pipeline = load_pipeline(model)
        if model.from_scratch:
            pipeline = with_random_unet(pipeline, seed)
        policy = cls(pipeline, model, torch.device(device))
        if model.train == "full":
            policy._unet.requires_grad_(True)
        else:
            policy._add_lora(seed)
        if model.gradient_checkpointing:
            policy._unet.enable_gradient_checkpointing()
        return policy

    def _add_lora(self, seed: int) -> None:
        lora = self._model.lora
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            init_lora_weights="gaussian" if lora.init == "gaussian" else True,
            target_modules=list(lora.target_modules),
        )
        # peft draws from torch's global generator: seed it for the call and put it back.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                self._unet.add_adapter(config)
            except ValueError as error:
                raise ModelError(f"model.lora: {error}") from error
        for parameter in self.trainable_parameters():
            parameter.data = parameter.data.float()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        return self._pipeline.latent_shape

    @property
    def loss_scale(self) -> float:
        """Factor on the loss while gradients are computed, to be divided out of them again.

        The log-probability is a mean over the latent, so its gradient by one of thousands of
        numbers is tiny, and fp16 would round it to zero. Constant, so that there is no state to
        keep; a power of two, so that it costs no precision. 1 in the other precisions.
        """
        if self._dtype != torch.float16:
            return 1.0
        return 2.0 ** math.floor(math.log2(math.prod(self.latent_shape)))

    @property
    def model(self) -> ModelSection:
        """The settings this policy was made from."""
        return self._model

    @property
    def training_timesteps(self) -> int:
        """Timesteps that the model was trained on, 1000 for Stable Diffusion."""
        return self._schedule.training_timesteps

    def tables(self, steps: int, eta: float) -> DDIMTables:
        """The model's DDIM schedule."""
        return self._schedule.tables(steps, eta)

    def remember(self, prompts: Sequence[str]) -> None:
        """Encode prompts that will be asked for."""
        self._prompts.remember(prompts)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt."""
        return self._prompts.encode(prompts)

    def unconditional(self) -> Conditioning:
        """The one row that guidance leads away from."""
        return self._prompts.unconditional()

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditional: Conditioning,
        unconditional: Conditioning,
        guidance_scale: float,
    ) -> Tensor:
        """The guided output; both halves go through the network in one call of 2P."""
        if guidance_scale == 1:
            return self._forward(latents, timesteps, conditional)
        both = self._forward(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            Conditioning.cat([unconditional.expand(len(latents)), conditional]),
        )
        without, with_prompt = both.chunk(2)
        return without + guidance_scale * (with_prompt - without)

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditional: Conditioning,
        unconditional: Conditioning,
        guidance_scale: float,
    ) -> Tensor:
        """ε that the guided output stands for."""
        output = self.predict(latents, timesteps, conditional, unconditional, guidance_scale)
        return self._schedule.noise(output, latents, timesteps)

    def _forward(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        added = None
        if conditioning.pooled is not None:
            added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
        with torch.autocast(
            self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32
        ):
            output: Tensor = self._unet(
                latents.to(self._dtype),
                timesteps,
                conditioning.embeddings,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
        return output.float()

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of x_0 and noise."""
        return self._schedule.noised(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should give there."""
        return self._schedule.target(latents, noise, timesteps)

    def named_trained(self) -> dict[str, torch.nn.Parameter]:
        """The trained weights by name, fp32, in a fixed order."""
        return {n: p for n, p in self._unet.named_parameters() if p.requires_grad}

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """The trained weights, fp32, in a fixed order."""
        return list(self.named_trained().values())

    def state(self) -> dict[str, Tensor]:
        """Copies of the trained weights by name, on the CPU."""
        return {
            name: parameter.detach().to("cpu", copy=True).contiguous()
            for name, parameter in self.named_trained().items()
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back the weights of `state`.

        Raises:
            ModelError: names or shapes are not those of this model.
        """
        mine = self.named_trained()
        if odd := sorted(mine.keys() ^ state.keys()):
            raise ModelError(
                f"saved weights are of another model: {len(odd)} names such as "
                f"{odd[0]!r} are in only one of the two"
            )
        for name, parameter in mine.items():
            if parameter.shape != state[name].shape:
                raise ModelError(
                    f"saved weights are of another model: {name!r} has shape "
                    f"{tuple(state[name].shape)}, here {tuple(parameter.shape)}"
                )
            parameter.copy_(state[name])

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Inside, predictions are those of the model that the adapters were put into."""
        self._unet.disable_adapters()
        try:
            yield
        finally:
            self._unet.enable_adapters()

    def frozen_copy(self) -> "UNetPolicy":
        """A policy with the UNet as it is now, which cannot be trained; it shares all else."""
        frozen = copy.copy(self)
        frozen._unet = copy.deepcopy(self._unet).requires_grad_(False)
        return frozen

    def set_attention(self, processor: object) -> None:
        """Use another diffusers attention processor; the default is scaled-dot-product."""
        self._unet.set_attn_processor(processor)

    def save_trained(self, folder: Path) -> Path:
        """Write what was trained in the form plain diffusers loads, see `trained_weights`."""
        if self._model.train == "full":
            return trained_weights.save_unet(self._unet, folder)
        return trained_weights.save_lora(self._unet, folder)

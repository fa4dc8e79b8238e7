"""The policy: a text-to-image model of which the UNet, or adapters in it, is trained."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor

from trainer import trained_weights
from trainer.ddim import DDIMTables
from trainer.picture_codec import PictureCodec
from trainer.pipeline import Pipeline, load_pipeline, with_random_unet
from trainer.sections import ModelSection
from trainer.stops import ConfigError, ModelError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Policy:
    """A diffusion model seen as a policy: x_t, prompt → the noise it predicts.

    Trained weights are fp32 whatever the precision of the forward pass. The UNet stays in
    evaluation mode, so that sampling and training compute the same function.

    Build it with `Policy.load`.
    """

    def __init__(self, pipeline: Pipeline, model: ModelSection, device: torch.device) -> None:
        self.device = device
        self._model = model
        self._pipeline = pipeline
        self._dtype = _DTYPES[model.dtype]
        self._embeddings: dict[str, Tensor] = {}
        pipeline.text_encoder.to(device)
        pipeline.vae.to(device)
        self.codec = PictureCodec(pipeline.vae)
        self._unet = pipeline.unet
        # A full fine-tuning keeps fp32 weights and lowers the precision by autocast alone.
        weights = torch.float32 if model.train == "full" else self._dtype
        layout = torch.channels_last if model.channels_last else torch.preserve_format
        # torch's own `to`: diffusers' warns that a cast may harm modules, of which there are none.
        torch.nn.Module.to(self._unet, device, weights)
        self._unet.to(memory_format=layout)
        for module in (pipeline.text_encoder, pipeline.vae, self._unet):
            module.eval()
            module.requires_grad_(False)

    @classmethod
    def load(
        cls, model: ModelSection, device: torch.device | str = "cpu", seed: int = 0
    ) -> "Policy":
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
        size = self._unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return (self._unet.config.in_channels, height, width)

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

    def tables(self, steps: int, eta: float) -> DDIMTables:
        """The model's DDIM schedule for a number of steps, on the policy's device.

        Raises:
            ConfigError: too many steps, or a step without noise.
        """
        scheduler = self._pipeline.scheduler
        known = len(scheduler.alphas_cumprod)
        if steps > known:
            raise ConfigError(f"sampling.steps {steps} exceeds the model's {known} timesteps")
        scheduler.set_timesteps(steps)
        timesteps, final_alpha = scheduler.timesteps, float(scheduler.final_alpha_cumprod)
        try:
            return DDIMTables.build(
                scheduler.alphas_cumprod, final_alpha, timesteps, eta, self.device
            )
        except ValueError as error:
            config = scheduler.config
            raise ConfigError(
                f"{error}: with sampling.steps {steps} the scheduler (steps_offset "
                f"{config.steps_offset}, set_alpha_to_one {config.set_alpha_to_one}, spacing "
                f"{config.timestep_spacing}) must not reach noise level 0; SD 1.4 uses "
                "steps_offset 1, set_alpha_to_one false, leading spacing"
            ) from None

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings of the prompts, (B, L, D) in the forward pass's precision.

        Each prompt is encoded alone and kept, so an embedding never depends on its batch-mates.
        A prompt longer than the tokenizer's limit is cut there, as Stable Diffusion does.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._embeddings:
                self._embeddings[prompt] = self._encode_one(prompt)
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> Tensor:
        tokenizer = self._pipeline.tokenizer
        positions = self._pipeline.text_encoder.config.max_position_embeddings
        tokens = tokenizer(
            prompt,
            padding="max_length",
            max_length=min(tokenizer.model_max_length, positions),
            truncation=True,
            return_tensors="pt",
        )
        hidden: Tensor = self._pipeline.text_encoder(tokens.input_ids.to(self.device))[0]
        return hidden[0].to(self._dtype)

    def unconditional(self) -> Tensor:
        """Embedding of the empty prompt, (L, D)."""
        return self.encode([""])[0]

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditional: Tensor,
        unconditional: Tensor,
        guidance_scale: float,
    ) -> Tensor:
        """The guided prediction ε_u + w (ε_c − ε_u), (P, C, h, w) fp32, differentiable.

        Both halves go through the network in one call of 2P, and the gradient flows through both
        (Black et al. 2024, appendix E.1). With w = 1 the unconditional half is left out.

        Args:
            latents: x_t, (P, C, h, w) fp32.
            timesteps: t, (P,) int64.
            conditional: embeddings of the prompts, (P, L, D).
            unconditional: embedding of the empty prompt, (L, D).
            guidance_scale: w ≥ 1.
        """
        if guidance_scale == 1:
            return self._forward(latents, timesteps, conditional)
        empty = unconditional.expand_as(conditional)
        both = self._forward(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            torch.cat([empty, conditional]),
        )
        without, with_prompt = both.chunk(2)
        return without + guidance_scale * (with_prompt - without)

    def _forward(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        with torch.autocast(
            self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32
        ):
            noise: Tensor = self._unet(
                latents.to(self._dtype), timesteps, embeddings, return_dict=False
            )[0]
        return noise.float()

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1−ᾱ_t) n, (B, C, h, w) fp32.

        Args:
            latents: x_0, (B, C, h, w).
            noise: n, (B, C, h, w).
            timesteps: t of training, (B,) int64.
        """
        noised: Tensor = self._pipeline.scheduler.add_noise(latents, noise, timesteps)
        return noised

    @property
    def training_timesteps(self) -> int:
        """Timesteps that the model was trained on, 1000 for Stable Diffusion."""
        return len(self._pipeline.scheduler.alphas_cumprod)

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

    def frozen_copy(self) -> "Policy":
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

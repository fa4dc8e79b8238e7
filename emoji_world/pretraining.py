"""Pretraining of the UNet and the text encoder: denoising with captions, on one or more processes.

Noise prediction (`emoji_world.denoiser`) with caption dropout for classifier-free guidance and an
average of the weights. Every random draw comes from (seed, step, rank), so that a resumed run
continues the same sequence.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from emoji_world.dataset import (
    VALIDATION_PICTURES,
    PictureDataset,
    load_dataset,
    to_unit_range,
)
from emoji_world.denoiser import Denoiser
from emoji_world.generator import (
    build_text_encoder,
    build_tokenizer,
    build_unet,
)
from emoji_world.latents import PatchComponents
from emoji_world.master_weights import EMA_DECAY, MasterWeights
from emoji_world.training_run import keep_settings, trapezoid

CAPTION_DROPOUT: Final = 0.1
WARMUP_STEPS: Final = 150
DECAY_SHARE: Final = 0.25
"""Share of the run, at its end, over which the learning rate falls linearly to zero."""


@dataclass(frozen=True)
class PretrainingPlan:
    """The settings of a pretraining run.

    Attributes:
        samples: pictures seen in all, over all processes.
        batch_size: pictures per process and step.
        processes: processes that share each step.
        learning_rate: its highest value.
        seed: seed of every random draw.
    """

    samples: int
    batch_size: int = 48
    processes: int = 2
    learning_rate: float = 1e-3
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return max(1, self.samples // (self.batch_size * self.processes))

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, a constant stretch, linear decay to zero."""
        return self.learning_rate * trapezoid(step, self.steps, WARMUP_STEPS, DECAY_SHARE)


def batch(
    dataset: PictureDataset, plan: PretrainingPlan, step: int, rank: int
) -> tuple[Tensor, Tensor, torch.Generator]:
    """Pictures, caption ids (dropped ones −1) and the noise generator of one step and rank."""
    rng = np.random.default_rng([plan.seed, step, rank])
    rows = rng.integers(VALIDATION_PICTURES, len(dataset), plan.batch_size)
    caption_ids = dataset.caption_ids[rows].copy()
    caption_ids[rng.random(plan.batch_size) < CAPTION_DROPOUT] = -1
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return dataset.images(rows), torch.from_numpy(caption_ids), generator


@torch.no_grad()
def validation_loss(denoiser: Denoiser, dataset: PictureDataset) -> float:
    """The loss on pictures that are never trained on, with fixed timesteps and noise."""
    generator = torch.Generator().manual_seed(1)
    pixels = to_unit_range(np.asarray(dataset.pixels[:VALIDATION_PICTURES]))
    caption_ids = torch.from_numpy(dataset.caption_ids[:VALIDATION_PICTURES])
    return float(denoiser.loss(pixels, caption_ids, generator))


def tokenizer_of(folder: Path) -> CLIPTokenizer:
    """The tokenizer of the run in ``folder``: the one it began with, else a new one.

    All processes and sessions of a run must number the words alike.
    """
    saved = folder / "tokenizer"
    if (saved / "tokenizer.json").is_file() and (saved / "tokenizer_config.json").is_file():
        return CLIPTokenizer.from_pretrained(saved)
    return build_tokenizer(saved)


def save_checkpoint(folder: Path, step: int, weights: MasterWeights, denoiser: Denoiser) -> None:
    """Replace the checkpoint in ``folder`` in one rename."""
    tensors = weights.state() | {
        f"components/{name}": tensor for name, tensor in denoiser.components.tensors().items()
    }
    partial = folder / "checkpoint.partial"
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        partial,
        metadata={"step": str(step)},
    )
    os.replace(partial, folder / "checkpoint.safetensors")


def resume_step(folder: Path, weights: MasterWeights, denoiser: Denoiser) -> int:
    """Restore the checkpoint in ``folder``; the next step, 0 when there is none.

    The latent space comes from the checkpoint too: fitted anew on another machine, a component
    could come out with the opposite sign.
    """
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as opened:
        step = int(opened.metadata()["step"])
    tensors = load_file(path)
    weights.load_state(tensors)
    denoiser.components = _components_in(tensors)
    return step


def _components_in(tensors: dict[str, Tensor]) -> PatchComponents:
    return PatchComponents(tensors["components/mean"], tensors["components/basis"])


def train_rank(rank: int, plan: PretrainingPlan, data: Path, folder: Path, save_every: int) -> None:
    """Run one process of a pretraining run; rank 0 writes logs and checkpoints to ``folder``."""
    torch.set_num_threads(1)
    if plan.processes > 1:
        pin_to_core(rank)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder.resolve() / 'rendezvous'}",
            rank=rank,
            world_size=plan.processes,
        )
    dataset = load_dataset(data)
    denoiser = Denoiser(tokenizer_of(folder), dataset, plan.seed)
    modules = {"unet": denoiser.unet, "text_encoder": denoiser.text_encoder}
    weights = MasterWeights(modules, plan.learning_rate)
    first = resume_step(folder, weights, denoiser)
    progress = tqdm(
        range(first, plan.steps), initial=first, total=plan.steps, disable=rank > 0, mininterval=10
    )
    started, mean_loss = time.monotonic(), 0.0
    for step in progress:
        loss = denoiser.loss(*batch(dataset, plan, step, rank))
        loss.backward()  # type: ignore[no-untyped-call]
        decay = min(EMA_DECAY, (1 + step) / (20 + step))
        norm = weights.step(plan.learning_rate_at(step), decay, plan.processes)
        now = float(loss.detach())
        mean_loss = now if step == first else mean_loss + 0.02 * (now - mean_loss)
        done = step + 1
        if rank == 0 and (done % save_every == 0 or done == plan.steps):
            row = {
                "step": done,
                "samples": done * plan.batch_size * plan.processes,
                "loss": round(mean_loss, 5),
                "validation_loss": round(validation_loss(denoiser, dataset), 5),
                "grad_norm": round(float(norm), 4),
                "seconds": round(time.monotonic() - started, 1),
            }
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            save_checkpoint(folder, done, weights, denoiser)


def averaged_modules(
    folder: Path,
) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """The tokenizer, and the float32 text encoder and UNet with the averaged weights of a run.

    Raises:
        ValueError: ``folder`` holds no checkpoint.
    """
    tensors = _checkpoint(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text_encoder, unet = build_text_encoder(tokenizer), build_unet()
    for prefix, module in (("unet", unet), ("text_encoder", text_encoder)):
        names = [name for name, _ in module.named_parameters()]
        averages = {name: tensors[f"average/{prefix}.{name}"] for name in names}
        missing, _ = module.load_state_dict(averages, strict=False)
        assert not set(missing) & set(names)
    return tokenizer, text_encoder.eval(), unet.eval()


def trained_components(folder: Path) -> PatchComponents:
    """The latent space that the run in ``folder`` works in.

    Raises:
        ValueError: ``folder`` holds no checkpoint.
    """
    return _components_in(_checkpoint(folder))


def _checkpoint(folder: Path) -> dict[str, Tensor]:
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `python -m emoji_world pretrain` first")
    return load_file(path)


def pin_to_core(rank: int) -> None:
    """Give this process a core of its own, where the system lets us choose.

    Without it two processes that wait for each other at every step can share one core for minutes.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})


def pretrain(plan: PretrainingPlan, data: Path, folder: Path, save_every: int = 250) -> None:
    """Pretrain in ``folder``, or continue there.

    A checkpoint and a line of ``log.jsonl`` are written every ``save_every`` steps and at the end.

    Raises:
        DatasetMissing: ``data`` holds no data set.
        ValueError: ``folder`` was started with other settings (more or fewer samples are fine), or
            there are too few pictures.
    """
    if (pictures := len(load_dataset(data))) <= VALIDATION_PICTURES:
        raise ValueError(f"{data} holds {pictures} pictures: {VALIDATION_PICTURES + 1} are needed")
    keep_settings(asdict(plan), folder, free="samples")
    tokenizer_of(folder)  # before there is more than one process
    (folder / "rendezvous").unlink(missing_ok=True)
    if plan.processes == 1:
        train_rank(0, plan, data, folder, save_every)
        return
    spawn(  # type: ignore[no-untyped-call]
        train_rank, (plan, data, folder, save_every), nprocs=plan.processes
    )

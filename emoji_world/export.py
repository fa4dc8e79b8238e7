"""From the caches of a rebuild to the folders that are committed."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from emoji_world.autoencoder import load_autoencoder
from emoji_world.autoencoder_training import decoder_psnr
from emoji_world.composition import SIZE
from emoji_world.dataset import load_dataset
from emoji_world.generator import save_pipeline
from emoji_world.latents import PatchComponents
from emoji_world.pretraining import averaged_modules, trained_components


def export_model(cache: Path, out: Path, records: Path) -> None:
    """Write the averaged weights in ``cache`` as a StableDiffusionPipeline folder ``out``.

    ``records`` gets what the model card tells of their training: ``plan.json``, ``log.jsonl``,
    ``dataset.json`` and ``decoder.json``.

    Raises:
        DatasetMissing: the pictures are not there.
        ValueError: the generator or the decoder is missing, or the decoder was trained for another
            latent space than the generator.
    """
    generator, pictures = cache / "generator", cache / "pictures"
    tokenizer, text_encoder, unet = averaged_modules(generator)
    components = trained_components(generator)
    vae = load_autoencoder(cache / "vae")
    check_latent_space(vae, components)
    decibels = decoder_psnr(vae, load_dataset(pictures), components)
    save_pipeline(out, tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, vae=vae)
    records.mkdir(parents=True, exist_ok=True)
    for path in (generator / "plan.json", generator / "log.jsonl", pictures / "dataset.json"):
        shutil.copyfile(path, records / path.name)
    (records / "decoder.json").write_text(json.dumps({"psnr_db": round(decibels, 2)}) + "\n")


@torch.inference_mode()
def check_latent_space(vae: AutoencoderKL, components: PatchComponents) -> None:
    """Compare the encoder of ``vae`` with the latent space that the generator was trained in.

    Raises:
        ValueError: they differ.
    """
    pixels = 2 * torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 1
    distance = (vae.encode(pixels).latent_dist.mode() - components.encode(pixels)).abs().max()
    if distance > 0.01:
        raise ValueError(
            f"the decoder belongs to another latent space than the generator (latents differ by "
            f"{float(distance):.3f}): run `python -m emoji_world decoder` on the same pictures"
        )

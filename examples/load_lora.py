"""Draw with a LoRA that a run has trained, in plain diffusers: the trainer is not needed.

    python examples/load_lora.py MODEL RUN PROMPT OUT

MODEL is the pipeline that was trained (a folder or a hub id), RUN the folder that holds
`pytorch_lora_weights.safetensors`, OUT the folder for before.png and after.png.
"""

import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image


def main(model: str, run: str, prompt: str, out: str) -> None:
    """The same prompt and seed, without and with the LoRA."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)

    def draw() -> Image.Image:
        generator = torch.Generator().manual_seed(0)
        result = pipeline(
            prompt, num_inference_steps=20, eta=1.0, guidance_scale=5.0, generator=generator
        )
        picture: Image.Image = result.images[0]
        return picture

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    draw().save(folder / "before.png")
    pipeline.load_lora_weights(run)
    draw().save(folder / "after.png")
    print(f"before and after are in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])

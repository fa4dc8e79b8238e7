"""Pictures to latents and back."""

import numpy as np
import pytest
import torch

from trainer.unet_policy import UNetPolicy


def test_encoding_is_that_of_the_pipeline(lora_policy: UNetPolicy) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    posterior = lora_policy.codec.encode(images, batch_size=2)
    vae = lora_policy._pipeline.vae
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist
    scale = vae.config.scaling_factor
    torch.testing.assert_close(posterior.mean, expected.mean * scale)
    torch.testing.assert_close(posterior.deviation, expected.std * scale)
    noise = torch.ones_like(posterior.mean[:2])
    drawn = posterior.draw(torch.tensor([2, 0]), noise)
    torch.testing.assert_close(drawn, (posterior.mean + posterior.deviation)[[2, 0]])


def test_black_and_white_are_the_ends_of_the_range(lora_policy: UNetPolicy) -> None:
    images = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 255)])
    seen: list[torch.Tensor] = []
    vae = lora_policy._pipeline.vae
    hook = vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        lora_policy.codec.encode(images, batch_size=2)
    finally:
        hook.remove()
    assert set(seen[0][0].flatten().tolist()) == {-1.0}
    assert seen[0][1].flatten().tolist() == pytest.approx([1.0] * 768)

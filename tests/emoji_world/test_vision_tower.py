"""The input of the vision models: in training the same numbers as from the image processor."""

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from emoji_world.dataset import PictureDataset, to_unit_range
from emoji_world.vision_tower import VIEW, build_image_processor, pixel_values


def test_training_sees_what_the_image_processor_makes(pictures: PictureDataset) -> None:
    processed = build_image_processor()(images=list(pictures.pixels[:5]), return_tensors="pt")
    ours = pixel_values(to_unit_range(pictures.pixels[:5]))
    torch.testing.assert_close(ours, processed["pixel_values"], atol=1e-5, rtol=0)


def test_pictures_of_any_size_are_taken() -> None:
    sizes = [(512, 512), (64, 64), (100, 40), (1, 1)]
    images = [Image.new("RGB", size, "red") for size in sizes]
    made = build_image_processor()(images=images, return_tensors="pt")["pixel_values"]
    assert made.shape == (4, 3, VIEW, VIEW)


def test_a_picture_of_the_world_is_not_resampled(pictures: PictureDataset) -> None:
    """At this size resizing does nothing, and only a margin is cut off."""
    ours = build_image_processor()
    plain = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    picture = [np.ascontiguousarray(pictures.pixels[0])]
    both = [p(images=picture, return_tensors="pt")["pixel_values"] for p in (ours, plain)]
    assert torch.equal(both[0], both[1][:, :, 2:-2, 2:-2])

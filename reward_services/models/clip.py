"""CLIP: unit vectors for pictures and texts, each the same in every batch (on a CPU)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizerFast, CLIPVisionModelWithProjection

from reward_services.models import weights
from reward_services.models.batches import Batches
from reward_services.models.clip_pixels import ClipPixels
from reward_services.models.model_options import ModelOptions
from reward_services.models.placement import place
from reward_services.models.residency import Residency

# A pass over one picture wastes little of a CPU: a large model already works on hundreds of rows.
CPU_BATCH = 1
GPU_BATCH = 64


class ClipEncoder:
    """A CLIP model, its preprocessing, and where it computes.

    Args:
        name: see `find_model`.
        options: placement and batch size.
        texts: whether texts are encoded too; without, only half of the model is loaded.
        processor: where preprocessing and tokenizer are found, if not beside the model.

    Attributes:
        dimensions: length of the vectors.

    Raises:
        SetupError: see `find_model` and `place`.
    """

    def __init__(
        self, name: str, options: ModelOptions, *, texts: bool = False, processor: str = ""
    ) -> None:
        folder = weights.find_model(name, options.revision)
        self._place = place(options)
        words = weights.find_model(processor, weights=False) if processor else folder
        self._pixels = ClipPixels(words)
        kind = CLIPModel if texts else CLIPVisionModelWithProjection
        arguments = self._place.load_arguments()
        self._model: Any = weights.load_model(kind, folder, **arguments)
        self._place.place(self._model)
        self.dimensions: int = self._model.config.projection_dim
        self._residency = Residency([self._model], self._place.device, options.idle_offload_s)
        default = CPU_BATCH if self._place.exact else GPU_BATCH
        fixed = self._place.exact or options.torch_compile
        self._batches = Batches(options.batch_size or default, fixed)
        self._vision = self._image_vectors
        if options.torch_compile:
            self._vision = torch.compile(self._image_vectors, dynamic=False)
        self._tokenizer = weights.load(CLIPTokenizerFast, words) if texts else None
        self._identity = (folder, weights.meaning(words), self._place.precision)

    @property
    def identity(self) -> tuple[Path | str, ...]:
        """What decides the vectors, for `weights.digest`."""
        return self._identity

    def images(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor | None]:
        """One unit vector, float32 on the CPU, per picture; None where the GPU lacks memory."""

        def encode(rows: list[int]) -> Tensor:
            pixels = self._place.send(self._pixels.prepare([images[row] for row in rows]))
            values = self._pixels.values(pixels, self._place.dtype)
            return functional.normalize(self._vision(values).float(), dim=-1).cpu()

        return self._run(encode, len(images))

    def texts(self, texts: Sequence[str]) -> list[Tensor | None]:
        """One unit vector per text, of which as many tokens count as the model can read."""

        def encode(rows: list[int]) -> Tensor:
            tokens = self._tokens([texts[row] for row in rows])
            sent = {name: self._place.send(tensor) for name, tensor in tokens.items()}
            vectors = self._model.get_text_features(**sent).pooler_output
            return functional.normalize(vectors.float(), dim=-1).cpu()

        return self._run(encode, len(texts))

    def is_cut(self, text: str) -> bool:
        """Whether `text` is longer than the model can read."""
        assert self._tokenizer is not None
        return len(self._tokenizer(text)["input_ids"]) > self._longest

    @property
    def logit_scale(self) -> float:
        """The factor that CLIP learned for its cosines."""
        return float(self._model.logit_scale.exp())

    def close(self) -> None:
        """End the threads."""
        self._pixels.close()
        self._residency.close()

    def _run(self, encode: Any, count: int) -> list[Tensor | None]:
        with torch.inference_mode(), self._residency.use():
            return self._batches.run(encode, range(count))

    def _image_vectors(self, values: Tensor) -> Tensor:
        if isinstance(self._model, CLIPVisionModelWithProjection):
            vectors: Tensor = self._model(values).image_embeds
        else:
            vectors = self._model.get_image_features(values).pooler_output
        return vectors

    def _tokens(self, texts: list[str]) -> Any:
        assert self._tokenizer is not None
        # Always the longest: the length of the others in the batch must not matter.
        return self._tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        )

    @property
    def _longest(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

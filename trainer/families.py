"""The families of models that can be trained, and what sets each apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import CLIPTextModel, CLIPTextModelWithProjection

from trainer.text_encoding import ClipText, LastStates, PenultimateStates, TextEncoding


@dataclass(frozen=True)
class Family:
    """Pipelines of one class of diffusers.

    Attributes:
        name: the class.
        text_encoders: folder of each text encoder → its class. The tokenizer's folder is named
            likewise.
        encoding: from the encoders, the pipeline's own settings and height and width of its
            pictures to how prompts are encoded.
        addition: `addition_embed_type` of its UNets: what they take beside embeddings.
        sliced: pictures are decoded and encoded one by one, because of their size: one of
            1024×1024 takes gigabytes in fp32.
    """

    name: str
    text_encoders: Mapping[str, Any]
    encoding: Callable[[Sequence[ClipText], Mapping[str, Any], tuple[int, int]], TextEncoding]
    addition: str | None
    sliced: bool


def _xl_encoding(
    encoders: Sequence[ClipText], settings: Mapping[str, Any], size: tuple[int, int]
) -> TextEncoding:
    # True is the pipeline's own default.
    zeros = bool(settings.get("force_zeros_for_empty_prompt", True))
    return PenultimateStates(encoders, zeros, size)


_ALL = (
    Family(
        name="StableDiffusionPipeline",
        text_encoders={"text_encoder": CLIPTextModel},
        encoding=lambda encoders, _settings, _size: LastStates(encoders),
        addition=None,
        sliced=False,
    ),
    Family(
        name="StableDiffusionXLPipeline",
        text_encoders={
            "text_encoder": CLIPTextModel,
            "text_encoder_2": CLIPTextModelWithProjection,
        },
        encoding=_xl_encoding,
        addition="text_time",
        sliced=True,
    ),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
"""Class of a pipeline → its family."""

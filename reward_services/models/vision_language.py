"""A model that answers questions about pictures, whatever runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, HttpUrl, PositiveFloat, PositiveInt, SecretStr

from reward_services.models.model_options import ModelOptions
from reward_services.scorer import ItemError


class VisionLanguageOptions(ModelOptions):
    """Options of every reward that asks a vision-language model."""

    model: str = "llava-hf/llava-1.5-7b-hf"
    """Folder, `package:NAME/FOLDER` or hub id of a LLaVA model; with `backend=openai` the name \
that the server has for it."""
    backend: Literal["transformers", "openai"] = "transformers"
    """`transformers` runs the model in this process; `openai` asks a server that speaks the \
OpenAI protocol, such as vLLM or SGLang."""
    base_url: HttpUrl | None = None
    """Address of that server, up to and including `/v1`."""
    api_key: SecretStr | None = None
    """Its API key, better given as a variable than on a command line."""
    concurrency: PositiveInt = 32
    """Most questions under way to that server at the same time."""
    timeout_s: PositiveFloat = 120.0
    """How long one question to that server may take, all tries included, once it is its turn."""
    max_answer_tokens: Annotated[int, Field(ge=1, le=1024)] = 64
    """Tokens after which an answer is cut."""
    prompt_template: str = ""
    """Text around a question, with `{question}` and, with `backend=transformers`, `<image>`. \
Unset: the chat template of the model."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A picture, uint8 [H,W,3], and at least one question about it."""

    image: NDArray[np.uint8]
    questions: tuple[str, ...]


Answers = list[str] | ItemError


class VisionLanguageModel(Protocol):
    """Answers questions about pictures, greedily, so that the same picture gets the same answer."""

    @property
    def identity(self) -> tuple[Path | str, ...]:
        """What decides the answers, for `weights.digest`."""
        ...

    def answer(self, inquiries: Sequence[Inquiry]) -> list[Answers]:
        """Per picture one answer to each question, or why there are none."""
        ...

    def close(self) -> None:
        """Free what the model holds."""
        ...

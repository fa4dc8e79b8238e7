"""Prompt alignment: what a vision-language model says of the picture, compared with the prompt.

Black et al. (2023), §5.1: LLaVA describes the picture, and the reward is the BERTScore recall of
that description against "The image contains {prompt}". Precision, F1 and the description are
details. Raw values lie high and close together (about 0.7 to 0.85 with the default encoder).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from reward_services.models import weights
from reward_services.models.backends import open_model
from reward_services.models.bertscore import DEFAULT_ENCODER, BertScore
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError, Scored, ScoreItem

QUESTION = "Answer concisely: what is going on in this image?"
REFERENCE = "The image contains {prompt}"


class LlavaBertScoreOptions(VisionLanguageOptions):
    """Options of `llava_bertscore`; `dtype=auto` is fp16 for LLaVA on a GPU, fp32 for the rest."""

    question: str = QUESTION
    """What is asked of every picture."""
    reference: str = REFERENCE
    """What a perfect answer would say, with `{prompt}`."""
    encoder: str = DEFAULT_ENCODER
    """Folder, `package:NAME/FOLDER` or hub id of the encoder behind BERTScore."""
    encoder_layer: PositiveInt | None = None
    """Layer whose embeddings are compared. Unset: 40 for DeBERTa-xlarge, as published; else the \
last."""


class LlavaBertScore:
    """BERTScore recall of the answer against the prompt; at most 1."""

    name = "llava_bertscore"
    units = "BERTScore recall"
    direction: Literal["maximize"] = "maximize"
    range = (-1.0, 1.0)
    max_batch_size = 32
    needs_prompt = True

    def __init__(self, options: LlavaBertScoreOptions) -> None:
        if "{prompt}" not in options.reference:
            raise SetupError("reference does not hold {prompt}")
        self._question = options.question
        self._reference = options.reference
        self._encoder = BertScore(options.encoder, options.encoder_layer, _of_encoder(options))
        self._model = open_model(options)
        texts = (self.name, options.question, options.reference)
        self.version = weights.digest(*texts, *self._model.identity, *self._encoder.identity)
        if options.warm_up:
            self.score([ScoreItem(np.zeros((8, 8, 3), np.uint8), "a picture")])

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One score per item. No prompt, one too long and an empty answer are refused."""
        outcomes: list[Scored | ItemError | None] = [self._refusal(item) for item in items]
        fine = [index for index, refused in enumerate(outcomes) if refused is None]
        inquiries = [Inquiry(items[index].image, (self._question,)) for index in fine]
        said: dict[int, str] = {}
        for index, answers in zip(fine, self._model.answer(inquiries), strict=True):
            if isinstance(answers, ItemError):
                outcomes[index] = answers
            elif refused := self._unusable(answers[0]):
                outcomes[index] = refused
            else:
                said[index] = answers[0]
        meant = [self._meant(items[index]) for index in said]
        matches = self._encoder.score(list(said.values()), meant)
        for (index, answer), match in zip(said.items(), matches, strict=True):
            if match is None:
                message = "the GPU has too little memory"
                outcomes[index] = ItemError(message, "out_of_memory", retryable=True)
            else:
                numbers = {"precision": match.precision, "recall": match.recall, "f1": match.f1}
                outcomes[index] = Scored(match.recall, {"answer": answer, **numbers})
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """Free the models."""
        self._model.close()
        self._encoder.close()

    def _meant(self, item: ScoreItem) -> str:
        return self._reference.replace("{prompt}", item.prompt.strip())

    def _refusal(self, item: ScoreItem) -> ItemError | None:
        meant = self._meant(item)
        if not item.prompt.strip() or self._encoder.is_empty(meant):
            return ItemError("there is no prompt to compare with", "prompt_missing")
        if (count := self._encoder.count_tokens(meant)) > self._encoder.longest:
            message = (
                f"the prompt makes {count} tokens, at most {self._encoder.longest} can be read"
            )
            return ItemError(message, "prompt_too_long")
        return None

    def _unusable(self, answer: str) -> ItemError | None:
        """BERTScore of nothing is not a number, so there is no score for it."""
        if self._encoder.is_empty(answer):
            return ItemError("the model says nothing about the picture", "empty_answer")
        if self._encoder.count_tokens(answer) > self._encoder.longest:
            return ItemError("the model's answer is too long", "answer_too_long")
        return None


def _of_encoder(options: LlavaBertScoreOptions) -> LlavaBertScoreOptions:
    """The encoder's placement: in fp32, as published, wherever the other model computes."""
    quantized = options.dtype in ("8bit", "4bit")
    changes = {"dtype": "auto", "idle_offload_s": 0.0 if quantized else options.idle_offload_s}
    return options.model_copy(update=changes)

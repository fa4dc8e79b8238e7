"""LLaVA in this process: each picture encoded once, all questions answered in batches."""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, GenerationConfig, LlavaForConditionalGeneration

from reward_services.models import weights
from reward_services.models.batches import Batches
from reward_services.models.clip_pixels import ClipPixels, refusal
from reward_services.models.placement import place
from reward_services.models.residency import Residency
from reward_services.models.vision_language import Answers, Inquiry, VisionLanguageOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError

IMAGE = "<image>"
# A pass over one picture wastes little of a CPU; generation, a token at a time, wastes most of it.
CPU_PICTURES = 1
CPU_QUESTIONS = 8
GPU_BATCH = 16
# Questions are padded, at the left, to a multiple of so many tokens. Only their own length decides.
_BUCKET = 32
_QUESTIONS_KEPT = 4096


class LlavaModel:
    """A `LlavaForConditionalGeneration` with its processor.

    Raises:
        SetupError: see `find_model` and `place`.
    """

    def __init__(self, options: VisionLanguageOptions) -> None:
        folder = weights.find_model(options.model, options.revision)
        self._place = place(options, half_on_gpu=True)
        self._processor = weights.load(AutoProcessor, folder)
        self._pixels = ClipPixels(folder)
        self._template = options.prompt_template
        if self._template and self._template.count(IMAGE) != 1:
            raise SetupError(f"prompt_template must hold {IMAGE} once")
        arguments = self._place.load_arguments()
        model = weights.load_model(LlavaForConditionalGeneration, folder, **arguments)
        self._model: Any = self._place.place(model)
        self._generation = self._greedy(options)
        self._residency = Residency([self._model], self._place.device, options.idle_offload_s)
        exact = self._place.exact
        pictures = CPU_PICTURES if exact else options.batch_size or GPU_BATCH
        questions = options.batch_size or (CPU_QUESTIONS if exact else GPU_BATCH)
        self._pictures = Batches(pictures, fixed=exact)
        self._questions = Batches(questions, fixed=exact)
        positions: int = model.config.text_config.max_position_embeddings
        # Room for the answer and for the padding.
        self._longest = (positions - options.max_answer_tokens) // _BUCKET * _BUCKET
        self._prompt = lru_cache(_QUESTIONS_KEPT)(self._tokens)
        self.identity: tuple[Path | str, ...] = (
            folder,
            self._place.precision,
            self._template,
            str(options.max_answer_tokens),
        )

    def answer(self, inquiries: Sequence[Inquiry]) -> list[Answers]:
        """Per picture one answer to each question; a long, thin picture is refused."""
        found: list[Answers | None] = [self._refusal(inquiry) for inquiry in inquiries]
        fine = [row for row, refused in enumerate(found) if refused is None]
        with torch.inference_mode(), self._residency.use():
            features = self._pictures.run(
                lambda rows: self._encode([inquiries[row].image for row in rows]), fine
            )
            pairs = [
                (row, encoded, question)
                for row, encoded in zip(fine, features, strict=True)
                for question in inquiries[row].questions
            ]
            texts = self._ask([(encoded, question) for _, encoded, question in pairs])
        by_row = zip([row for row, _, _ in pairs], texts, strict=True)
        for row, group in itertools.groupby(by_row, key=lambda pair: pair[0]):
            found[row] = _together([text for _, text in group])
        return [answers if answers is not None else [] for answers in found]

    def close(self) -> None:
        """End the threads."""
        self._pixels.close()
        self._residency.close()

    def _refusal(self, inquiry: Inquiry) -> ItemError | None:
        for question in inquiry.questions:
            if IMAGE in question:
                return ItemError(f"a question must not hold {IMAGE}", "question_unusable")
            if (count := len(self._prompt(question))) > self._longest:
                message = f"a question makes {count} tokens, at most {self._longest} can be read"
                return ItemError(message, "question_too_long")
        return refusal(inquiry.image)

    def _encode(self, images: list[Any]) -> list[Tensor]:
        pixels = self._place.send(self._pixels.prepare(images))
        values = self._pixels.values(pixels, self._place.dtype)
        return list(self._model.get_image_features(pixel_values=values).pooler_output)

    def _ask(self, pairs: Sequence[tuple[Tensor | None, str]]) -> list[str | None]:
        """One answer per (encoded picture, question); None where the GPU lacks memory."""
        answers: list[str | None] = [None] * len(pairs)
        buckets: dict[int, list[int]] = {}
        for row, (encoded, question) in enumerate(pairs):
            if encoded is not None:
                size = -(-len(self._prompt(question)) // _BUCKET) * _BUCKET
                buckets.setdefault(size, []).append(row)
        for size, rows in buckets.items():

            def generate(part: list[int], size: int = size) -> list[str]:
                return self._generate([pairs[row] for row in part], size)

            for row, text in zip(rows, self._questions.run(generate, rows), strict=True):
                answers[row] = text
        return answers

    def _generate(self, pairs: Sequence[tuple[Tensor | None, str]], size: int) -> list[str]:
        tokens = torch.full((len(pairs), size), self._generation.pad_token_id)
        mask = torch.zeros((len(pairs), size), dtype=torch.long)
        for row, (_, question) in enumerate(pairs):
            ids = self._prompt(question)
            tokens[row, size - len(ids) :] = torch.tensor(ids)
            mask[row, size - len(ids) :] = 1
        tokens, mask = self._place.send(tokens), self._place.send(mask)
        embedded = self._model.get_input_embeddings()(tokens)
        features = torch.cat([encoded for encoded, _ in pairs if encoded is not None])
        places = (tokens == self._model.config.image_token_id)[:, :, None]
        embedded = embedded.masked_scatter(places, features.to(embedded.dtype))
        written = self._model.generate(
            inputs_embeds=embedded, attention_mask=mask, generation_config=self._generation
        )
        texts: list[str] = self._processor.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _tokens(self, question: str) -> tuple[int, ...]:
        """The prompt with as many image tokens as a picture has features."""
        if self._template:
            text = self._template.replace("{question}", question)
        else:
            parts = [{"type": "image"}, {"type": "text", "text": question}]
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True
            )
        blank = Image.new("RGB", (8, 8))
        return tuple(self._processor(images=[blank], text=[text])["input_ids"][0])

    def _greedy(self, options: VisionLanguageOptions) -> GenerationConfig:
        """Nothing of the folder's own sampling settings, only its special tokens."""
        given = self._model.generation_config
        pad = given.pad_token_id
        if pad is None:
            pad = self._processor.tokenizer.pad_token_id or 0
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=options.max_answer_tokens,
            bos_token_id=given.bos_token_id,
            eos_token_id=given.eos_token_id,
            pad_token_id=pad,
            cache_implementation="static" if options.torch_compile else None,
        )
        # What is unset in the one would be taken from the other.
        self._model.generation_config = config
        return config


def _together(texts: list[str | None]) -> Answers:
    if any(text is None for text in texts):
        return ItemError("the GPU has too little memory", "out_of_memory", retryable=True)
    return [text for text in texts if text is not None]

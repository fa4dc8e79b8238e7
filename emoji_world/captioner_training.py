"""Training of the caption model: answers to questions about freshly drawn, worn pictures."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaTokenizer, LlavaForConditionalGeneration, LlavaProcessor

from emoji_world.autoencoder import load_autoencoder
from emoji_world.captioner import (
    LONGEST_ANSWER,
    build_captioner,
    build_processor,
    save_captioner,
    trained_modules,
)
from emoji_world.captions import Caption
from emoji_world.classifier import COUNTS, NOUNS, PHRASES, targets
from emoji_world.fresh_pictures import FreshPictures
from emoji_world.icons import IconSet
from emoji_world.questions import PROMPT, Exchange, random_exchange
from emoji_world.training_run import TrainingPlan, keep_records, load_averages, run_training
from emoji_world.vision_tower import PATCHES, pixel_values

IGNORED: Final = -100
"""The label of what is not to be predicted: picture, question and padding."""


HINT_WEIGHT: Final = 0.3
"""Weight of what the hints get wrong, beside the answers."""


class Hints(nn.Module):
    """Linear classifiers of noun, activity and count on the mean of what the language model sees.

    They are thrown away after the training. Without them the language model learns for long which
    answers are frequent before it finds out that it is shown something.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Linear(width, len(classes)) for classes in (NOUNS, PHRASES, COUNTS)
        )

    def forward(self, seen: Tensor, captions: list[Caption]) -> Tensor:
        """The summed cross-entropy for pictures seen as [N, PATCHES, width]."""
        mean = seen.mean(1)
        losses = [
            functional.cross_entropy(head(mean).float(), target)
            for head, target in zip(self.heads, targets(captions), strict=True)
        ]
        return torch.stack(losses).sum()


class Conversations:
    """Exchanges as token ids, padded on the left."""

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        self._tokenizer = tokenizer
        self._encoded = cache(self._encode)

    def _encode(self, exchange: Exchange) -> tuple[list[int], list[int]]:
        """Ids of the prompt, a picture's placeholders included, and of the answer with its end."""
        image = self._tokenizer.image_token
        asked = PROMPT.format(question=exchange.question).replace(image, image * PATCHES)
        prompt = self._tokenizer(asked)["input_ids"]
        # A Llama tokenizer puts the space before the answer back.
        answer = self._tokenizer(exchange.answer, add_special_tokens=False)["input_ids"]
        return prompt, [*answer, self._tokenizer.eos_token_id]

    def batch(self, exchanges: Sequence[Exchange]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, attention mask and labels, each int64 [N, L]."""
        encoded = [self._encoded(exchange) for exchange in exchanges]
        length = max(len(prompt) + len(answer) for prompt, answer in encoded)
        ids = torch.full((len(encoded), length), self._tokenizer.pad_token_id)
        labels = torch.full((len(encoded), length), IGNORED)
        for row, (prompt, answer) in enumerate(encoded):
            both = torch.tensor([*prompt, *answer])
            ids[row, length - len(both) :] = both
            labels[row, length - len(answer) :] = torch.tensor(answer)
        return ids, (ids != self._tokenizer.pad_token_id).long(), labels


class CaptionerTrainee:
    """The caption model in training, in bfloat16."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: LlamaTokenizer,
        pictures: FreshPictures,
        plan: TrainingPlan,
    ) -> None:
        # On CPUs with bfloat16 instructions plain attention in bfloat16 takes half the time of
        # float32, and fused attention more.
        self._model = model.to(torch.bfloat16).train()
        self._model.set_attn_implementation("eager")
        self._conversations = Conversations(tokenizer)
        self._pictures = pictures
        self._plan = plan
        self._hints = Hints(model.config.text_config.hidden_size).to(torch.bfloat16)
        self.modules: dict[str, nn.Module] = trained_modules(model) | {"hints": self._hints}

    def loss(self, step: int) -> Tensor:
        """Cross-entropy of the answers, over all their tokens, and a share of that of the hints."""
        scenes = self._pictures.draw(step, self._pictures.captions(step, self._plan.batch_size))
        rng = np.random.default_rng([self._plan.seed, step, 3])
        exchanges = [random_exchange(caption, rng) for caption in scenes.captions]
        ids, mask, labels = self._conversations.batch(exchanges)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=pixel_values(self._pictures.worn(step, scenes)).to(torch.bfloat16),
            logits_to_keep=LONGEST_ANSWER + 1,  # answers stand at the end
        )
        answers = functional.cross_entropy(
            output.logits[:, :-1].float().flatten(0, 1),
            labels[:, -LONGEST_ANSWER:].flatten(),
            ignore_index=IGNORED,
        )
        seen = output.image_hidden_states.unflatten(0, (len(ids), PATCHES))
        hints: Tensor = self._hints(seen, scenes.captions)
        return answers + HINT_WEIGHT * hints


def train_captioner(
    icons: IconSet, vae: AutoencoderKL | None, plan: TrainingPlan, folder: Path
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Train in ``folder``, or continue there; the float32 model with averaged weights."""
    processor = build_processor()
    torch.manual_seed(plan.seed)
    model = build_captioner(processor.tokenizer)
    pictures = FreshPictures(icons, plan.seed, vae)
    run_training(CaptionerTrainee(model, processor.tokenizer, pictures, plan), plan, folder)
    averaged = build_captioner(processor.tokenizer)
    load_averages(trained_modules(averaged), folder)
    return averaged.eval(), processor


def export_captioner(
    icons: IconSet,
    models: Path,
    plan: TrainingPlan,
    run: Path,
    out: Path,
    records: Path,
) -> None:
    """Train in ``run``, write the model into ``out`` and plan and log into ``records``.

    ``models`` holds the generator, whose autoencoder is used.

    Raises:
        ValueError: that is missing, or ``run`` was started with other settings.
    """
    vae = load_autoencoder(models / "diffusion" / "vae")
    model, processor = train_captioner(icons, vae, plan, run)
    save_captioner(model, processor, out)
    keep_records(run, records)

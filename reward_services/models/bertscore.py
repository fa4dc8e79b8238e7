"""BERTScore (Zhang et al. 2020): how well the words of two sentences match, by their embeddings.

The definition is that of the package bert-score without IDF weights and without rescaling; the
tests hold the two together. The package itself pads a batch to its longest sentence, so that the
last digits of a score depend on the sentences beside it, and it needs pandas and matplotlib.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from reward_services.models import weights
from reward_services.models.batches import Batches
from reward_services.models.model_options import ModelOptions
from reward_services.models.placement import place
from reward_services.models.residency import Residency
from reward_services.options import SetupError

DEFAULT_ENCODER: Final = "microsoft/deberta-xlarge-mnli"
LONGEST: Final = 512
"""Tokens, where a tokenizer states no limit: DeBERTa's states 10^30, which is no limit at all."""

# Sentences are padded to a multiple of so many tokens. Only their own length decides.
_BUCKET: Final = 32
_CPU_BATCH: Final = 2
_GPU_BATCH: Final = 64
# Prompts come again and again, so their embeddings are kept: 64 MB of them at a width of 1024.
_KEPT_TOKENS: Final = 16384
# The layer that agrees best with people, chosen by the authors of BERTScore, by architecture:
# (model type, layers) of a published encoder. For others the last layer is taken.
_BEST_LAYERS: Final = {("deberta", 48): 40}


@dataclass(frozen=True, slots=True)
class Match:
    """Agreement of a candidate with its reference, each at most 1."""

    precision: float
    recall: float
    f1: float


class SentenceTooLong(ValueError):
    """A sentence has more tokens than the encoder reads."""


class BertScore:
    """BERTScore by the encoder called `name` (see `find_model`).

    Raises:
        SetupError: no such encoder or layer.
    """

    def __init__(self, name: str, layer: int | None, options: ModelOptions) -> None:
        folder = weights.find_model(name)
        self._place = place(options)
        self._tokenizer = weights.load(AutoTokenizer, folder)
        self._model = _encoder(folder, self._place.load_arguments())
        layers: int = self._model.config.num_hidden_layers
        self.layer = layer or _BEST_LAYERS.get((self._model.config.model_type, layers), layers)
        if self.layer > layers:
            raise SetupError(f"encoder_layer={self.layer}: {name} has {layers} layers")
        # Layers above are not needed.
        self._model.encoder.layer = self._model.encoder.layer[: self.layer]
        self._place.place(self._model)
        self._residency = Residency([self._model], self._place.device, options.idle_offload_s)
        size = _CPU_BATCH if self._place.exact else _GPU_BATCH
        self._batches = Batches(size, fixed=self._place.exact)
        self._kept = _Kept(_KEPT_TOKENS)
        stated: int = self._tokenizer.model_max_length
        positions: int = getattr(self._model.config, "max_position_embeddings", LONGEST)
        self.longest = min(stated, positions, LONGEST)
        self.identity = (folder, f"layer {self.layer}", self._place.precision)

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> list[Match | None]:
        """One match per pair; None where the GPU lacks memory.

        Raises:
            SentenceTooLong: see `count_tokens`.
        """
        sentences = sorted({*candidates, *references})
        vectors = self._kept.take(sentences)
        missing = [sentence for sentence in sentences if sentence not in vectors]
        for sentence, vector in zip(missing, self._embeddings(missing), strict=True):
            vectors[sentence] = vector
            if vector is not None:
                self._kept.put(sentence, vector)
        matches: list[Match | None] = []
        for candidate, reference in zip(candidates, references, strict=True):
            said, meant = vectors[candidate], vectors[reference]
            matches.append(None if said is None or meant is None else _match(said, meant))
        return matches

    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence; above `longest` it cannot be scored."""
        return len(self._tokenizer(sentence.strip())["input_ids"])

    def close(self) -> None:
        """End the timer."""
        self._residency.close()

    def _embeddings(self, sentences: Sequence[str]) -> list[Tensor | None]:
        """Unit vectors [tokens, width] of each sentence, on the CPU, special tokens included."""
        tokens: list[list[int]] = [self._tokenizer(s.strip())["input_ids"] for s in sentences]
        buckets: dict[int, list[int]] = {}
        for row, ids in enumerate(tokens):
            if len(ids) > self.longest:
                raise SentenceTooLong(f"{len(ids)} tokens, at most {self.longest} can be read")
            size = min(-(-len(ids) // _BUCKET) * _BUCKET, self.longest)
            buckets.setdefault(size, []).append(row)
        found: list[Tensor | None] = [None] * len(tokens)
        with torch.inference_mode(), self._residency.use():
            for size, rows in buckets.items():
                encode = partial(self._encode, tokens, size)
                for row, output in zip(rows, self._batches.run(encode, rows), strict=True):
                    found[row] = output
        return found

    def _encode(self, tokens: list[list[int]], size: int, rows: list[int]) -> list[Tensor]:
        padded = torch.full((len(rows), size), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(rows), size), dtype=torch.long)
        for at, row in enumerate(rows):
            padded[at, : len(tokens[row])] = torch.tensor(tokens[row])
            mask[at, : len(tokens[row])] = 1
        sent = self._place.send(padded), self._place.send(mask)
        hidden: Tensor = self._model(sent[0], attention_mask=sent[1]).last_hidden_state
        unit = functional.normalize(hidden.float(), dim=-1).cpu()
        return [unit[at, : len(tokens[row])] for at, row in enumerate(rows)]


class _Kept:
    """Embeddings by sentence, the last ones used, of at most `tokens` tokens in all."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._vectors: OrderedDict[str, Tensor] = OrderedDict()

    def take(self, sentences: Sequence[str]) -> dict[str, Tensor | None]:
        """Those of `sentences` that are kept."""
        known = [sentence for sentence in sentences if sentence in self._vectors]
        for sentence in known:
            self._vectors.move_to_end(sentence)
        return {sentence: self._vectors[sentence] for sentence in known}

    def put(self, sentence: str, vector: Tensor) -> None:
        """Keep one that is not kept yet."""
        # A copy: the rest of its batch is not to be kept with it.
        self._vectors[sentence] = vector.clone()
        self._room -= len(vector)
        while self._room < 0:
            _, oldest = self._vectors.popitem(last=False)
            self._room += len(oldest)


def _match(said: Tensor, meant: Tensor) -> Match:
    """Greedy matching: every word with its most similar word in the other sentence.

    The first and the last token are marks of the encoder. They can be matched but are not scored.
    """
    similarity = said @ meant.T
    precision = similarity.max(dim=1).values[1:-1].mean().item()
    recall = similarity.max(dim=0).values[1:-1].mean().item()
    both = precision + recall
    return Match(precision, recall, 2 * precision * recall / both if both else 0.0)


def _encoder(folder: Any, arguments: dict[str, Any]) -> Any:
    model = weights.load_model(AutoModel, folder, may_miss=("pooler.",), **arguments)
    if not hasattr(getattr(model, "encoder", None), "layer"):
        raise SetupError(f"{folder} ({type(model).__name__}) is no encoder of the BERT family")
    return model

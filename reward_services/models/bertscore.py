"""BERTScore (Zhang et al. 2020): how well the words of two sentences match, by their embeddings.

The package bert-score computes it, without IDF weights and without rescaling. Here is what it has
no means for: weights that are found, checked and placed like those of the other rewards, sentences
that have no score, the same bits in any company on a CPU, and a GPU whose memory runs out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import torch
from bert_score import BERTScorer
from torch import nn
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

_PAIRS: Final = 64
# The layer that agrees best with people, chosen by the authors of BERTScore, by architecture:
# (model type, layers) of a published encoder. For others the last layer is taken. The package has
# them by name on the hub, which a folder does not tell.
_BEST_LAYERS: Final = {("deberta", 48): 40}


@dataclass(frozen=True, slots=True)
class Match:
    """Agreement of a candidate with its reference, each at most 1."""

    precision: float
    recall: float
    f1: float


class SentenceTooLong(ValueError):
    """A sentence has more tokens than the encoder reads."""


class EmptySentence(ValueError):
    """A sentence has no word for the encoder."""


class BertScore:
    """BERTScore by the encoder called `name` (see `find_model`).

    Raises:
        SetupError: no such encoder or layer.
    """

    def __init__(self, name: str, layer: int | None, options: ModelOptions) -> None:
        folder = weights.find_model(name)
        self._place = place(options)
        self._tokenizer = weights.load(AutoTokenizer, folder)
        model = _encoder(folder, self._place.load_arguments())
        layers: int = model.config.num_hidden_layers
        self.layer = layer or _BEST_LAYERS.get((model.config.model_type, layers), layers)
        if self.layer > layers:
            raise SetupError(f"encoder_layer={self.layer}: {name} has {layers} layers")
        # bert-score takes the last layer there is; those above are not needed.
        model.encoder.layer = model.encoder.layer[: self.layer]
        positions: int = getattr(model.config, "max_position_embeddings", LONGEST)
        self.longest = min(self._tokenizer.model_max_length, positions, LONGEST)
        # bert-score cuts there. It never comes to that, but without a limit the tokenizer fails.
        self._tokenizer.model_max_length = self.longest
        self._marks = _marks(self._tokenizer, name)
        self._place.place(model)
        self._scorer = _LoadedScorer(model, self._tokenizer, self._place.device)
        self._residency = Residency([model], self._place.device, options.idle_offload_s)
        self._batches = Batches(_PAIRS, fixed=False)
        # The definition of the score is the package's, and its own hash of a score names its
        # version too: another version may be another score, which replicas must not mix.
        package = f"bert-score {version('bert-score')}"
        self.identity = (folder, f"layer {self.layer}", self._place.precision, package)

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> list[Match | None]:
        """One match per pair; None where the GPU lacks memory.

        Raises:
            SentenceTooLong: see `count_tokens`.
            EmptySentence: see `is_empty`.
        """
        pairs = list(zip(candidates, references, strict=True))
        for sentence in dict.fromkeys((*candidates, *references)):
            self._check(sentence)

        def match(rows: list[int]) -> list[Match]:
            return self._match([pairs[row] for row in rows])

        with self._residency.use():
            return self._batches.run(match, range(len(pairs)))

    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence; above `longest` it cannot be scored."""
        return len(self._tokens(sentence))

    def is_empty(self, sentence: str) -> bool:
        """Whether it has nothing but the encoder's own marks, and so no score."""
        return self._marks.issuperset(self._tokens(sentence))

    def close(self) -> None:
        """End the timer."""
        self._residency.close()

    def _tokens(self, sentence: str) -> list[int]:
        # As in bert-score, but whole.
        tokens: list[int] = self._tokenizer(sentence.strip())["input_ids"]
        return tokens

    def _check(self, sentence: str) -> None:
        """Refuse what bert-score would cut silently, or give a score of 0."""
        if (count := self.count_tokens(sentence)) > self.longest:
            raise SentenceTooLong(f"{count} tokens, at most {self.longest} can be read")
        if self.is_empty(sentence):
            raise EmptySentence("a sentence without words has no score")

    def _match(self, pairs: list[tuple[str, str]]) -> list[Match]:
        candidates, references = [list(each) for each in zip(*pairs, strict=True)]
        # In a batch of its own nothing is padded, so no other sentence moves the last bits.
        size = 1 if self._place.exact else len(pairs)
        columns = self._scorer.score(candidates, references, batch_size=size)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Match(precision, recall, f1) for precision, recall, f1 in rows]


class _LoadedScorer(BERTScorer):  # type: ignore[misc]
    """A `BERTScorer` around a model that is loaded already.

    Its own constructor loads by name: in fp32, from the hub if need be, missing weights made up,
    and as a T5 whatever has "t5" in its path. What `score` reads is therefore set here. Should
    another version name these otherwise, the warm-up fails with an AttributeError.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, device: torch.device) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.device = device
        self.all_layers = self._idf = self._rescale_with_baseline = False


def _encoder(folder: Any, arguments: dict[str, Any]) -> Any:
    model = weights.load_model(AutoModel, folder, may_miss=("pooler.",), **arguments)
    if not hasattr(getattr(model, "encoder", None), "layer"):
        raise SetupError(f"{folder} ({type(model).__name__}) is no encoder of the BERT family")
    return model


def _marks(tokenizer: Any, name: str) -> set[int]:
    """The tokens that bert-score does not count, being marks of the encoder."""
    marks = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    if None in marks or tokenizer.pad_token_id is None:
        raise SetupError(f"{name}: its tokenizer lacks a CLS, SEP or PAD token")
    return marks

"""BERTScore: known numbers, the same bits in every batch, and no score for what has none."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bert_score.utils import model2layers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn.functional import normalize
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    DebertaConfig,
    DebertaModel,
    PreTrainedTokenizerFast,
)

from reward_services.models.bertscore import (
    DEFAULT_ENCODER,
    BertScore,
    EmptySentence,
    SentenceTooLong,
)
from reward_services.models.model_options import ModelOptions
from reward_services.models.placement import Placement
from reward_services.models.weights import find_model
from reward_services.options import SetupError
from tests.reward_services.learned.conftest import MINILM

OPTIONS = ModelOptions(device="cpu")
PAIRS = [
    ("a cat", "The image contains a cat"),
    ("a cat", "The image contains a dog"),
    ("A cat is riding a bicycle on a hill.", "The image contains a dog riding a bike"),
    ("dishes", "The image contains an ant washing the dishes"),
    ("…?!", "The image contains a bee"),
    ("two lions, three tigers and " * 12, "The image contains three tigers"),
    ("The image contains a cat", "The image contains a cat"),
]
CANDIDATES, REFERENCES = [list(each) for each in zip(*PAIRS, strict=True)]
# Precision, recall and F1 of PAIRS by MiniLM, per layer, in fp32 on a CPU: what this project's own
# BERTScore gave, up to commit 6fc15b8, which was written from the paper and agreed with bert-score.
KNOWN = {
    6: [
        (0.8566055, 0.6446447, 0.7356618),
        (0.4718128, 0.3970796, 0.4312323),
        (0.5123725, 0.5196930, 0.5160068),
        (0.7962269, 0.3449931, 0.4814019),
        (0.1236276, 0.1042720, 0.1131279),
        (0.6064464, 0.5553147, 0.5797554),
        (1.0000000, 1.0000000, 1.0000000),
    ],
    4: [
        (0.8333120, 0.5839384, 0.6866858),
        (0.6586837, 0.5378847, 0.5921866),
        (0.7403457, 0.6979637, 0.7185302),
        (0.8750054, 0.4360371, 0.5820327),
        (0.1194407, 0.1106806, 0.1148939),
        (0.4700426, 0.4812210, 0.4755662),
        (1.0000000, 1.0000000, 1.0000000),
    ],
}


@pytest.fixture(scope="module")
def scorer() -> BertScore:
    return BertScore(MINILM, None, OPTIONS)


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeBERTa with 48 layers and, as published, a tokenizer that states no limit."""
    folder = tmp_path_factory.mktemp("deberta")
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    words = Tokenizer(models.BPE(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    words.train_from_iterator([text for pair in PAIRS for text in pair], trainer)
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, **dict(zip(names, special, strict=True))
    )
    assert tokenizer.model_max_length > 10**20
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = DebertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=48,
        num_attention_heads=2,
        intermediate_size=32,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
    )
    DebertaModel(config).save_pretrained(folder)
    return folder


def numbers(scorer: BertScore) -> list[tuple[float, float, float]]:
    matches = scorer.score(CANDIDATES, REFERENCES)
    return [(m.precision, m.recall, m.f1) for m in matches if m is not None]


def by_definition(folder: Path, layer: int) -> list[tuple[float, float, float]]:
    """Zhang et al. 2020, §3, by the embeddings of one layer of the whole model."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), DebertaModel.from_pretrained(folder)

    def embed(sentence: str) -> torch.Tensor:
        ids = tokenizer(sentence.strip(), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            hidden = model(ids, output_hidden_states=True).hidden_states[layer][0]
        return normalize(hidden, dim=-1)

    rows = []
    for candidate, reference in PAIRS:
        similarity = embed(candidate) @ embed(reference).T
        precision = similarity.max(dim=1).values[1:-1].mean().item()
        recall = similarity.max(dim=0).values[1:-1].mean().item()
        rows.append((precision, recall, 2 * precision * recall / (precision + recall)))
    return rows


@pytest.mark.parametrize("layer", [6, 4])
def test_known_numbers(layer: int) -> None:
    found = numbers(BertScore(MINILM, layer, OPTIONS))
    assert found == [pytest.approx(row, abs=2e-6) for row in KNOWN[layer]]


def test_deberta_as_published(deberta: Path) -> None:
    scorer = BertScore(str(deberta), None, OPTIONS)
    assert (scorer.layer, scorer.longest) == (40, 512)
    assert scorer.layer == model2layers[DEFAULT_ENCODER]
    expected = by_definition(deberta, 40)
    assert numbers(scorer) == [pytest.approx(row, abs=2e-6) for row in expected]


@pytest.mark.parametrize("encoder", [MINILM, "deberta"])
def test_the_same_bits_in_any_company(encoder: str, deberta: Path) -> None:
    scorer = BertScore(str(deberta) if encoder == "deberta" else encoder, None, OPTIONS)
    together = scorer.score(CANDIDATES, REFERENCES)
    alone = [scorer.score([said], [meant])[0] for said, meant in PAIRS]
    turned = scorer.score(CANDIDATES[::-1], REFERENCES[::-1])[::-1]
    assert together == alone == turned


def test_the_same_bits_among_more_pairs_than_a_pass_takes(scorer: BertScore) -> None:
    sentences = [f"{count} {animal}" for count in range(40) for animal in ("cats", "dogs")]
    references = [f"The image contains {sentence}" for sentence in sentences]
    together = scorer.score(sentences, references)
    assert len(together) == 80
    pairs = list(zip(sentences, references, strict=True))
    for some in (slice(0, 5), slice(62, 66)):
        alone = [scorer.score([said], [meant])[0] for said, meant in pairs[some]]
        assert together[some] == alone


def test_pairs_go_in_batches_where_bits_may_differ(
    scorer: BertScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = numbers(scorer)
    monkeypatch.setattr(Placement, "exact", False)
    assert numbers(scorer) == [pytest.approx(row, abs=1e-3) for row in exact]


def test_memory_that_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = BertScore(MINILM, None, OPTIONS)
    expected = scorer.score(CANDIDATES, REFERENCES)
    monkeypatch.setattr(Placement, "exact", False)

    def lack(_module: nn.Module, given: tuple[torch.Tensor]) -> None:
        """Room for two sentences, and for none of more than 50 tokens."""
        if given[0].shape[0] > 2 or given[0].shape[1] > 50:
            raise torch.OutOfMemoryError

    scorer._scorer._model.register_forward_pre_hook(lack)
    assert None not in scorer.score(CANDIDATES[:5], REFERENCES[:5])
    assert scorer._batches.size == 2
    matches = scorer.score(CANDIDATES, REFERENCES)
    assert [match is None for match in matches] == [False] * 5 + [True, False]
    for match, exact in zip(matches, expected, strict=True):
        if match is not None and exact is not None:
            assert match.recall == pytest.approx(exact.recall, abs=1e-3)


def test_better_matches_score_higher(scorer: BertScore) -> None:
    matches = [match.recall for match in scorer.score(CANDIDATES, REFERENCES) if match]
    right, wrong = matches[0], matches[1]
    assert right > wrong
    assert matches[-1] == pytest.approx(1, abs=1e-5)


def test_spaces_around_a_sentence_do_not_matter(scorer: BertScore) -> None:
    (padded,) = scorer.score(["  a cat \n"], [" The image contains a cat "])
    assert padded == scorer.score(["a cat"], ["The image contains a cat"])[0]


def test_nothing_to_score(scorer: BertScore) -> None:
    assert scorer.score([], []) == []


def test_a_sentence_that_is_too_long(scorer: BertScore) -> None:
    fits, long = "cat " * 510, "cat " * 511
    assert scorer.count_tokens(fits) == scorer.longest == 512
    assert scorer.count_tokens(long) > scorer.longest
    assert scorer.score([fits], ["a cat"])[0] is not None
    with pytest.raises(SentenceTooLong, match="513 tokens, at most 512"):
        scorer.score([long], ["a cat"])


def test_a_sentence_that_is_too_long_for_a_tokenizer_without_a_limit(deberta: Path) -> None:
    scorer = BertScore(str(deberta), None, OPTIONS)
    fits = "! " * 255
    assert 500 < scorer.count_tokens(fits) <= scorer.longest
    assert scorer.score(["a cat"], [fits])[0] is not None
    with pytest.raises(SentenceTooLong, match=r"1\d\d\d tokens, at most 512"):
        scorer.score(["a cat"], ["! " * 600])


def test_the_last_word_of_the_longest_sentence_counts(scorer: BertScore) -> None:
    first, second = ("cat " * 509 + last for last in ("dog", "bee"))
    assert scorer.count_tokens(first) == scorer.count_tokens(second) == scorer.longest
    matches = scorer.score([first, second], ["a dog", "a dog"])
    assert matches[0] != matches[1]


@pytest.mark.parametrize("nothing", ["", " \n", "\u200b", "[SEP]"])
def test_a_sentence_without_words(nothing: str, scorer: BertScore) -> None:
    assert scorer.is_empty(nothing)
    assert not scorer.is_empty("!")
    for pair in ((nothing, "a cat"), ("a cat", nothing)):
        with pytest.raises(EmptySentence):
            scorer.score(["a dog", pair[0]], ["a dog", pair[1]])


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(SetupError, match=r"encoder_layer=7: .+ has 6 layers"):
        BertScore(MINILM, 7, OPTIONS)


def test_a_model_that_is_no_encoder(clip_folder: Path) -> None:
    with pytest.raises(SetupError, match="is no encoder of the BERT family"):
        BertScore(str(clip_folder), None, OPTIONS)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    """bert-score's own way of loading would fill them with random numbers."""
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(find_model(MINILM)).save_pretrained(tmp_path)
    BertScore(str(tmp_path), None, OPTIONS)
    config.num_hidden_layers = 2
    config.save_pretrained(tmp_path)
    with pytest.raises(SetupError, match=r"lacks \d+ weights of AutoModel, such as encoder"):
        BertScore(str(tmp_path), None, OPTIONS)


def test_a_tokenizer_that_lacks_a_mark(deberta: Path, tmp_path: Path) -> None:
    """bert-score would count the ends of a sentence as words."""
    DebertaModel.from_pretrained(deberta).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(deberta)
    tokenizer.cls_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SetupError, match="lacks a CLS, SEP or PAD token"):
        BertScore(str(tmp_path), None, OPTIONS)


def test_only_this_reward_loads_the_package() -> None:
    names = ("aesthetic", "clip_score", "pickscore", "llava_vqa", "llava_bertscore")
    *others, mine = [f"import reward_services.scorers.{name}" for name in names]
    loaded = "print('bert_score' in sys.modules)"
    code = "\n".join(["import sys", *others, loaded, mine, loaded])
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]


def test_what_decides_the_score_is_in_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    identities: list[tuple[Any, ...]] = [
        BertScore(MINILM, layer, OPTIONS.model_copy(update={"dtype": dtype})).identity
        for layer, dtype in [(None, "auto"), (6, "fp32"), (5, "fp32"), (6, "bf16")]
    ]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3
    monkeypatch.setattr("reward_services.models.bertscore.version", lambda _: "0.3.14")
    assert BertScore(MINILM, None, OPTIONS).identity not in identities

"""BERTScore: the numbers of the package bert-score, and the same bits in every batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import DebertaConfig, DebertaModel, PreTrainedTokenizerFast

from reward_services.models.bertscore import LONGEST, BertScore, SentenceTooLong, _Kept
from reward_services.models.model_options import ModelOptions
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


def fresh(scorer: BertScore, tokens: int = 10_000) -> BertScore:
    """The same with nothing kept from before."""
    scorer._kept = _Kept(tokens)
    return scorer


def published(folder: Path, layers: int) -> list[tuple[float, float, float]]:
    """Precision, recall and F1 by bert-score, the limit set that its tokenizer lacks.

    One pair at a time: beside a longer sentence it pads with zeros, which for a model with random
    weights are more similar than its words.
    """
    from bert_score import BERTScorer

    scorer = BERTScorer(str(folder), num_layers=layers, device="cpu", use_fast_tokenizer=True)
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, LONGEST)
    rows = [scorer.score([candidate], [reference]) for candidate, reference in PAIRS]
    return [(p.item(), r.item(), f.item()) for p, r, f in rows]


def ours(scorer: BertScore) -> list[tuple[float, float, float]]:
    matches = scorer.score(CANDIDATES, REFERENCES)
    return [(m.precision, m.recall, m.f1) for m in matches if m is not None]


@pytest.mark.parametrize("layer", [6, 4])
def test_the_numbers_of_bert_score(layer: int) -> None:
    expected = published(find_model(MINILM), layer)
    found = ours(BertScore(MINILM, layer, OPTIONS))
    assert found == [pytest.approx(row, abs=2e-6) for row in expected]


def test_deberta_as_published(deberta: Path) -> None:
    scorer = BertScore(str(deberta), None, OPTIONS)
    assert (scorer.layer, scorer.longest) == (40, 512)
    expected = published(deberta, 40)
    assert ours(scorer) == [pytest.approx(row, abs=2e-5) for row in expected]


def test_the_same_bits_in_any_company(scorer: BertScore) -> None:
    together = fresh(scorer).score(CANDIDATES, REFERENCES)
    alone = [fresh(scorer).score([said], [meant])[0] for said, meant in PAIRS]
    turned = fresh(scorer).score(CANDIDATES[::-1], REFERENCES[::-1])[::-1]
    assert together == alone == turned == scorer.score(CANDIDATES, REFERENCES)


def test_the_same_bits_among_many_sentences_of_one_length(scorer: BertScore) -> None:
    sentences = [f"{count} {animal}" for count in range(20) for animal in ("cats", "dogs")]
    references = [f"The image contains {sentence}" for sentence in sentences]
    together = fresh(scorer).score(sentences, references)
    pairs = list(zip(sentences, references, strict=True))[:5]
    assert together[:5] == [fresh(scorer).score([said], [meant])[0] for said, meant in pairs]


def test_a_sentence_is_encoded_once_while_it_is_kept(scorer: BertScore) -> None:
    encoded: list[int] = []
    hook = scorer._model.register_forward_hook(lambda *_: encoded.append(1))
    try:
        first = fresh(scorer, tokens=30).score(["a cat"], ["The image contains a cat"])
        assert len(encoded) == 1
        assert scorer.score(["a cat"], ["The image contains a cat"]) == first
        assert len(encoded) == 1
        scorer.score(["some other words that take " + "many " * 20], ["a dog"])
        assert len(encoded) == 2
        assert scorer.score(["a cat"], ["The image contains a cat"]) == first
        assert len(encoded) == 3
    finally:
        hook.remove()
    assert sum(len(vector) for vector in scorer._kept._vectors.values()) <= 30


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


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(SetupError, match=r"encoder_layer=7: .+ has 6 layers"):
        BertScore(MINILM, 7, OPTIONS)


def test_a_model_that_is_no_encoder(clip_folder: Path) -> None:
    with pytest.raises(SetupError, match="is no encoder of the BERT family"):
        BertScore(str(clip_folder), None, OPTIONS)


def test_what_decides_the_score_is_in_the_identity() -> None:
    identities: list[tuple[Any, ...]] = [
        BertScore(MINILM, layer, OPTIONS.model_copy(update={"dtype": dtype})).identity
        for layer, dtype in [(None, "auto"), (6, "fp32"), (5, "fp32"), (6, "bf16")]
    ]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3

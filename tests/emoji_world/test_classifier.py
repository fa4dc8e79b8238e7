"""The judge: what it answers, what it keeps on disk, and what it refuses."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emoji_world.captions import all_captions
from emoji_world.classifier import (
    COUNTS,
    NOUNS,
    PHRASES,
    PictureClassifier,
    Reading,
    load_classifier,
    save_classifier,
    targets,
)
from emoji_world.dataset import PictureDataset

CAPTIONS = {caption.text: caption for caption in all_captions()}


@pytest.fixture(scope="module")
def classifier(pictures: PictureDataset) -> PictureClassifier:
    """Untrained, but with batch statistics that differ from those it starts with."""
    torch.manual_seed(0)
    model = PictureClassifier().train()
    with torch.no_grad():
        for _ in range(3):
            model(pictures.images(np.arange(32)))
    return model.eval()


def test_targets_are_the_classes_of_the_captions() -> None:
    chosen = [CAPTIONS[text] for text in ("a cat", "a bee playing chess", "four pigs")]
    nouns, phrases, counts = targets(chosen)
    assert [NOUNS[i] for i in nouns] == ["cat", "bee", "pig"]
    assert [PHRASES[i] for i in phrases] == ["", "playing chess", ""]
    assert [COUNTS[i] for i in counts] == [1, 1, 4]


def test_there_is_a_class_for_every_caption() -> None:
    nouns, phrases, counts = targets(list(CAPTIONS.values()))
    assert set(nouns.tolist()) == set(range(len(NOUNS)))
    assert set(phrases.tolist()) == set(range(len(PHRASES)))
    assert set(counts.tolist()) == set(range(len(COUNTS)))


@pytest.mark.parametrize(
    ("reading", "text", "names", "matches"),
    [
        (Reading("cat", "", 1), "a cat", True, True),
        (Reading("dog", "", 1), "a cat", False, False),
        (Reading("cat", "playing chess", 1), "a cat", True, False),
        (Reading("cat", "playing chess", 1), "a cat playing chess", True, True),
        (Reading("cat", "", 2), "two cats", True, True),
        (Reading("cat", "", 3), "two cats", True, False),
    ],
)
def test_a_reading_is_held_against_a_caption(
    reading: Reading, text: str, names: bool, matches: bool
) -> None:
    assert reading.names(CAPTIONS[text]) is names
    assert reading.matches(CAPTIONS[text]) is matches


def test_a_picture_is_read_the_same_whatever_its_batch(
    classifier: PictureClassifier, pictures: PictureDataset
) -> None:
    some = pictures.pixels[:10]
    together = classifier.read(some, batch_size=10)
    assert classifier.read(some, batch_size=3) == together
    assert [classifier.read(some[i : i + 1])[0] for i in range(10)] == together


def test_reading_takes_the_highest_logit_of_each_head(pictures: PictureDataset) -> None:
    model = PictureClassifier()
    for head, place in ((model.noun, 3), (model.phrase, 2), (model.count, 1)):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        with torch.no_grad():
            head.bias[place] = 1
    assert set(model.read(pictures.pixels[:2])) == {Reading(NOUNS[3], PHRASES[2], COUNTS[1])}


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)]
)
def test_other_shapes_and_types_are_refused(
    classifier: PictureClassifier, wrong: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    with pytest.raises(ValueError, match=r"reads uint8 \[N, 64, 64, 3\], not"):
        classifier.read(wrong)  # type: ignore[arg-type]


def test_saved_and_loaded_it_reads_the_same(
    classifier: PictureClassifier, pictures: PictureDataset, tmp_path: Path
) -> None:
    save_classifier(classifier, tmp_path)
    loaded = load_classifier(tmp_path)
    assert not loaded.training
    pixels = pictures.images(np.arange(20))
    with torch.inference_mode():
        for ours, theirs in zip(loaded(pixels), classifier(pixels), strict=True):
            torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=5e-3)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3e6


def test_batch_statistics_are_not_rounded(classifier: PictureClassifier, tmp_path: Path) -> None:
    """A variance below 6e-8 would be 0 in half precision, and one above 65504 infinite."""
    classifier = deepcopy(classifier)
    with torch.no_grad():
        classifier.state_dict()["features.1.running_var"][:2] = torch.tensor([1e-9, 1e6])
    save_classifier(classifier, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["features.0.weight"].dtype == torch.float16
    for name, tensor in classifier.state_dict().items():
        if "running" in name:
            assert torch.equal(stored[name], tensor)


def test_a_folder_without_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no picture classifier"):
        load_classifier(tmp_path)


def test_damaged_weights_are_refused(classifier: PictureClassifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="holds no picture classifier"):
        load_classifier(tmp_path)


def test_a_classifier_of_other_classes_is_refused(
    classifier: PictureClassifier, tmp_path: Path
) -> None:
    save_classifier(classifier, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["nouns"][0] = "unicorn"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="other classes"):
        load_classifier(tmp_path)

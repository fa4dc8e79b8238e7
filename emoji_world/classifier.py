"""A small classifier that says what a picture shows: the judge of the generator, never a reward."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emoji_world.captions import Caption
from emoji_world.composition import SIZE
from emoji_world.dataset import to_unit_range
from emoji_world.vocabulary import ACTIVITIES, ANIMALS, NUMBERS, OBJECTS, UNSEEN_ANIMALS

NOUNS: Final = (*ANIMALS, *UNSEEN_ANIMALS, *OBJECTS)
PHRASES: Final = ("", *(activity.phrase for activity in ACTIVITIES))
COUNTS: Final = (1, *NUMBERS)


@dataclass(frozen=True)
class Reading:
    """What the classifier sees in one picture.

    Attributes:
        noun: one of `NOUNS`.
        phrase: one of `PHRASES`; empty when nothing is being done.
        count: one of `COUNTS`.
    """

    noun: str
    phrase: str
    count: int

    def names(self, caption: Caption) -> bool:
        """Whether the noun is the caption's."""
        return self.noun == caption.noun

    def matches(self, caption: Caption) -> bool:
        """Whether noun, activity and count are all the caption's."""
        phrase = caption.activity.phrase if caption.activity else ""
        return self.names(caption) and self.phrase == phrase and self.count == caption.count


class PictureClassifier(nn.Module):
    """A convolutional network with one head each for noun, activity and count."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 32, 2), (32, 64, 1), (64, 96, 2), (96, 128, 1), (128, 192, 2), (192, 192, 1))
        layers: list[nn.Module] = []
        for inputs, outputs, stride in widths:
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.noun = nn.Linear(4 * 192, len(NOUNS))
        self.phrase = nn.Linear(4 * 192, len(PHRASES))
        self.count = nn.Linear(4 * 192, len(COUNTS))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of noun, phrase and count for pictures [N, 3, SIZE, SIZE] in [-1, 1]."""
        features = self.features(pixels)
        return self.noun(features), self.phrase(features), self.count(features)

    @torch.inference_mode()
    def read(self, pictures: NDArray[np.uint8], batch_size: int = 64) -> list[Reading]:
        """What is seen in each of ``pictures``, uint8 [N, SIZE, SIZE, 3].

        Raises:
            ValueError: the pictures have another shape or type.
        """
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(
                f"the classifier reads uint8 [N, {SIZE}, {SIZE}, 3], "
                f"not {pictures.dtype} {list(pictures.shape)}"
            )
        self.eval()
        readings = []
        for start in range(0, len(pictures), batch_size):
            logits = self(to_unit_range(np.ascontiguousarray(pictures[start : start + batch_size])))
            nouns, phrases, counts = (part.argmax(1).tolist() for part in logits)
            readings += [
                Reading(NOUNS[noun], PHRASES[phrase], COUNTS[count])
                for noun, phrase, count in zip(nouns, phrases, counts, strict=True)
            ]
        return readings


def targets(captions: list[Caption]) -> tuple[Tensor, Tensor, Tensor]:
    """Class indices of noun, phrase and count, each int64 [len(captions)]."""
    phrases = [caption.activity.phrase if caption.activity else "" for caption in captions]
    return (
        torch.tensor([NOUNS.index(caption.noun) for caption in captions]),
        torch.tensor([PHRASES.index(phrase) for phrase in phrases]),
        torch.tensor([COUNTS.index(caption.count) for caption in captions]),
    )


def save_classifier(classifier: PictureClassifier, folder: Path) -> None:
    """Write weights and class names into ``folder``.

    Weights are stored in float16. The running variances of the batch normalisation are not: one
    below 6e-8 would become 0 and one above 65504 infinite, and they are small anyway.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {"nouns": NOUNS, "phrases": PHRASES, "counts": COUNTS}
    (folder / "config.json").write_text(json.dumps(names, indent=2) + "\n")
    tensors = {
        name: tensor.half().contiguous() if name.endswith((".weight", ".bias")) else tensor
        for name, tensor in classifier.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")


def load_classifier(folder: Path) -> PictureClassifier:
    """Read a classifier that `save_classifier` wrote.

    Raises:
        ValueError: the folder holds none, or one with other classes.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no picture classifier: {error}") from error
    names = {"nouns": list(NOUNS), "phrases": list(PHRASES), "counts": list(COUNTS)}
    if config != names:
        raise ValueError(f"{folder} holds a classifier of other classes: train it again")
    classifier = PictureClassifier()
    classifier.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    )
    return classifier.eval()

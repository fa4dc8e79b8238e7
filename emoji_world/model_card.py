"""The model card, written from the records of the committed models: no number is typed by hand."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emoji_world.captions import FAMILY_SHARES, IDLE_ANIMALS, MISCAPTIONED_SHARE, all_captions
from emoji_world.classifier_training import HELD_OUT_PICTURES
from emoji_world.composition import RIGHT_SIGN_SHARE, SIGN_SHARE, SIZE
from emoji_world.denoiser import MIN_SNR_GAMMA
from emoji_world.evaluation import sheet_name
from emoji_world.generator import TEXT_LENGTH
from emoji_world.latents import CHANNELS, PATCH
from emoji_world.learned_card import learned_sections
from emoji_world.master_weights import EMA_DECAY
from emoji_world.model_records import ModelRecords, read_records, wilson_interval
from emoji_world.pretraining import CAPTION_DROPOUT
from emoji_world.quality import groups
from emoji_world.vocabulary import ACTIVITIES, ANIMALS, NUMBERS, OBJECTS, UNSEEN_ANIMALS

FAMILY_TITLES: Final = {
    "animal": "single animals of the 45",
    "unseen_animal": "further animals, never shown to RL",
    "object": "everyday objects, never shown to RL",
    "activity": "the 45 animals at the three activities",
    "activity, common": "the 45 animals at the three activities, common pairs",
    "activity, rare": "the 45 animals at the three activities, rare pairs",
    "unseen_activity": "the 45 animals at two activities never shown to RL",
    "unseen_animal_activity": "further animals at any activity",
    "count": "counted animals",
}
"""Prompt groups and caption families in words."""

ARTWORK_SOURCES: Final = {
    "noto": "Noto Emoji, Google, https://github.com/googlefonts/noto-emoji",
    "noto-v1": "Noto Emoji before its redesign, Google, https://github.com/googlefonts/noto-emoji",
    "fluent-emoji": "Fluent Emoji, Microsoft, https://github.com/microsoft/fluentui-emoji",
    "fluent-emoji-flat": "its flat style",
    "fluent-emoji-high-contrast": "its black line drawings",
}
"""Who drew each icon set."""

WEAK: Final = 0.5
"""Nouns drawn right less often than this are named as limits."""


def render_card(models: Path, lock: Path, folder: Path) -> str:
    """The model card as Markdown, its links relative to ``folder``.

    Raises:
        ValueError: something it tells of has not been recorded or measured yet.
    """
    records = read_records(models, lock)
    samples = Path(os.path.relpath(models / "training" / "samples", folder))
    sections = (
        _introduction(records),
        _quality(records, samples),
        _classifier(records),
        *learned_sections(models, FAMILY_TITLES),
        _data(records),
        _recipe(records),
        _history(models / "training" / "history.md"),
        _limits(records),
        _licence(),
    )
    return "\n".join(section for section in sections if section)


def _table(header: str, rows: list[str]) -> str:
    columns = header.count("|") - 1
    return "\n".join([header, "|" + " --- |" * columns, *rows, ""])


def _introduction(records: ModelRecords) -> str:
    pipeline = ("unet", "text_encoder", "vae")
    titles = {
        "unet": "`UNet2DConditionModel`, fp16",
        "text_encoder": "`CLIPTextModel`, fp16",
        "vae": "`AutoencoderKL`, fp32",
    }
    rows = [
        f"| `{name}` | {titles[name]} | {records.parameters[name] / 1e6:.2f} M "
        f"| {records.megabytes[name]:.1f} MB |"
        for name in pipeline
    ]
    total = sum(records.parameters[name] for name in pipeline) / 1e6
    megabytes = sum(records.megabytes[name] for name in pipeline)
    return f"""# Model card: the emoji generator

A text-to-image diffusion model of {total:.1f} M parameters ({megabytes:.0f} MB) that draws
{SIZE}×{SIZE} pictures of emoji from captions such as "an ant playing chess". It exists so that
reinforcement learning of text-to-image models can be run for real, offline, on two CPU cores. It
is a plain `StableDiffusionPipeline` folder:

```python
import torch
from diffusers import StableDiffusionPipeline

folder = "emoji_world/models/diffusion"
pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
pipeline("a fox riding a motorcycle", guidance_scale=5.0).images[0].save("fox.png")
```

{_table("| folder | class | parameters | weights |", rows)}
Latents are {SIZE // PATCH}×{SIZE // PATCH}×{CHANNELS}, prompts at most {TEXT_LENGTH - 2} words,
the noise schedule is that of Stable Diffusion 1.4. This card is written by
`python -m emoji_world card` from the files in `emoji_world/models/training/`.
"""


def _quality(records: ModelRecords, samples: Path) -> str:
    measured = records.quality
    rows = []
    sheets = []
    for name, group in _groups(records).items():
        low, high = wilson_interval(group["noun"], group["samples"])
        rows.append(
            f"| {FAMILY_TITLES[name]} | {group['samples']} | **{group['noun']:.0%}** "
            f"({low:.0%} to {high:.0%}) | {group['whole']:.0%} |"
        )
        sheets.append(
            f"### Samples: {FAMILY_TITLES[name]}\n\n"
            f"![{FAMILY_TITLES[name]}]({(samples / sheet_name(name)).as_posix()})\n"
        )
    return f"""## How good it is

Samples at guidance {measured["guidance"]:g}, {measured["steps"]} DDIM steps, eta 1, seed
{measured["seed"]}, judged by the picture classifier described below: {measured["per_prompt"]}
samples of each of the {len(ANIMALS)} animals, and {measured["others"]} of each other group, spread
over its prompts. "Everything right" means noun, activity and count. In brackets the 95 % interval.

{_table("| prompts | samples | noun right | everything right |", rows)}
Guessing the noun would be right in {1 / _noun_count():.1%} of the cases. Rare pairs are meant to
fail: they leave something to learn.

The sheets below show the first samples of each prompt, not the best; a red caption means that the
classifier reads something else.

{chr(10).join(sheets)}"""


def _groups(records: ModelRecords) -> dict[str, Mapping[str, Any]]:
    """The measured groups in the order of `FAMILY_TITLES`; each must be there."""
    measured = records.quality["groups"]
    missing = set(groups()) - set(measured)
    if missing:
        raise ValueError(f"quality.json lacks {sorted(missing)}: evaluate the generator again")
    return {name: measured[name] for name in FAMILY_TITLES if name in measured}


def _noun_count() -> int:
    return len({caption.noun for caption in all_captions()})


def _classifier(records: ModelRecords) -> str:
    rows = [
        f"| {FAMILY_TITLES[family]} | {share:.1%} |" for family, share in records.accuracy.items()
    ]
    return f"""## The judge

`emoji_world/models/classifier`: a convolutional network of
{records.parameters["classifier"] / 1e6:.2f} M parameters ({records.megabytes["classifier"]:.1f} MB)
that reads noun, activity and count. It was trained on freshly drawn pictures, blurred and noised a
little, and is never used as a reward. What it reads entirely right of {HELD_OUT_PICTURES} further
real pictures of each family:

{_table("| pictures | everything right |", rows)}
These are new compositions (background, place, tilt, style) of the icons it was trained on; it has
never been tested on other artwork.
"""


def _data(records: ModelRecords) -> str:
    sets = [
        f"| `@iconify-json/{package.style}` {package.version} | {package.licence} "
        f"| {ARTWORK_SOURCES[package.style]} |"
        for package in records.artwork
    ]
    captions = all_captions()
    families = [
        f"| {FAMILY_TITLES[family]} | {sum(c.family == family for c in captions)} | {share:.0%} |"
        for family, share in FAMILY_SHARES.items()
    ]
    seen = ", ".join(f'"{activity.phrase}"' for activity in ACTIVITIES if activity.seen)
    unseen = ", ".join(f'"{activity.phrase}"' for activity in ACTIVITIES if not activity.seen)
    return f"""## Data

{records.dataset["pictures"]:,} pictures, drawn by this package from permissively licensed emoji on
white, pastel and patterned backgrounds. No photographs, no people, nothing from the web beyond
these five icon sets:

{_table("| package | licence | artwork |", sets)}
The artwork is a pinned dependency and is not part of this repository. {len(captions)} captions:

{_table("| captions | how many | share of the pictures |", families)}
The activities are {seen}; not shown to RL: {unseen}. The pairs of
{len(IDLE_ANIMALS)} of the {len(ANIMALS)} animals ({", ".join(IDLE_ANIMALS)}) with an
activity are rare: of the pictures with their captions, {MISCAPTIONED_SHARE:.0%} show something
else, the animal alone or another animal at the activity, as captions of web pictures often name
what is not to be seen.
Counts go from two to {list(NUMBERS.values())[-1]}. Beside {SIGN_SHARE:.0%} of the counted animals
stands a keycap digit, which tells the right number in {RIGHT_SIGN_SHARE:.0%} of the cases.
"""


def _recipe(records: ModelRecords) -> str:
    plan, last = records.plan, records.log[-1]
    return f"""## Training

- Latent space: the encoder is set by hand to the {CHANNELS} leading principal components of
  {PATCH}×{PATCH} patches, so latents are known before anything is trained. Only the decoder was
  trained: {records.decoder["psnr_db"]:.1f} dB on pictures it has not seen.
- UNet and text encoder: noise prediction, Min-SNR weights (γ = {MIN_SNR_GAMMA:g}), captions dropped
  with probability {CAPTION_DROPOUT:g}, stratified timesteps, AdamW at {plan["learning_rate"]:g},
  weights averaged with decay {EMA_DECAY:g}, bfloat16 with float32 master weights.
- {last["samples"]:,} samples in {last["step"]:,} steps of {plan["batch_size"]} pictures on each of
  {plan["processes"]} CPU processes, one thread each; {records.seconds / 3600:.1f} hours. Seed
  {plan["seed"]}.
- Loss at the end {last["loss"]:.4f}; on pictures never trained on {last["validation_loss"]:.4f}
  (before averaging). The whole log is in `emoji_world/models/training/log.jsonl`.

How to repeat it is in `emoji_world/README.md`.
"""


def _history(path: Path) -> str:
    """What no record tells of how these weights came about, written by hand; may be empty."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _limits(records: ModelRecords) -> str:
    weak = sorted(
        (share, noun)
        for name in ("animal", "unseen_animal", "object")
        for noun, share in _groups(records)[name]["by_noun"].items()
        if share < WEAK
    )
    named = ", ".join(f"{noun} ({share:.0%})" for share, noun in weak)
    return f"""## Limits

- It knows {len(ANIMALS)} + {len(UNSEEN_ANIMALS)} animals, {len(OBJECTS)} objects,
  {len(ACTIVITIES)} activities and the numbers up to {list(NUMBERS.values())[-1]}, in the word order
  of its training captions, in English. Other words are split into pieces it has never seen.
- Single things it draws right less than half of the time: {named or "none"}.
- Many animals are drawn as faces, because the icon sets draw them so.
- An activity is an animal beside or above a thing, as in its pictures: nobody holds a sponge.
- The percentages are the verdict of a small classifier that was trained on the same artwork. It
  can be fooled, and it must not be used as a reward.
- The weights of the autoencoder must stay in float32: its encoder subtracts large constants.
- It is an instrument for experiments, of no use for making pictures.
"""


def _licence() -> str:
    return """## Licence

Apache-2.0, as the code. The artwork that it was trained on is by Google (Apache-2.0) and Microsoft
(MIT); their notices are in `NOTICE`.
"""

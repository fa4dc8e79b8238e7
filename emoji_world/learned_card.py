"""The model card's sections on the learned rewards, written from the records of their exam."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from emoji_world.captioner_training import HINT_WEIGHT
from emoji_world.clip_model import COLOUR_TEXT, HEAD_FILE, LINE_ART_TEXT, PROJECTION
from emoji_world.clip_training import HEAD_PICTURES
from emoji_world.fresh_pictures import RIGHT_SIGN_SHARE, ROUND_TRIP_SHARE, SIGN_SHARE
from emoji_world.model_records import log_rows, read_json, weights_file, weights_parameters
from emoji_world.questions import DESCRIPTION, SPECIES, count_question
from emoji_world.vision_tower import PATCH
from emoji_world.vocabulary import COUNTED_ANIMALS

SIGN_TITLES: Final = {
    "none": "no digit",
    "right": "a digit that tells the right number",
    "misleading": "a digit that tells a wrong number",
}
"""The kinds of number signs in words."""

_DRAWING: Final = (
    f"on pictures drawn anew for every step, blurred and noised, {ROUND_TRIP_SHARE:.0%} of them "
    "through the autoencoder of the generator, every pair of animal and activity about equally "
    "often"
)


def learned_sections(models: Path, titles: Mapping[str, str]) -> Sequence[str]:
    """The sections on ``clip`` and ``captioner`` in ``models``; none while they are not there.

    Args:
        models: the folder of all models.
        titles: caption families and prompt groups in words.

    Raises:
        ValueError: a model is there, and a record of it is missing.
    """
    if not (models / "clip").is_dir() and not (models / "captioner").is_dir():
        return ()
    return _captioner(models, titles), _clip(models, titles)


def _percent_rows(rows: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """One line of a table for each row: its title, and its numbers, shares as percentages."""
    return "\n".join(
        f"| {titles[name]} | "
        + " | ".join(f"{n:.1%}" if isinstance(n, float) else f"{n}" for n in row.values())
        + " |"
        for name, row in rows.items()
    )


def _weights(models: Path, name: str) -> str:
    file = weights_file(models / name)
    millions = weights_parameters(file) / 1e6
    return f"{millions:.2f} M parameters, {file.stat().st_size / 1e6:.1f} MB in fp16"


def _training(models: Path, name: str) -> str:
    folder = models / "training" / name
    plan, rows = read_json(folder / "plan.json", name), log_rows(folder / "log.jsonl", name)
    last = rows[-1]
    return (
        f"{last['step']:,} steps of {plan['batch_size']} pictures, AdamW at "
        f"{plan['learning_rate']:g}, seed {plan['seed']}; loss at the end {last['loss']:.4f}, on "
        f"pictures never trained on {last['validation_loss']:.4f} (before averaging)"
    )


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False)


def _captioner(models: Path, titles: Mapping[str, str]) -> str:
    exam = read_json(models / "training" / "captioner" / "quality.json", "examine")
    signs = {
        kind: {key: value for key, value in row.items() if key != "by_count"}
        for kind, row in exam["signs"].items()
    }
    by_count = "\n".join(
        f"- {SIGN_TITLES[kind]}: "
        + ", ".join(f"{word} {right:.0%}" for word, right in row["by_count"].items())
        for kind, row in exam["signs"].items()
    )
    plan, absent = exam["plan"], exam["signs"]["none"]["count_of_absent"]
    introduction = f"""`emoji_world/models/captioner`: a `LlavaForConditionalGeneration` with its
        processor, built as LLaVA 1.5 is, {_weights(models, "captioner")}. It answers three
        questions in the prompt of LLaVA 1.5, and nothing else:"""
    training = f"""It was trained {_DRAWING}: {_training(models, "captioner")}. Beside the
        answers the mean of what the language model sees of a picture had to tell noun, activity and
        count through three linear maps, thrown away since; the loss has {HINT_WEIGHT:g} of theirs.
        {SIGN_SHARE:.0%} of its counting pictures showed a digit, {RIGHT_SIGN_SHARE:.0%} of those
        the right one. Its vision transformer has patches of {PATCH} pixels and gives its last
        layer, where LLaVA 1.5 takes the last but one. It was never trained on generated pictures,
        nor on what the classifier says."""
    return f"""## The caption model

{_paragraph(introduction)}

- "{DESCRIPTION}" with the caption;
- "{SPECIES}" with the noun, or "none";
- "{count_question("cat")}" with a number word from "zero" to "six", for the
  {len(COUNTED_ANIMALS)} counted animals.

{_paragraph(training)}

Real pictures that it was not trained on: caption right word for word, and animal named right.

| pictures | number | caption | animal |
| --- | --- | --- | --- |
{_percent_rows(exam["families"], titles)}

Counted animals, and what stands beside them. "Absent" asks for another animal, the answer being
"zero"; "read the sign" is the share of pictures where the digit is answered, and is wrong.

| beside them | number | caption | count | count of an absent one | read the sign |
| --- | --- | --- | --- | --- | --- |
{_percent_rows(signs, SIGN_TITLES)}

How many, answered right by the true number:

{by_count}

Asked for an animal that is not there, it says "zero" of {absent:.0%} of the pictures without a
digit; of the others it says how many of whatever is there.

Generated pictures (guidance {plan["guidance"]:g}, {plan["steps"]} steps, seed {plan["seed"]}):
where it says the very prompt, where the classifier sees the prompt, and where both see the same.

| prompts | samples | caption is the prompt | classifier sees the prompt | both agree |
| --- | --- | --- | --- | --- |
{_percent_rows(exam["samples"], titles)}
"""


def _clip(models: Path, titles: Mapping[str, str]) -> str:
    exam = read_json(models / "training" / "clip" / "quality.json", "examine")
    taste = exam["taste"]
    introduction = f"""`emoji_world/models/clip`: a `CLIPModel` with its processor,
        {_weights(models, "clip")}, whose features have {PROJECTION} dimensions. Its vision
        transformer began as that of the caption model. It was trained by contrast {_DRAWING}, each
        caption as a line drawing and in colour, with texts such as "a cat",
        "{LINE_ART_TEXT.format("a cat")}" and "{COLOUR_TEXT.format("a cat")}":
        {_training(models, "clip")}. Another picture with the same caption was no wrong answer.
        Real pictures that it was not trained on and that lie nearest to their own of all
        {exam["captions"]} captions:"""
    head = f"""`{HEAD_FILE}` beside it is an aesthetic head of the shape of the LAION predictor, in
        fp32. Nobody has rated these pictures, so its taste is made up and says nothing of beauty:
        2.5, plus 1.5 for a line drawing, plus 3 times the greyness, which is 1 for black, white
        and grey and 0 for pure colours. It was fitted to {HEAD_PICTURES:,} pictures, half of them
        line drawings. On {taste["pictures"]:,} others it correlates with that rule by
        r = {taste["correlation"]:.2f}, and rates line drawings {taste["line_art"]:.2f} and the
        rest {taste["colour"]:.2f} on average."""
    return f"""## The CLIP model and its aesthetic head

{_paragraph(introduction)}

| pictures | number | caption |
| --- | --- | --- |
{_percent_rows(exam["families"], titles)}

It tells line drawings from pictures in colour in {exam["style"]:.1%} of the cases. Generated
pictures that lie nearest to their own prompt:

| prompts | samples | prompt |
| --- | --- | --- |
{_percent_rows(exam["samples"], titles)}

{_paragraph(head)}
"""

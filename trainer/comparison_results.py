"""What `ddpo evaluate` finds, as numbers: `results.json`, and a table for a person.

Every model draws from the same prompts and noise, so a checkpoint is compared with the base model
picture by picture. The interval of the mean difference is as a rule narrower than those of the two
means, since what a prompt or a noise brings along is in both and cancels.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from shared.schema import Identity
from trainer.charts import number
from trainer.gallery import Measured, interval

BASE = "base"
"""Name of the model as it was before training."""


class Difference(BaseModel):
    """A checkpoint's scores less the base model's, over the n pictures that have both.

    Attributes:
        mean: of the differences.
        ci95: ends of the 95 % interval of that mean (normal approximation).
        n: how many differences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    ci95: tuple[float, float]
    n: int


class Judged(Measured):
    """What one reward says of the pictures of one model.

    Attributes:
        n: how many of them have a score.
        difference: from the base model; None for itself, and where fewer than two pictures have
            both scores.
    """

    n: int
    difference: Difference | None = None


class PromptSetResults(BaseModel):
    """What was found on one prompt set.

    Attributes:
        source: the set or file, as it was asked for.
        prompts: N prompts, in the order of the scores.
        rewards: reward → model → what it says; the base model first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    prompts: list[str]
    rewards: dict[str, dict[str, Judged]]


class Results(BaseModel):
    """All of `results.json`.

    Attributes:
        run: name of the run.
        samples, seed: pictures of each model per prompt set, and the seed of their noise.
        steps, eta, guidance_scale: how they were drawn.
        identities: reward → what its service is.
        prompt_sets: name of each prompt set and what was found on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    samples: int
    seed: int
    steps: int
    eta: float
    guidance_scale: float
    identities: dict[str, Identity]
    prompt_sets: dict[str, PromptSetResults]


def compared(by_model: Mapping[str, Measured]) -> dict[str, Judged]:
    """What one reward says of every model, each compared with `BASE`, which must be among them."""
    base = by_model[BASE]
    return {
        model: Judged(
            **measured.model_dump(),
            n=sum(score is not None for score in measured.scores),
            difference=None if model == BASE else difference(base, measured),
        )
        for model, measured in by_model.items()
    }


def difference(base: Measured, other: Measured) -> Difference | None:
    """The mean of the paired differences `other` − `base`; None with fewer than two pairs."""
    pairs = zip(base.scores, other.scores, strict=True)
    each = [after - before for before, after in pairs if before is not None and after is not None]
    if len(each) < 2:
        return None
    mean, low, high = interval(each)
    return Difference(mean=mean, ci95=(low, high), n=len(each))


_HEAD = ("prompts", "reward", "model", "n", "mean", "95 % interval", "change", "95 % interval")


def table(results: Results) -> str:
    """The means and changes in lines of equal columns; `change` is from the base model."""
    rows = [_HEAD]
    for name, found in results.prompt_sets.items():
        for reward, by_model in found.rewards.items():
            identity = results.identities[reward]
            kind = f"{reward} ({identity.units}, {identity.direction})"
            rows += [(name, kind, model, *_cells(judged)) for model, judged in by_model.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _cells(judged: Judged) -> tuple[str, str, str, str, str]:
    change = judged.difference
    return (
        str(judged.n),
        number(judged.mean),
        _ends(judged.ci95),
        "" if change is None else _signed(change.mean),
        "" if change is None else " to ".join(map(_signed, change.ci95)),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if place < 3 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _ends(ci95: tuple[float, float]) -> str:
    return " to ".join(map(number, ci95))


def _signed(value: float) -> str:
    return number(value) if value < 0 else f"+{number(value)}"

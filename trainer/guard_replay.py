"""`ddpo guard`: what the guard says of a run's evaluations, afterwards.

Nothing is drawn, scored or changed, so a rule can be tried on runs that are there: does it stop
those that fell, and none that were well?
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainer import checkpoints
from trainer.config import load_config
from trainer.gallery import Evaluation, Spread, load_all
from trainer.guard import Verdict, verdicts
from trainer.picture_health import picture_health
from trainer.run_folder import RunFolder
from trainer.stops import RunStopped

_HEAD = f"{'epoch':>5}  {'level':>7}  {'drop':>7}  {'at least':>8}  {'best':>5}"


def replay(run: Path, overrides: Sequence[str] = ()) -> list[Verdict]:
    """Judge the evaluations of a run as its guard would have.

    Args:
        run: folder of a run, finished or not, with or without a guard.
        overrides: `guard.key=value`, other settings than the run's own.

    Returns:
        One verdict per evaluation, also of those after the run should have ended.

    Raises:
        RunStopped: there is no run, it has no monitor that tells its pictures apart, or a setting
            is wrong.
    """
    folder = RunFolder(run)
    folder.require_run()
    guard = load_config(folder.config, overrides).guard
    evaluations = [_with_health(*shot) for shot in load_all(folder.evaluation)]
    found = verdicts(evaluations, _directions(folder), guard) if evaluations else []
    if not found:
        raise RunStopped(
            f"nothing in {folder.evaluation} can be judged: no monitor is in every evaluation and "
            "tells its pictures apart; train with --monitor NAME=URL and evaluation.every=1"
        )
    return found


def told(found: Sequence[Verdict]) -> str:
    """Verdicts in lines of equal columns, and a last line with what comes of them."""
    lines = [_HEAD]
    for each in found:
        word = "over" if each.over else "falling" if each.falling else ""
        numbers = f"{each.level:+7.2f}  {each.drop:7.2f}  {each.drop_low:8.2f}"
        lines.append(f"{each.epoch:5}  {numbers}  {each.best_epoch:5}  {word}".rstrip())
        lines += [f"       {warning}" for warning in each.unhealthy]
    stop = next((each for each in found if each.over), None)
    if stop is None:
        lines.append(f"no stop; best after epoch {found[-1].best_epoch}")
    else:
        lines.append(
            f"stop after epoch {stop.epoch}, at a level of {stop.level:+.2f}, with the weights "
            f"after epoch {stop.best_epoch}, at {stop.best_level:+.2f}"
        )
    return "\n".join(lines)


def _directions(folder: RunFolder) -> dict[str, str]:
    """Monitor → direction, from the summary, or while there is none from the newest checkpoint.

    Raises:
        RunStopped: there is neither.
    """
    if folder.summary.exists():
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
        return {name: said["direction"] for name, said in summary["monitors"].items()}
    state = checkpoints.load_run_state(checkpoints.found(folder.checkpoints))
    return {name: identity.direction for name, identity in state.identities.items()}


def _with_health(evaluation: Evaluation, paths: Sequence[Path]) -> Evaluation:
    """An old evaluation with what its pictures show; their latents are lost."""
    if evaluation.health:
        return evaluation
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    health = picture_health(np.stack(pictures), np.array([]), evaluation.prompts)
    return evaluation.model_copy(
        update={"health": {name: Spread.of(values) for name, values in health.items()}}
    )

"""The guard at work: what a run does about the verdicts on its evaluations.

Every verdict follows from the evaluations on the disk, so a run that was killed and resumed comes
to the same ones.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer import checkpoints, gallery
from trainer.guard import Verdict, verdicts
from trainer.run import Run
from trainer.run_folder import RunFolder
from trainer.stops import RunStopped


def watch(run: Run) -> Verdict | None:
    """Judge the evaluation of this moment, if there is one, and keep the checkpoint of the best.

    Args:
        run: between two epochs; its `best_epoch` is set.

    Returns:
        The verdict when the run has to end here, else None.
    """
    if run.config.guard.action == "off":
        return None
    verdict = run.processes.from_main(lambda: _judged(run))
    return Verdict(**verdict) if verdict else None


def _judged(run: Run) -> dict[str, Any] | None:
    """The verdict of `watch` as JSON; in the main process alone."""
    guard = run.config.guard
    evaluations = [
        evaluation
        for evaluation, _ in gallery.load_all(run.folder.evaluation)
        if evaluation.epoch <= run.epoch  # a killed process may have been further
    ]
    found = verdicts(evaluations, _directions(run), guard)
    run.best_epoch = found[-1].best_epoch if found else 0
    if not evaluations or evaluations[-1].epoch != run.epoch:
        return None
    over = bool(found) and found[-1].epoch == run.epoch and found[-1].over
    if over or run.best_epoch == run.epoch:
        run.save(run.moment())
    if not found or found[-1].epoch != run.epoch:
        run.terminal.say("guard: no monitor tells the pictures of every evaluation apart")
        return None
    _say(run, found[-1])
    return asdict(found[-1]) if over and guard.action == "stop" else None


def deliver(run: Run, stopped: Verdict | None) -> tuple[Path, int]:
    """Write the weights that the run was for: those it ends with, or those of its best evaluation.

    Args:
        run: a run that trains no more. After a stop its policy is that of the best evaluation.
        stopped: why the guard ended it, or None; the weights it ended with are then in `last/`.

    Returns:
        The file or folder written, and the epoch after which the model had these weights.
    """
    shutil.rmtree(run.folder.last, ignore_errors=True)
    if stopped is None:
        return _written(run, run.folder), run.epoch
    try:
        best = checkpoints.load(checkpoints.found(run.folder.checkpoints, stopped.best_epoch))
    except RunStopped as gone:  # deleted, or the guard was turned on too late to keep it
        run.terminal.say(f"guard: the weights are those of the end, as {gone}")
        return _written(run, run.folder), run.epoch
    last = _written(run, RunFolder(run.folder.last))
    run.policy.load_state(best.weights)
    if run.average:
        run.average.load_state(best.average, best.state.average_updates)
    run.terminal.say(
        f"stopped by the guard after epoch {stopped.epoch}: the weights are those after epoch "
        f"{stopped.best_epoch}, where the monitors were at their best; the last are in {last}"
    )
    return _written(run, run.folder), stopped.best_epoch


def _written(run: Run, folder: RunFolder) -> Path:
    """Write the weights that evaluations draw with, and what was trained beside their average."""
    if run.average:
        run.policy.save_trained(folder.raw)
    with run.averaged():
        return run.policy.save_trained(folder.path)


def _directions(run: Run) -> dict[str, str]:
    return {name: identity.direction for name, identity in run.monitors.identities.items()}


def _say(run: Run, verdict: Verdict) -> None:
    note = f"guard: monitors {verdict.level:+.2f} deviations from the base model"
    if verdict.drop > 0:
        note += f", {verdict.drop:.2f} below their best after epoch {verdict.best_epoch}"
    if verdict.over:
        note += "; the pictures are falling apart"
    elif verdict.falling:
        note += "; that is more than chance, and may be the beginning of the end"
    for each in (note, *(f"guard: {warning}" for warning in verdict.unhealthy)):
        run.terminal.say(each)
